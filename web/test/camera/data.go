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
	var shots []Shot
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
				index[f[0]] = len(shots)
				shots = append(shots, Shot{Label: f[1], Rate: rate})
			}
			return nil
		}
		i, ok := index[path.Dir(name)]
		if !ok {
			return fmt.Errorf("camera: %s in %s is in no clip", name, file)
		}
		if float64(len(shots[i].Pictures)) > Hold*shots[i].Rate {
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
