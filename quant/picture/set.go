package picture

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Limits, far above real sets.
const (
	maxFile     = 32 << 20 // bytes of one picture's file
	maxPictures = 1 << 20  // of a set
)

// ErrSet means a folder or tar that cannot be read as a set of pictures.
var ErrSet = errors.New("picture: bad set")

// Set is a number of pictures' files. Nothing is unpacked, so that names can do
// no harm.
type Set interface {
	// each calls f for every picture, in the same order each time, until f
	// returns an error, which it returns. size is the file's.
	each(f func(name string, size int64, open func() (io.ReadCloser, error)) error) error
}

type folder struct{ fs.FS }

// Folder is the pictures below a folder, by name.
func Folder(f fs.FS) Set { return folder{f} }

func (s folder) each(f func(string, int64, func() (io.ReadCloser, error)) error) error {
	return fs.WalkDir(s.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !isPicture(name) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return f(name, info.Size(), func() (io.ReadCloser, error) { return s.Open(name) })
	})
}

type archive struct {
	r    io.ReaderAt
	size int64
}

// Tar is the pictures of an uncompressed tar of size bytes, as they come.
func Tar(r io.ReaderAt, size int64) Set { return archive{r, size} }

func (s archive) each(f func(string, int64, func() (io.ReadCloser, error)) error) error {
	r := tar.NewReader(io.NewSectionReader(s.r, 0, s.size)) // not buffered: it seeks over what nobody reads
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("%w: %w", ErrSet, err)
		}
		if h.Typeflag != tar.TypeReg || !isPicture(h.Name) {
			continue
		}
		if err := f(h.Name, h.Size, func() (io.ReadCloser, error) { return io.NopCloser(r), nil }); err != nil {
			return err
		}
	}
}

// isPicture goes by the name's end. What macOS and tar leave beside a file, "._x.jpg", is none.
func isPicture(name string) bool {
	if strings.HasPrefix(path.Base(name), ".") {
		return false
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".jpg", ".jpeg", ".png":
		return true
	}
	return false
}

// Picture is one of a set.
type Picture struct {
	Name string
	RGBA []byte // [H][W][4]
	W, H int
	Err  error // why there are no pixels
}

// Take decodes n pictures, evenly taken over the set, or all if it has no more
// or n is 0, and calls f with one at a time until f returns an error, which it
// returns. total is how many will come. Pictures of over maxPixels are shrunk.
func Take(s Set, n, maxPixels int, f func(p Picture, total int) error) error {
	total := 0
	err := s.each(func(string, int64, func() (io.ReadCloser, error)) error {
		if total++; total > maxPictures {
			return fmt.Errorf("%w: over %d pictures", ErrSet, maxPictures)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if total == 0 {
		return fmt.Errorf("%w: no .jpg, .jpeg or .png in it", ErrSet)
	}
	if n <= 0 || n > total {
		n = total
	}
	at, taken := 0, 0
	return s.each(func(name string, size int64, open func() (io.ReadCloser, error)) error {
		mine := taken < n && at == taken*total/n
		if at++; !mine {
			return nil
		}
		taken++
		p := Picture{Name: name}
		p.RGBA, p.W, p.H, p.Err = read(size, open, maxPixels)
		return f(p, n)
	})
}

func read(size int64, open func() (io.ReadCloser, error), maxPixels int) ([]byte, int, int, error) {
	if size > maxFile {
		return nil, 0, 0, fmt.Errorf("%w: %d bytes, at most %d", ErrUnreadable, size, maxFile)
	}
	r, err := open()
	if err != nil {
		return nil, 0, 0, err
	}
	defer r.Close()
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, 0, 0, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return Decode(data, maxPixels)
}
