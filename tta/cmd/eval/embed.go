package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/image/draw"

	"lqa/quant/cmd/progress"
	"lqa/quant/engine"
	"lqa/quant/picture"
	"lqa/tta/cmd/eval/dataset"
	"lqa/tta/shift"
)

// features are the embeddings of a split's pictures, in order.
type features struct {
	Class      []uint16    // of each picture
	Embeddings [][]float32 // [n][D]; nil for a picture that could not be read
	Encode     time.Duration
	Encoded    int // pictures encoded in this run
}

// Unreadable counts the pictures without an embedding.
func (f *features) Unreadable() (n int) {
	for _, e := range f.Embeddings {
		if e == nil {
			n++
		}
	}
	return n
}

// step is the distance of the pictures taken of a split of n.
func step(n, limit int) int {
	if limit <= 0 || n <= limit {
		return 1
	}
	return (n + limit - 1) / limit
}

// effect is a change of the pictures before they are encoded.
type effect struct {
	name string // kept embeddings are found by it; "" for none
	// apply changes the view [side][side][4] of the picture of this number; the
	// same number gives the same bytes, whichever engine has it. nil: nothing.
	apply func(picture int, rgba []byte, side int) error
	// side is that of views made and changed before the model makes its own, as
	// published corruptions want it; 0: the model's own view is changed.
	side int
	// closer has the middle of the picture looked at.
	closer bool
	// views, beyond 1, are how often each picture is seen, by a crop that drifts.
	// The embeddings of one picture follow one another.
	views int
}

// embed returns the embeddings of every step-th picture of s, changed by fx. They
// come from the folder keep if they are there, made by this model of this tar; the
// first picture is then encoded again, and if a bit differs, all are.
func embed(ctx context.Context, m *model, s *dataset.Split, every int, fx effect, keep string, p *progress.Bar) (*features, error) {
	name, err := keptName(m, s, every, fx)
	if err != nil {
		return nil, err
	}
	name = filepath.Join(keep, name)
	if b, err := os.ReadFile(name); err == nil {
		f, err := decodeFeatures(b, m.Width, len(s.Classes))
		if err == nil {
			err = f.verify(m, s, fx)
		}
		if err == nil {
			p.Add(int64(len(f.Class)))
			return f, nil
		}
		p.Note("%s: %v: encoding anew", name, err)
	}
	f, err := encodeAll(ctx, m, s, every, fx, p)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(keep, 0o777); err != nil {
		return nil, err
	}
	// Renaming keeps a stopped run from leaving half a file.
	part := name + ".part"
	if err := os.WriteFile(part, f.append(nil, m.Width), 0o666); err != nil {
		return nil, err
	}
	return f, os.Rename(part, name)
}

// keptName binds embeddings to the model, to the tar's content, to which of its
// pictures are taken and to how this program prepares them.
func keptName(m *model, s *dataset.Split, every int, fx effect) (string, error) {
	file, err := os.Open(s.Tar)
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha256.New()
	fmt.Fprintf(h, "decode 2, every %d, model %s\n", every, m.Hash)
	if fx.name != "" {
		fmt.Fprintf(h, "effect %q\n", fx.name)
	}
	if fx.side != 0 {
		fmt.Fprintf(h, "on views of %d\n", fx.side)
	}
	if fx.views > 1 {
		fmt.Fprintf(h, "%d views, drift 1\n", fx.views)
	}
	if some := s.Selection(); some != "" {
		fmt.Fprintf(h, "only %s\n", some)
	}
	for _, c := range s.Classes { // their order is what Class counts
		fmt.Fprintf(h, "%q\n", c.Folder)
	}
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:16]) + ".features", nil
}

var errStop = errors.New("stop")

// verify encodes the first readable picture again: kernels may have changed
// since.
func (f *features) verify(m *model, s *dataset.Split, fx effect) error {
	n := slices.IndexFunc(f.Embeddings, func(e []float32) bool { return e != nil })
	if n != 0 {
		return nil
	}
	again := matrix(1, m.Width) // of its first view
	err := s.Each(1, func(p dataset.Picture) error {
		if err := encodeOne(m.engines[0], p, 0, fx, again); err != nil {
			return err
		}
		return errStop
	})
	if err != errStop {
		return err
	}
	if !slices.Equal(again[0], f.Embeddings[0]) {
		return errors.New("the first picture has another embedding now")
	}
	return nil
}

func (fx effect) count() int { return max(1, fx.views) }

func matrix(rows, width int) [][]float32 {
	m := make([][]float32, rows)
	for i := range m {
		m[i] = make([]float32, width)
	}
	return m
}

// errUnreadable marks a picture that cannot be decoded; it is the picture's
// fault, not the model's.
var errUnreadable = errors.New("unreadable")

// encodeOne writes a picture's embeddings: of its first views, one each.
func encodeOne(e encoder, p dataset.Picture, number int, fx effect, dst [][]float32) error {
	if p.Err != nil {
		return fmt.Errorf("%w: %s: %w", errUnreadable, p.Name, p.Err)
	}
	rgba, w, h, err := picture.Decode(p.Data, engine.MaxPixels)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errUnreadable, p.Name, err)
	}
	for v := range dst {
		if err := encodeView(e, rgba, w, h, number*fx.count()+v, fx.window(number, v, w, h), fx, dst[v]); err != nil {
			return fmt.Errorf("%s %s: %w", p.Name, fx.name, err)
		}
	}
	return nil
}

// encodeView writes the embedding of a window of a picture; number seeds the
// effect.
func encodeView(e encoder, rgba []byte, w, h, number int, window image.Rectangle, fx effect, dst []float32) error {
	seen := &image.RGBA{Pix: rgba, Stride: 4 * w, Rect: image.Rect(0, 0, w, h)}
	if fx.apply != nil && fx.side > 0 {
		// The middle square, as models cut it.
		square := min(window.Dx(), window.Dy())
		at := window.Min.Add(image.Pt((window.Dx()-square)/2, (window.Dy()-square)/2))
		view := image.NewRGBA(image.Rect(0, 0, fx.side, fx.side))
		draw.CatmullRom.Scale(view, view.Rect, seen, image.Rectangle{at, at.Add(image.Pt(square, square))}, draw.Src, nil)
		if err := fx.apply(number, view.Pix, fx.side); err != nil {
			return err
		}
		if err := e.SetFrame(view.Pix, fx.side, fx.side); err != nil {
			return err
		}
		return e.Encode(dst)
	}
	if window != seen.Rect {
		cut := image.NewRGBA(image.Rect(0, 0, window.Dx(), window.Dy()))
		draw.Copy(cut, image.Point{}, seen, window, draw.Src, nil)
		rgba, w, h = cut.Pix, window.Dx(), window.Dy()
	}
	if err := e.SetFrame(rgba, w, h); err != nil {
		return err
	}
	if fx.closer {
		if err := e.Closer(w, h); err != nil {
			return err
		}
	}
	if fx.apply != nil {
		side := e.ViewSize()
		view := make([]byte, 4*side*side)
		if err := e.View(view); err != nil {
			return err
		}
		if err := fx.apply(number, view, side); err != nil {
			return err
		}
		if err := e.SetView(view); err != nil {
			return err
		}
	}
	return e.Encode(dst)
}

// window is the part of a picture that view v sees: 7/8 of each side, drifting
// by up to a 64th a view and bouncing off the edges.
func (fx effect) window(number, v, w, h int) image.Rectangle {
	if fx.views <= 1 {
		return image.Rect(0, 0, w, h)
	}
	s := shift.NewSource(uint64(number))
	size := image.Pt(max(1, w*7/8), max(1, h*7/8))
	free := image.Pt(w, h).Sub(size)
	walk := func(free, side int) int {
		const unit = 256 // of a pixel
		at, speed := s.N(unit*free+1), s.N(2*unit*side/64+1)-unit*side/64
		if free == 0 {
			return 0
		}
		at += v * speed
		at = ((at % (2 * unit * free)) + 2*unit*free) % (2 * unit * free)
		return min(at, 2*unit*free-at) / unit
	}
	x := walk(free.X, w)
	at := image.Pt(x, walk(free.Y, h))
	return image.Rectangle{at, at.Add(size)}
}

// encodeAll reads the tar once and encodes on all engines; each result goes to
// its picture's place, so their number changes nothing.
func encodeAll(ctx context.Context, m *model, s *dataset.Split, every int, fx effect, p *progress.Bar) (*features, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type job struct {
		at      int
		picture dataset.Picture
	}
	jobs := make(chan job)
	n, views := (s.Pictures+every-1)/every, fx.count()
	f := &features{Class: make([]uint16, n*views), Embeddings: make([][]float32, n*views)}
	var mu sync.Mutex // guards Encode and Encoded
	var wg sync.WaitGroup
	for _, e := range m.engines {
		wg.Go(func() {
			for j := range jobs {
				start := time.Now()
				dst := matrix(views, m.Width)
				switch err := encodeOne(e, j.picture, j.at, fx, dst); {
				case errors.Is(err, errUnreadable):
					p.Note("%s/%s: %v", s.Set, s.Name, err)
				case err != nil:
					cancel(err)
				default:
					copy(f.Embeddings[j.at*views:], dst)
					mu.Lock()
					f.Encode += time.Since(start)
					f.Encoded += views
					mu.Unlock()
				}
				p.Add(int64(views))
			}
		})
	}
	at := 0
	err := s.Each(every, func(picture dataset.Picture) error {
		if at == n {
			return fmt.Errorf("%w: %s has grown", dataset.ErrLayout, s.Tar)
		}
		for v := range views {
			f.Class[at*views+v] = uint16(picture.Class)
		}
		select {
		case jobs <- job{at, picture}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		at++
		return nil
	})
	close(jobs)
	wg.Wait()
	if err == nil {
		err = context.Cause(ctx) // the last pictures' errors
	}
	if err == nil && at != n {
		err = fmt.Errorf("%w: %s has shrunk", dataset.ErrLayout, s.Tar)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Kept features, little-endian: "LQAF", D u32, n u32; for each picture its class
// u16 and whether it was read u8; the embeddings f32 of those that were; CRC-32
// u32 of all before.
const featuresMagic = "LQAF"

func (f *features) append(b []byte, width int) []byte {
	b = append(b, featuresMagic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(width))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.Class)))
	for i, c := range f.Class {
		b = binary.LittleEndian.AppendUint16(b, c)
		if f.Embeddings[i] == nil {
			b = append(b, 0)
		} else {
			b = append(b, 1)
		}
	}
	for _, e := range f.Embeddings {
		for _, v := range e {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

var errFeatures = errors.New("damaged")

func decodeFeatures(b []byte, width, classes int) (*features, error) {
	if len(b) < 16 || !bytes.HasPrefix(b, []byte(featuresMagic)) || crc32.ChecksumIEEE(b[:len(b)-4]) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return nil, errFeatures
	}
	d, n := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
	b = b[12 : len(b)-4]
	if uint64(d) != uint64(width) || uint64(n)*3 > uint64(len(b)) {
		return nil, errFeatures
	}
	head, rest := b[:3*n], b[3*n:]
	f := &features{Class: make([]uint16, n), Embeddings: make([][]float32, n)}
	for i := range f.Class {
		f.Class[i] = binary.LittleEndian.Uint16(head[3*i:])
		if int(f.Class[i]) >= classes {
			return nil, errFeatures
		}
		if head[3*i+2] == 0 {
			continue
		}
		if len(rest) < 4*width {
			return nil, errFeatures
		}
		e := make([]float32, width)
		for k := range e {
			e[k] = math.Float32frombits(binary.LittleEndian.Uint32(rest[4*k:]))
		}
		f.Embeddings[i], rest = e, rest[4*width:]
	}
	if len(rest) != 0 {
		return nil, errFeatures
	}
	return f, nil
}
