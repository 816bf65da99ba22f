package checkpoint

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// entry is a file of a zip archive: size bytes, as they are, from byte begin
// of the archive.
type entry struct {
	name        string
	begin, size int64
}

// readZip reads the directory of a zip archive as torch.save writes them
// (PyTorchStreamWriter; PKWARE APPNOTE 4.3): entries stored without
// compression or encryption, one disk, no comment, the directory and its end
// records last. archive/zip is more patient, which helps those who hide
// things: here names stand once, the local headers agree with the directory,
// and no two entries share a byte.
func readZip(r io.ReaderAt, size int64, l Limits) ([]entry, error) {
	dir, records, first, err := zipDirectory(r, size, l)
	if err != nil {
		return nil, err
	}
	var list []entry
	seen := map[string]bool{}
	for len(dir) > 0 {
		e, n, err := zipEntry(dir)
		if err != nil {
			return nil, fmt.Errorf("%w: zip entry %d: %w", ErrCorrupt, len(list), err)
		}
		if seen[e.name] {
			return nil, fmt.Errorf("%w: zip entry %q stands twice", ErrCorrupt, e.name)
		}
		seen[e.name] = true
		list, dir = append(list, e), dir[n:]
	}
	if uint64(len(list)) != records {
		return nil, fmt.Errorf("%w: %d zip entries, its end says %d", ErrCorrupt, len(list), records)
	}
	slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(a.begin, b.begin) })
	end := int64(0)
	for i := range list {
		e := &list[i]
		if e.begin < end {
			return nil, fmt.Errorf("%w: zip entry %q overlaps the one before it", ErrCorrupt, e.name)
		}
		if e.begin, err = zipData(r, e, first); err != nil {
			return nil, err
		}
		if e.size > first-e.begin {
			return nil, fmt.Errorf("%w: zip entry %q reaches into the directory", ErrCorrupt, e.name)
		}
		end = e.begin + e.size
	}
	return list, nil
}

const (
	zipEnd       = 22 // bytes of the end record
	zipEnd64     = 56 // of the one with 64 bits
	zipLocator   = 20 // of what points at it
	zipCentral   = 46 // of a directory's entry, without names
	zipLocal     = 30 // of an entry's own header
	zipEncrypted = 1  // flag
)

// zipDirectory reads the directory's bytes and says how many entries it has
// and where it begins.
func zipDirectory(r io.ReaderAt, size int64, l Limits) (dir []byte, records uint64, first int64, err error) {
	bad := func(what string) ([]byte, uint64, int64, error) {
		return nil, 0, 0, fmt.Errorf("%w: zip: %s", ErrCorrupt, what)
	}
	var tail [zipEnd64 + zipLocator + zipEnd]byte
	n := min(size, int64(len(tail)))
	if err := readAt(r, tail[int64(len(tail))-n:], size-n); err != nil {
		return nil, 0, 0, err
	}
	u16, u32, u64 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	end := tail[zipEnd64+zipLocator:]
	if string(end[:4]) != "PK\x05\x06" {
		return nil, 0, 0, fmt.Errorf("%w: no end of a zip archive in the last %d bytes: cut off, or bytes appended", ErrTruncated, zipEnd)
	}
	if u32(end[4:]) != 0 || u16(end[8:]) != u16(end[10:]) || u16(end[20:]) != 0 {
		return bad("several disks, or a comment")
	}
	records, length, begin := uint64(u16(end[10:])), uint64(u32(end[12:])), uint64(u32(end[16:]))
	stop := size - zipEnd
	if locator := tail[zipEnd64 : zipEnd64+zipLocator]; string(locator[:4]) == "PK\x06\x07" {
		wide := tail[:zipEnd64]
		stop -= zipEnd64 + zipLocator
		switch {
		case string(wide[:4]) != "PK\x06\x06" || u64(wide[4:]) != zipEnd64-12 || u64(locator[8:]) != uint64(stop):
			return bad("the 64-bit end record is not where it is said to be")
		case u32(locator[4:]) != 0 || u32(locator[16:]) != 1 || u32(wide[16:]) != 0 || u32(wide[20:]) != 0 || u64(wide[24:]) != u64(wide[32:]):
			return bad("several disks")
		case records != math.MaxUint16 && records != u64(wide[32:]) || length != math.MaxUint32 && length != u64(wide[40:]) ||
			begin != math.MaxUint32 && begin != u64(wide[48:]):
			return bad("its two end records differ")
		}
		records, length, begin = u64(wide[32:]), u64(wide[40:]), u64(wide[48:])
	}
	switch {
	case length > uint64(l.HeaderBytes):
		return nil, 0, 0, fmt.Errorf("%w: zip directory of %d bytes, limit %d", ErrTooLarge, length, l.HeaderBytes)
	case stop < 0 || begin > uint64(stop) || length != uint64(stop)-begin:
		return bad("the directory does not end where the end records begin")
	}
	dir = make([]byte, length)
	return dir, records, int64(begin), readAt(r, dir, int64(begin))
}

// zipEntry reads the directory's first entry, whose begin is that of its local
// header, and says how long it is in the directory.
func zipEntry(dir []byte) (e entry, n int, err error) {
	u16, u32, u64 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	if len(dir) < zipCentral || string(dir[:4]) != "PK\x01\x02" {
		return e, 0, fmt.Errorf("no directory entry")
	}
	nameLen, extraLen := int(u16(dir[28:])), int(u16(dir[30:]))
	n = zipCentral + nameLen + extraLen
	if n > len(dir) {
		return e, 0, fmt.Errorf("its name is longer than the directory")
	}
	e.name = string(dir[zipCentral : zipCentral+nameLen])
	packed, size, begin := uint64(u32(dir[20:])), uint64(u32(dir[24:])), uint64(u32(dir[42:]))
	for extra := dir[zipCentral+nameLen : n]; len(extra) >= 4; {
		id, length := u16(extra), int(u16(extra[2:]))
		if length > len(extra)-4 {
			return e, 0, fmt.Errorf("%q: bad extra field", e.name)
		}
		wide := extra[4 : 4+length]
		extra = extra[4+length:]
		if id != 1 { // zip64
			continue
		}
		for _, v := range []*uint64{&size, &packed, &begin} {
			if *v == math.MaxUint32 && len(wide) >= 8 {
				*v, wide = u64(wide), wide[8:]
			}
		}
	}
	switch flags := u16(dir[8:]); {
	case flags&zipEncrypted != 0:
		return e, 0, fmt.Errorf("%q is encrypted", e.name)
	case u16(dir[10:]) != 0:
		return e, 0, fmt.Errorf("%q is compressed, which torch.save never does", e.name)
	case packed != size:
		return e, 0, fmt.Errorf("%q has %d bytes stored as %d", e.name, size, packed)
	case u16(dir[32:]) != 0 || u16(dir[34:]) != 0:
		return e, 0, fmt.Errorf("%q has a comment, or is on another disk", e.name)
	case size > math.MaxInt64 || begin > math.MaxInt64:
		return e, 0, fmt.Errorf("%q is out of range", e.name)
	}
	e.size, e.begin = int64(size), int64(begin)
	return e, n, nil
}

// zipData reads an entry's local header, before byte first, and says where its
// data begin: only there does the padding stand that aligns them.
func zipData(r io.ReaderAt, e *entry, first int64) (int64, error) {
	room := first - e.begin - zipLocal - int64(len(e.name))
	if room < 0 {
		return 0, fmt.Errorf("%w: zip entry %q begins in the directory", ErrCorrupt, e.name)
	}
	head := make([]byte, zipLocal+len(e.name))
	if err := readAt(r, head, e.begin); err != nil {
		return 0, err
	}
	u16, u32 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32
	sizes := func(v uint32) bool { return v == 0 || v == math.MaxUint32 || int64(v) == e.size } // 0: said behind the data
	if string(head[:4]) != "PK\x03\x04" || u16(head[6:])&zipEncrypted != 0 || u16(head[8:]) != 0 || int(u16(head[26:])) != len(e.name) ||
		!strings.HasSuffix(string(head), e.name) || !sizes(u32(head[18:])) || !sizes(u32(head[22:])) {
		return 0, fmt.Errorf("%w: zip entry %q: its own header differs from the directory", ErrCorrupt, e.name)
	}
	extra := int64(u16(head[28:]))
	if extra > room {
		return 0, fmt.Errorf("%w: zip entry %q begins in the directory", ErrCorrupt, e.name)
	}
	return e.begin + int64(len(head)) + extra, nil
}
