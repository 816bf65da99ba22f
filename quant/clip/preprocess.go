package clip

import (
	"errors"
	"fmt"
	"math"

	"lqa/quant/device"
	"lqa/quant/kernel"
)

// MaxPixels is the largest picture a model takes, width × height; larger ones
// are shrunk before they come here.
const MaxPixels = 1920 * 1080

// maxShort is the longest short side within MaxPixels.
const maxShort = 1440

// ErrPicture is wrapped by errors about a picture's size.
var ErrPicture = errors.New("clip: bad picture")

// closer is the part of a picture's short side that a closer view has, as a
// fraction.
var closer = struct{ num, den int }{4, 7}

// crop says where a view lies in a picture: torchvision's Resize(short), then
// CenterCrop(size).
type crop struct {
	width, height int // of the whole picture, resized
	left, top     int // of the view in it
}

// cropOf computes the crop of a w × h picture whose short side becomes short.
func cropOf(w, h, short, size int) crop {
	c := crop{width: short, height: short}
	if w <= h {
		c.height = short * h / w
	} else {
		c.width = short * w / h
	}
	half := func(d int) int { return int(math.RoundToEven(float64(d) / 2)) }
	c.left, c.top = half(c.width-size), half(c.height-size)
	return c
}

// view holds the buffers and the commands that make a view of a picture.
type view struct {
	size           int
	frame          uint32 // [MaxPixels] RGBA as it came
	mid            uint32 // [midRows][size] RGBA, resized horizontally
	midRows        int
	pixels         uint32 // [size][size] RGBA: the view
	tableH, tableV uint32
	list           uint32
	width, height  int // what tables and list are made for,
	short          int // resized so
}

func newView(l *device.Layout, size int) *view {
	v := &view{size: size, midRows: maxShort + 5*(maxShort/size+1) + 16}
	v.frame = l.Alloc(device.Frame, MaxPixels*4)
	v.mid = l.Alloc(device.Frame, v.midRows*size*4)
	v.pixels = l.Alloc(device.Frame, size*size*4)
	v.tableH = l.Alloc(device.Commands, kernel.ResizeWords(size)*4)
	v.tableV = l.Alloc(device.Commands, kernel.ResizeWords(size)*4)
	v.list = l.Alloc(device.Commands, 32*4)
	return v
}

// prepare writes tables and commands for a w × h picture whose short side becomes
// short.
func (v *view) prepare(d *device.Device, w, h, short int) error {
	if w < 1 || h < 1 || w > MaxPixels || h > MaxPixels/w {
		return fmt.Errorf("%w: %d × %d pixels, at most %d in all", ErrPicture, w, h, MaxPixels)
	}
	if w == v.width && h == v.height && short == v.short {
		return nil
	}
	c := cropOf(w, h, short, v.size)
	rh, err := kernel.Bicubic(w, c.width, c.left, v.size)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPicture, err)
	}
	rv, err := kernel.Bicubic(h, c.height, c.top, v.size)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPicture, err)
	}
	// Only the rows that the crop reads are resized horizontally.
	first := int(rv.Starts[0])
	last := v.size - 1
	rows := int(rv.Starts[last]+rv.Counts[last]) - first
	if rows > v.midRows {
		return fmt.Errorf("%w: %d × %d needs %d rows, at most %d", ErrPicture, w, h, rows, v.midRows)
	}
	for i := range rv.Starts {
		rv.Starts[i] -= int32(first)
	}
	list := v.commands(nil, rh, rv, first, rows, w).End()
	v.width, v.height = 0, 0 // until all is written
	for _, p := range []struct {
		at    uint32
		words []uint32
	}{{v.tableH, rh.Words(4)}, {v.tableV, rv.Words(v.size * 4)}, {v.list, list}} {
		if err := d.WriteU32(p.at, p.words); err != nil {
			return err
		}
	}
	v.width, v.height, v.short = w, h, short
	return nil
}

// commands appends those that make a view of rows first and on of a picture w
// wide.
func (v *view) commands(l kernel.List, rh, rv kernel.Resampling, first, rows, w int) kernel.List {
	l = kernel.ResizeH{X: v.frame + uint32(first*w*4), Y: v.mid, Table: v.tableH,
		Rows: rows, Stride: w * 4, Count: v.size, Taps: rh.Taps}.Append(l)
	return kernel.ResizeV{X: v.mid, Y: v.pixels, Table: v.tableV,
		Width: v.size, Count: v.size, Taps: rv.Taps}.Append(l)
}
