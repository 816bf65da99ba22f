package checkpoint

import "io"

// Folder is a checkpoint's files, wherever they lie: a directory, a hub's
// repository, files dropped on a page.
type Folder interface {
	Names() []string                // plain file names, no slashes
	Open(name string) (File, error) // fs.ErrNotExist if it is not there
}

// File is an open file of a Folder.
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64
}
