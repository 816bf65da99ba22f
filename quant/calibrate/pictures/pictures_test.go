package pictures

import (
	"testing"

	"lqa/quant/picture"
)

func TestFS(t *testing.T) {
	n := 0
	err := picture.Take(picture.Folder(FS), 0, 1<<20, func(p picture.Picture, total int) error {
		n++
		if p.Err != nil || min(p.W, p.H) != 224 {
			t.Errorf("%s: %d × %d, %v", p.Name, p.W, p.H, p.Err)
		}
		return nil
	})
	if err != nil || n != 24 {
		t.Errorf("%d pictures, %v", n, err)
	}
}
