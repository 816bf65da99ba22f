package clip

import "testing"

// TestCropOf holds the crop to torchvision's Resize and CenterCrop, whose
// halves round to even.
func TestCropOf(t *testing.T) {
	for _, c := range []struct {
		w, h int
		want crop
	}{
		{224, 224, crop{224, 224, 0, 0}},
		{640, 480, crop{298, 224, 37, 0}}, // 74/2
		{480, 640, crop{224, 298, 0, 37}},
		{1920, 1080, crop{398, 224, 87, 0}},
		{225, 224, crop{225, 224, 0, 0}},  // 0.5 rounds to 0
		{227, 224, crop{227, 224, 2, 0}},  // 1.5 rounds to 2
		{229, 224, crop{229, 224, 2, 0}},  // 2.5 rounds to 2
		{100, 37, crop{605, 224, 190, 0}}, // 190.5 rounds to 190
		{1, 1, crop{224, 224, 0, 0}},
		{1, 1000, crop{224, 224000, 0, 111888}},
	} {
		if got := cropOf(c.w, c.h, 224, 224); got != c.want {
			t.Errorf("%d × %d: %+v, want %+v", c.w, c.h, got, c.want)
		}
	}
}
