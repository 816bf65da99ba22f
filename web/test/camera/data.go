package camera

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // the pictures are JPEG
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Photos reads the pictures of the wanted classes from a tar of
// <class>/<id>.jpg files: one a class, the first of the archive.
func Photos(file string, classes []string) (map[string]image.Image, error) {
	out := map[string]image.Image{}
	err := walk(file, func(name string, r io.Reader) error {
		class := path.Dir(name)
		if !slices.Contains(classes, class) || out[class] != nil {
			return nil
		}
		img, _, err := image.Decode(r)
		if err != nil {
			return fmt.Errorf("camera: %s in %s: %w", name, file, err)
		}
		out[class] = img
		return nil
	})
	return out, err
}

// Classes lists the folders of such a tar, in its order.
func Classes(file string) ([]string, error) {
	var out []string
	err := walk(file, func(name string, _ io.Reader) error {
		if class := path.Dir(name); !slices.Contains(out, class) {
			out = append(out, class)
		}
		return nil
	})
	return out, err
}

// Clips reads a tar of clips: clips.tsv first (clip, label, instance,
// condition, frames a second, frames), then <clip>/<number>.jpg in order. A
// clip gets as many frames as it is held, no more.
func Clips(file string) ([]Shot, error) {
	return clips(file, func(_ string, rate float64, at, _ int) bool { return float64(at) <= Hold*rate })
}

// Parts reads of such a tar the clips whose names begin with prefix, and of each
// what lies between two shares of its frames; a part is played so fast that it
// is seen in full.
func Parts(file, prefix string, from, to float64) ([]Shot, error) {
	shots, err := clips(file, func(clip string, _ float64, at, frames int) bool {
		share := float64(at) / float64(frames)
		return strings.HasPrefix(clip, prefix) && share >= from && share < to
	})
	shots = slices.DeleteFunc(shots, func(s Shot) bool { return len(s.Pictures) == 0 })
	for i := range shots {
		shots[i].Rate = float64(len(shots[i].Pictures)) / Hold
	}
	return shots, err
}

// clips reads the frames that are wanted: frame at of so many, from 0.
func clips(file string, wanted func(clip string, rate float64, at, frames int) bool) ([]Shot, error) {
	var shots []Shot
	var frames, read []int // of each
	index := map[string]int{}
	err := walk(file, func(name string, r io.Reader) error {
		if name == "clips.tsv" {
			for s := bufio.NewScanner(r); s.Scan(); {
				f := strings.Split(s.Text(), "\t")
				if len(f) != 6 {
					return fmt.Errorf("camera: clips.tsv in %s: %d fields, not 6", file, len(f))
				}
				rate, err := strconv.ParseFloat(f[4], 64)
				if err != nil {
					return fmt.Errorf("camera: clips.tsv in %s: %w", file, err)
				}
				n, err := strconv.Atoi(f[5])
				if err != nil {
					return fmt.Errorf("camera: clips.tsv in %s: %w", file, err)
				}
				index[f[0]] = len(shots)
				shots, frames, read = append(shots, Shot{Label: f[1], Rate: rate}), append(frames, n), append(read, 0)
			}
			return nil
		}
		clip := path.Dir(name)
		i, ok := index[clip]
		if !ok {
			return fmt.Errorf("camera: %s in %s is in no clip", name, file)
		}
		at := read[i]
		read[i]++
		if !wanted(clip, shots[i].Rate, at, frames[i]) {
			return nil
		}
		img, _, err := image.Decode(r)
		if err != nil {
			return fmt.Errorf("camera: %s in %s: %w", name, file, err)
		}
		shots[i].Pictures = append(shots[i].Pictures, img)
		return nil
	})
	return shots, err
}

func walk(file string, each func(name string, r io.Reader) error) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("camera: %w", err)
	}
	defer f.Close()
	for tr := tar.NewReader(bufio.NewReaderSize(f, 1<<18)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("camera: %s: %w", file, err)
		}
		if err := each(h.Name, tr); err != nil {
			return err
		}
	}
}

// Picture decodes a JPEG.
func Picture(b []byte) (image.Image, error) {
	img, _, err := image.Decode(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("camera: %w", err)
	}
	return img, nil
}
