package shq

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Reader reads a file as a stream: header and manifest at once, then frame
// after frame. Nothing of a frame is handed out before its hash is checked.
// It is not safe for concurrent use.
type Reader struct {
	r        io.Reader
	hash     func([]byte) [32]byte
	manifest *Manifest
	sum      [32]byte
	gaps     []gap // in the frames' order
	next     int   // frame
	zstd     *zstd.Decoder
	packed   []byte // room for the largest frame, compressed
	raw      []byte // and decompressed
	tensor   int    // the next that NextTensors hands out
	partial  []byte // of it, from frames before
	err      error  // sticky
	closed   bool
}

// NewReader reads header and manifest from r and checks both whole: after it,
// every size and place in the manifest is in bounds. hash computes SHA-256;
// nil means crypto/sha256.
//
// r is read in a few large pieces and never past the end of the file but for
// one byte, which proves the end. Close frees the decoder.
func NewReader(r io.Reader, l Limits, hash func([]byte) [32]byte) (*Reader, error) {
	l = l.withDefaults()
	if hash == nil {
		hash = sha256.Sum256
	}
	var head [HeaderBytes]byte
	n, err := io.ReadFull(r, head[:])
	if k := min(n, len(Magic)); string(head[:k]) != Magic[:k] {
		return nil, fmt.Errorf("%w: %.8q", ErrMagic, head[:min(n, 8)])
	}
	if err != nil {
		return nil, readError(err, "header")
	}
	if v := binary.LittleEndian.Uint32(head[4:]); v != Version {
		return nil, fmt.Errorf("%w %d, this reader knows %d", ErrVersion, v, Version)
	}
	length := binary.LittleEndian.Uint32(head[8:])
	if int64(length) > int64(l.ManifestBytes) {
		return nil, fmt.Errorf("%w: manifest of %d bytes, limit %d", ErrTooLarge, length, l.ManifestBytes)
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, readError(err, "manifest")
	}
	sum := hash(raw)
	if sum != [32]byte(head[12:]) {
		return nil, fmt.Errorf("%w: SHA-256 of the manifest differs", ErrCorrupt)
	}
	m, err := parseManifest(raw, l)
	if err != nil {
		return nil, err
	}
	gaps, err := m.check(HeaderBytes+int64(length), l)
	if err != nil {
		return nil, err
	}
	rd := &Reader{r: r, hash: hash, manifest: m, sum: sum, gaps: gaps}
	packed, most := 0, 0
	for i := range m.Frames {
		packed, most = max(packed, m.Frames[i].Size), max(most, m.Frames[i].Raw)
	}
	rd.packed, rd.raw = make([]byte, packed), make([]byte, 0, most)
	rd.zstd, err = zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(uint64(l.FrameRawBytes)), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("shq: zstd: %w", err)
	}
	return rd, nil
}

// Manifest returns the checked manifest. It must not be changed.
func (r *Reader) Manifest() *Manifest { return r.manifest }

// Hash returns the SHA-256 of the manifest's bytes, which pins the whole file.
func (r *Reader) Hash() [32]byte { return r.sum }

// Close frees the decoder. It does not close the underlying reader.
func (r *Reader) Close() {
	r.zstd.Close()
	r.closed = true
	if r.err == nil {
		r.err = errClosed
	}
}

var errClosed = errors.New("shq: reader is closed")

// Next reads, checks and decompresses the next frame. raw stays valid until
// the call after. After the last frame the error is io.EOF; an error comes
// again on each later call.
func (r *Reader) Next() (frame int, raw []byte, err error) {
	if r.err != nil {
		return 0, nil, r.err
	}
	frame = r.next
	if frame == len(r.manifest.Frames) {
		r.err = r.end()
		return 0, nil, r.err
	}
	if raw, err = r.read(frame); err != nil {
		r.err = err
		return 0, nil, err
	}
	r.next++
	return frame, raw, nil
}

// NextTensors reads the next frame, as Next does, and calls f with each tensor
// that ends in it, in the order of the manifest. b has t.Bytes() bytes and
// stays valid during the call. A reader is read with Next or with NextTensors,
// not both.
func (r *Reader) NextTensors(f func(t *Tensor, b []byte) error) (frame int, err error) {
	frame, raw, err := r.Next()
	if err != nil {
		return 0, err
	}
	for ; r.tensor < len(r.manifest.Tensors) && r.manifest.Tensors[r.tensor].Frame <= frame; r.tensor++ {
		t := &r.manifest.Tensors[r.tensor]
		piece := raw
		if t.Frame == frame {
			piece = raw[t.Offset:]
		}
		need := t.Bytes() - len(r.partial)
		if need > len(piece) { // goes on in the next frame
			// Not before its bytes have come is there room for a whole tensor:
			// a file that claims much holds little.
			r.partial = append(r.partial, piece...)
			break
		}
		piece = piece[:need]
		if len(r.partial) > 0 {
			r.partial = append(r.partial, piece...)
			piece, r.partial = r.partial, r.partial[:0]
		}
		if err := f(t, piece); err != nil {
			r.err = err
			return 0, err
		}
	}
	return frame, nil
}

// end proves that the file stops where the manifest says.
func (r *Reader) end() error {
	var one [1]byte
	switch _, err := io.ReadFull(r.r, one[:]); {
	case err == nil:
		return fmt.Errorf("%w: bytes after the last frame", ErrCorrupt)
	case errors.Is(err, io.EOF):
		return io.EOF
	default:
		return fmt.Errorf("shq: read: %w", err)
	}
}

func (r *Reader) read(i int) ([]byte, error) {
	f := &r.manifest.Frames[i]
	packed := r.packed[:f.Size]
	if _, err := io.ReadFull(r.r, packed); err != nil {
		return nil, readError(err, fmt.Sprintf("frame %d at byte %d", i, f.Offset))
	}
	return r.decode(r.raw[:0], i, packed)
}

// Decode checks and decompresses frame i, whose bytes the caller has got by
// other ways than the stream, and appends them to dst. Calls may come in any
// order, between and after those of Next, which they do not disturb.
func (r *Reader) Decode(dst []byte, i int, packed []byte) ([]byte, error) {
	f := &r.manifest.Frames[i]
	switch {
	case r.closed:
		return nil, errClosed
	case len(packed) < f.Size:
		return nil, &FrameError{Frame: i, Offset: f.Offset, Reason: fmt.Sprintf("%d bytes of %d", len(packed), f.Size), Err: ErrTruncated}
	case len(packed) > f.Size:
		return nil, &FrameError{Frame: i, Offset: f.Offset, Reason: fmt.Sprintf("%d bytes, not %d", len(packed), f.Size), Err: ErrCorrupt}
	}
	return r.decode(dst, i, packed)
}

func (r *Reader) decode(dst []byte, i int, packed []byte) ([]byte, error) {
	f := &r.manifest.Frames[i]
	corrupt := func(why string) error {
		return &FrameError{Frame: i, Offset: f.Offset, Reason: why, Err: ErrCorrupt}
	}
	if sum := r.hash(packed); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, corrupt("SHA-256 differs")
	}
	if err := checkZstd(packed, f.Raw); err != nil {
		return nil, corrupt(err.Error())
	}
	// The decoder stops at dst's capacity, so there must be room and no more.
	dst = slices.Grow(dst, f.Raw)
	all, err := r.zstd.DecodeAll(packed, dst[:len(dst):len(dst)+f.Raw])
	if err != nil {
		return nil, corrupt("zstd: " + err.Error())
	}
	raw := all[len(dst):]
	if len(raw) != f.Raw {
		return nil, corrupt(fmt.Sprintf("%d raw bytes, want %d", len(raw), f.Raw))
	}
	at, _ := slices.BinarySearchFunc(r.gaps, i, func(g gap, frame int) int { return g.frame - frame })
	for ; at < len(r.gaps) && r.gaps[at].frame == i; at++ {
		for _, b := range raw[r.gaps[at].from:r.gaps[at].to] {
			if b != 0 {
				return nil, corrupt(fmt.Sprintf("padding before byte %d is not zero", r.gaps[at].to))
			}
		}
	}
	return all, nil
}

// checkZstd walks the blocks of packed: it must be exactly one zstd frame,
// without dictionary, that states the size raw. So decompressing can neither
// yield nor allocate more, and nothing hides behind the frame (RFC 8878,
// section 3.1).
func checkZstd(packed []byte, raw int) error {
	var h zstd.Header
	if err := h.Decode(packed); err != nil {
		return fmt.Errorf("zstd header: %w", err)
	}
	switch {
	case h.Skippable:
		return errors.New("a skippable zstd frame")
	case !h.SingleSegment || !h.HasFCS || h.FrameContentSize != uint64(raw):
		return fmt.Errorf("zstd frame does not state %d bytes in a single segment", raw)
	case h.DictionaryID != 0:
		return errors.New("zstd frame wants a dictionary")
	}
	at := h.HeaderSize
	for last := false; !last; {
		if len(packed)-at < 3 {
			return errors.New("zstd frame ends within a block")
		}
		b := uint32(packed[at]) | uint32(packed[at+1])<<8 | uint32(packed[at+2])<<16
		size := int(b >> 3)
		if b>>1&3 == 1 { // run-length block: one byte, repeated
			size = 1
		}
		last = b&1 != 0
		if at += 3; size > len(packed)-at {
			return errors.New("zstd frame ends within a block")
		}
		at += size
	}
	if h.HasCheckSum {
		at += 4
	}
	if at != len(packed) {
		return fmt.Errorf("zstd frame of %d bytes in %d", at, len(packed))
	}
	return nil
}

// readError tells a file that stops too early from a reader that failed.
func readError(err error, where string) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: in the %s", ErrTruncated, where)
	}
	return fmt.Errorf("shq: read: %w", err)
}
