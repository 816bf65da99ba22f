package checkpointtest

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"strconv"

	"lqa/quant/checkpoint"
)

// pickler writes the pickle of a state dict as torch.save does, at protocol 2.
type pickler struct {
	b      []byte
	memo   map[string]byte // of names that return
	next   int
	legacy bool // persistent ids have a sixth part
}

func (p *pickler) op(b ...byte) { p.b = append(p.b, b...) }

// put remembers what is on top.
func (p *pickler) put() {
	if p.next < 256 {
		p.op('q', byte(p.next))
	} else {
		p.op('r')
		p.b = binary.LittleEndian.AppendUint32(p.b, uint32(p.next))
	}
	p.next++
}

func (p *pickler) str(s string) {
	p.op('X')
	p.b = binary.LittleEndian.AppendUint32(p.b, uint32(len(s)))
	p.b = append(p.b, s...)
	p.put()
}

// again pushes what key stands for: from the memo, or by make.
func (p *pickler) again(key string, make func()) {
	if at, ok := p.memo[key]; ok {
		p.op('h', at)
		return
	}
	if p.next < 256 {
		p.memo[key] = byte(p.next)
	}
	make()
}

func (p *pickler) global(module, name string) {
	p.again(module+" "+name, func() {
		p.op('c')
		p.b = append(p.b, module+"\n"+name+"\n"...)
		p.put()
	})
}

func (p *pickler) word(s string) { p.again(s, func() { p.str(s) }) }

func (p *pickler) int(n int) {
	switch {
	case n < 1<<8:
		p.op('K', byte(n))
	case n < 1<<16:
		p.op('M', byte(n), byte(n>>8))
	default:
		p.op('J')
		p.b = binary.LittleEndian.AppendUint32(p.b, uint32(n))
	}
}

// ints writes a tuple.
func (p *pickler) ints(list []int) {
	switch n := len(list); n {
	case 0:
		p.op(')')
		return
	case 1, 2, 3:
		for _, v := range list {
			p.int(v)
		}
		p.op(0x84 + byte(n))
	default:
		p.op('(')
		for _, v := range list {
			p.int(v)
		}
		p.op('t')
	}
	p.put()
}

// orderedDict writes an empty one.
func (p *pickler) orderedDict() {
	p.global("collections", "OrderedDict")
	p.op(')', 'R')
	p.put()
}

var storageNames = map[checkpoint.DType]string{"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage", "I64": "LongStorage"}

// tensor writes one that has the storage key to itself.
func (p *pickler) tensor(t tensor, key string) {
	count := 1
	strides := make([]int, len(t.shape))
	for i := len(t.shape) - 1; i >= 0; i-- {
		strides[i] = count
		count *= t.shape[i]
	}
	p.global("torch._utils", "_rebuild_tensor_v2")
	p.op('(', '(')
	p.word("storage")
	p.global("torch", storageNames[t.dtype])
	p.str(key)
	p.word("cuda:0")
	p.int(count)
	if p.legacy {
		p.op('N')
	}
	p.op('t')
	p.put()
	p.op('Q')
	p.int(0)
	p.ints(t.shape)
	p.ints(strides)
	p.op(0x89)
	p.orderedDict()
	p.op('t')
	p.put()
	p.op('R')
	p.put()
}

// stateDict writes the object, and says the keys of its storages.
func (o *Options) stateDict(p *pickler, list []tensor) (keys []string) {
	p.op(0x80, 2)
	if o.Wrapped {
		p.op('}')
		p.put()
		p.op('(')
		p.str("epoch")
		p.int(32)
		p.str("lr")
		p.op('G', 0x3f, 0x50, 0x62, 0x4d, 0xd2, 0xf1, 0xa9, 0xfc) // 0.001
		p.str("state_dict")
	}
	p.orderedDict()
	p.op('(')
	for i, t := range list {
		if i > 0 && i%1000 == 0 {
			p.op('u', '(')
		}
		key := strconv.Itoa(i)
		keys = append(keys, key)
		p.str(t.name)
		p.tensor(t, key)
	}
	p.op('u')
	// torch attaches the modules' versions to the OrderedDict.
	p.op('}')
	p.put()
	p.str("_metadata")
	p.orderedDict()
	p.str("")
	p.op('}')
	p.put()
	p.str("version")
	p.int(1)
	p.op('s', 's', 's', 'b')
	if o.Wrapped {
		p.op('u')
	}
	p.op('.')
	return keys
}

func newPickler() *pickler { return &pickler{memo: map[string]byte{}} }

// writeTorch writes the zip form.
func (o *Options) writeTorch(w io.Writer, list []tensor) error {
	p := newPickler()
	keys := o.stateDict(p, list)
	z := &zipper{w: w}
	z.add("archive/data.pkl", p.b)
	z.add("archive/.format_version", []byte("1"))
	z.add("archive/.storage_alignment", []byte("64"))
	z.add("archive/byteorder", []byte("little"))
	for i, t := range list {
		z.add("archive/data/"+keys[i], t.bytes())
	}
	z.add("archive/version", []byte("3\n"))
	z.add("archive/.data/serialization_id", []byte("0123456789012345678901234567890123456789"))
	return z.end()
}

// zipper writes a zip archive as torch's PyTorchStreamWriter does: stored,
// data at multiples of 64, sizes behind the data, a 64-bit end record.
type zipper struct {
	w       io.Writer
	at      int
	dir     []byte
	entries int
	err     error
}

func (z *zipper) write(b []byte) {
	if z.err == nil {
		_, z.err = z.w.Write(b)
	}
	z.at += len(b)
}

var u16, u32, u64 = binary.LittleEndian.AppendUint16, binary.LittleEndian.AppendUint32, binary.LittleEndian.AppendUint64

func (z *zipper) add(name string, data []byte) {
	const flags = 0x808
	begin := z.at
	pad := -(begin + 30 + len(name) + 4) & 63
	h := append([]byte("PK\x03\x04"), 0, 0)
	h = u16(u16(h, flags), 0)
	h = append(h, make([]byte, 4+12)...) // time; sizes come later
	h = u16(u16(h, uint16(len(name))), uint16(4+pad))
	h = append(h, name...)
	h = u16(append(h, "FB"...), uint16(pad))
	for range pad {
		h = append(h, 'Z')
	}
	z.write(h)
	z.write(data)
	sum, size := crc32.ChecksumIEEE(data), uint32(len(data))
	z.write(u32(u32(u32([]byte("PK\x07\x08"), sum), size), size))

	d := append(z.dir, "PK\x01\x02\x00\x00\x00\x00"...)
	d = append(u16(u16(d, flags), 0), 0, 0, 0, 0)
	d = u32(u32(u32(d, sum), size), size)
	d = u16(d, uint16(len(name)))
	d = append(d, make([]byte, 2+2+2+2+4)...)
	z.dir = append(u32(d, uint32(begin)), name...)
	z.entries++
}

func (z *zipper) end() error {
	n, dir, length := uint64(z.entries), uint64(z.at), uint64(len(z.dir))
	z.write(z.dir)
	wide := uint64(z.at)
	b := u64([]byte("PK\x06\x06"), 44)
	b = append(b, 0x1e, 3, 0x2d, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = u64(u64(u64(u64(b, n), n), length), dir)
	b = u64(u32(append(b, "PK\x06\x07"...), 0), wide)
	b = u32(b, 1)
	b = append(b, "PK\x05\x06\x00\x00\x00\x00"...)
	b = u16(u16(b, uint16(n)), uint16(n))
	z.write(u16(u32(u32(b, uint32(length)), uint32(dir)), 0))
	return z.err
}

// writeLegacy writes the form before torch 1.6.
func (o *Options) writeLegacy(w io.Writer, list []tensor) error {
	b := []byte("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.")
	system := newPickler()
	system.op(0x80, 2, '}')
	system.put()
	system.op('(')
	system.str("protocol_version")
	system.int(1001)
	system.str("little_endian")
	system.op(0x88)
	system.str("type_sizes")
	system.op('}')
	system.put()
	system.op('u', '.')
	object := newPickler()
	object.legacy = true
	keys := o.stateDict(object, list)
	names := newPickler()
	names.op(0x80, 2, ']')
	names.put()
	names.op('(')
	for i := len(keys) - 1; i >= 0; i-- { // in any order
		names.str(keys[i])
	}
	names.op('e', '.')
	for _, part := range [][]byte{b, system.b, object.b, names.b} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	for i := len(list) - 1; i >= 0; i-- {
		data := list[i].bytes()
		count := 1
		for _, d := range list[i].shape {
			count *= d
		}
		if _, err := w.Write(append(u64(nil, uint64(count)), data...)); err != nil {
			return err
		}
	}
	return nil
}
