package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// What a pickle may hold: nil, bool, int64, float64, string, tuple, *list,
// *dict, global, *storage and *view.
type (
	tuple []any
	list  struct{ items []any }
	// dict keeps the pairs whose key is a string, in order; others (an
	// optimizer's) are of no use here.
	dict struct {
		keys   []string
		values map[string]any
	}
	global string // "module.name"

	// storage is a run of elements that tensors look into.
	storage struct {
		key   string
		dtype DType
		size  int64 // elements
	}
	// view is a tensor: elements of a storage, one a combination of indices.
	view struct {
		storage *storage
		offset  int64
		shape   []int64
		stride  []int64
		count   int64 // of elements
	}
)

func (d *dict) set(key, value any) error {
	k, ok := key.(string)
	if !ok {
		switch key.(type) {
		case int64, bool, nil, float64, tuple:
			return nil
		}
		return fmt.Errorf("%w: a dict's key is a %s", ErrForbidden, typeName(key))
	}
	if _, double := d.values[k]; double {
		return fmt.Errorf("%w: key %.80q stands twice", ErrCorrupt, k)
	}
	if d.values == nil {
		d.values = map[string]any{}
	}
	d.keys = append(d.keys, k)
	d.values[k] = value
	return nil
}

// globals are the only names a pickle may use: three functions, which are
// carried out here, and the types of storages.
const (
	orderedDict      = global("collections.OrderedDict")
	rebuildTensor    = global("torch._utils._rebuild_tensor_v2")
	rebuildParameter = global("torch._utils._rebuild_parameter")
)

var storageTypes = map[global]DType{
	"torch.FloatStorage": "F32", "torch.HalfStorage": "F16", "torch.BFloat16Storage": "BF16", "torch.DoubleStorage": "F64",
	"torch.LongStorage": "I64", "torch.IntStorage": "I32", "torch.ShortStorage": "I16", "torch.CharStorage": "I8",
	"torch.ByteStorage": "U8", "torch.BoolStorage": "BOOL",
}

func (g global) known() bool {
	_, isStorage := storageTypes[g]
	return isStorage || g == orderedDict || g == rebuildTensor || g == rebuildParameter
}

// Limits of a pickle, far above any state dict's.
const (
	maxStack   = 1 << 16 // Python writes dicts a thousand pairs at a time
	maxOpcodes = 1 << 20 // a tensor takes some 40
	maxStorage = 1 << 48 // elements
)

// pickle is a machine for the few opcodes of state dicts (Python's
// pickletools.py, protocols 2 to 4). It builds values and calls nothing.
type pickle struct {
	in    []byte
	at    int
	op    int // where the current opcode stands
	stack []any
	marks []int // lengths of stack
	memo  map[uint32]any

	storages map[string]*storage
}

// Opcodes that are understood.
const (
	opProto, opStop, opFrame, opMark                          = '\x80', '.', '\x95', '('
	opEmptyDict, opEmptyTuple, opEmptyList                    = '}', ')', ']'
	opTuple, opTuple1, opTuple2, opTuple3                     = 't', '\x85', '\x86', '\x87'
	opGlobal, opStackGlobal, opReduce, opBuild, opPersID      = 'c', '\x93', 'R', 'b', 'Q'
	opUnicode, opShortUnicode                                 = 'X', '\x8c'
	opPut, opLongPut, opMemoize, opGet, opLongGet             = 'q', 'r', '\x94', 'h', 'j'
	opInt, opInt1, opInt2, opLong1, opFloat                   = 'J', 'K', 'M', '\x8a', 'G'
	opTrue, opFalse, opNone                                   = '\x88', '\x89', 'N'
	opSetItem, opSetItems, opAppend, opAppends           byte = 's', 'u', 'a', 'e'
)

// refused names the other opcodes, which state dicts have no need of.
var refused = map[byte]string{
	'i': "INST", 'o': "OBJ", 0x81: "NEWOBJ", 0x92: "NEWOBJ_EX", 0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4",
	'B': "BINBYTES", 'C': "SHORT_BINBYTES", 0x8e: "BINBYTES8", 0x96: "BYTEARRAY8", 0x97: "NEXT_BUFFER", 0x98: "READONLY_BUFFER",
	'0': "POP", '1': "POP_MARK", '2': "DUP", 'F': "FLOAT", 'I': "INT", 'L': "LONG", 0x8b: "LONG4",
	'S': "STRING", 'T': "BINSTRING", 'U': "SHORT_BINSTRING", 'V': "UNICODE", 0x8d: "BINUNICODE8",
	'P': "PERSID", 'g': "GET", 'p': "PUT", 'd': "DICT", 'l': "LIST", 0x8f: "EMPTY_SET", 0x90: "ADDITEMS", 0x91: "FROZENSET",
}

// readPickle runs one pickle from byte at of in, and returns its value and
// where it ends. Storages that it names are added to storages.
func readPickle(in []byte, at int, storages map[string]*storage) (value any, end int, err error) {
	p := &pickle{in: in, at: at, memo: map[uint32]any{}, storages: storages}
	if len(in)-at < 2 || in[at] != opProto || in[at+1] < 2 || in[at+1] > 4 {
		return nil, 0, fmt.Errorf("%w: no pickle of protocol 2 to 4", ErrForbidden)
	}
	p.at += 2
	for range maxOpcodes {
		op, err := p.byte()
		if err != nil {
			return nil, 0, err
		}
		if op == opStop {
			if len(p.stack) != 1 || len(p.marks) != 0 {
				return nil, 0, p.corrupt("it ends with %d values", len(p.stack))
			}
			return p.stack[0], p.at, nil
		}
		p.op = p.at - 1
		if err := p.step(op); err != nil {
			return nil, 0, err
		}
		if len(p.stack) > maxStack || len(p.marks) > maxStack {
			return nil, 0, fmt.Errorf("%w: the pickle's stack, over %d deep", ErrTooLarge, maxStack)
		}
	}
	return nil, 0, fmt.Errorf("%w: the pickle, over %d opcodes", ErrTooLarge, maxOpcodes)
}

func (p *pickle) corrupt(format string, a ...any) error {
	return fmt.Errorf("%w: pickle, byte %d: %s", ErrCorrupt, p.op, fmt.Sprintf(format, a...))
}

func (p *pickle) forbidden(format string, a ...any) error {
	return fmt.Errorf("%w: pickle, byte %d: %s", ErrForbidden, p.op, fmt.Sprintf(format, a...))
}

// bytes takes the next n bytes.
func (p *pickle) bytes(n uint64) ([]byte, error) {
	if n > uint64(len(p.in)-p.at) {
		return nil, fmt.Errorf("%w: pickle, byte %d: %d bytes wanted, %d left", ErrTruncated, p.at, n, len(p.in)-p.at)
	}
	b := p.in[p.at : p.at+int(n)]
	p.at += int(n)
	return b, nil
}

func (p *pickle) byte() (byte, error) {
	b, err := p.bytes(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// number takes the next n bytes, at most 8, as an unsigned integer.
func (p *pickle) number(n int) (uint64, error) {
	b, err := p.bytes(uint64(n))
	var wide [8]byte
	copy(wide[:], b)
	return binary.LittleEndian.Uint64(wide[:]), err
}

func (p *pickle) push(v any) { p.stack = append(p.stack, v) }

// floor is the length below which values lie under a mark.
func (p *pickle) floor() int {
	if len(p.marks) == 0 {
		return 0
	}
	return p.marks[len(p.marks)-1]
}

func (p *pickle) pop() (any, error) {
	n := len(p.stack) - 1
	if n < p.floor() {
		return nil, p.corrupt("the stack is empty")
	}
	v := p.stack[n]
	p.stack = p.stack[:n]
	return v, nil
}

// top is the value that stays on the stack.
func (p *pickle) top() (any, error) {
	if len(p.stack) == p.floor() {
		return nil, p.corrupt("the stack is empty")
	}
	return p.stack[len(p.stack)-1], nil
}

// take pops n values.
func (p *pickle) take(n int) ([]any, error) {
	if len(p.stack)-n < p.floor() {
		return nil, p.corrupt("the stack is empty")
	}
	v := append([]any(nil), p.stack[len(p.stack)-n:]...)
	p.stack = p.stack[:len(p.stack)-n]
	return v, nil
}

// marked pops what was pushed since the last mark.
func (p *pickle) marked() ([]any, error) {
	if len(p.marks) == 0 {
		return nil, p.corrupt("there is no mark")
	}
	v, err := p.take(len(p.stack) - p.floor())
	p.marks = p.marks[:len(p.marks)-1]
	return v, err
}

// step carries out one opcode.
func (p *pickle) step(op byte) error {
	switch op {
	case opFrame:
		_, err := p.number(8)
		return err
	case opMark:
		p.marks = append(p.marks, len(p.stack))
	case opEmptyDict:
		p.push(new(dict))
	case opEmptyTuple:
		p.push(tuple(nil))
	case opEmptyList:
		p.push(new(list))
	case opTuple:
		v, err := p.marked()
		p.push(tuple(v))
		return err
	case opTuple1, opTuple2, opTuple3:
		v, err := p.take(int(op) - opTuple1 + 1)
		p.push(tuple(v))
		return err
	case opTrue, opFalse:
		p.push(op == opTrue)
	case opNone:
		p.push(nil)
	case opInt, opInt1, opInt2, opLong1, opFloat:
		return p.pushNumber(op)
	case opUnicode:
		return p.pushString(4)
	case opShortUnicode:
		return p.pushString(1)
	case opPut, opLongPut, opMemoize, opGet, opLongGet:
		return p.remember(op)
	case opGlobal:
		module, err := p.line()
		if err != nil {
			return err
		}
		name, err := p.line()
		if err != nil {
			return err
		}
		return p.pushGlobal(module, name)
	case opStackGlobal:
		v, err := p.take(2)
		if err != nil {
			return err
		}
		module, ok := v[0].(string)
		name, okName := v[1].(string)
		if !ok || !okName {
			return p.corrupt("STACK_GLOBAL of no strings")
		}
		return p.pushGlobal(module, name)
	case opPersID:
		id, err := p.pop()
		if err != nil {
			return err
		}
		s, err := p.storage(id)
		p.push(s)
		return err
	case opReduce:
		v, err := p.take(2)
		if err != nil {
			return err
		}
		made, err := p.reduce(v[0], v[1])
		p.push(made)
		return err
	case opBuild:
		v, err := p.take(1)
		if err != nil {
			return err
		}
		return p.build(v[0])
	case opSetItem, opSetItems, opAppend, opAppends:
		return p.fill(op)
	default:
		name := refused[op]
		if name == "" {
			name = "unknown"
		}
		return p.forbidden("opcode %s (%#02x)", name, op)
	}
	return nil
}

func (p *pickle) pushNumber(op byte) error {
	switch op {
	case opInt:
		n, err := p.number(4)
		p.push(int64(int32(n)))
		return err
	case opInt1:
		n, err := p.number(1)
		p.push(int64(n))
		return err
	case opInt2:
		n, err := p.number(2)
		p.push(int64(n))
		return err
	case opFloat:
		b, err := p.bytes(8)
		if err != nil {
			return err
		}
		p.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		return nil
	}
	size, err := p.byte()
	if err != nil {
		return err
	}
	if size > 8 {
		return p.forbidden("an integer of %d bytes", size)
	}
	n, err := p.number(int(size))
	shift := 64 - 8*uint(size)
	p.push(int64(n<<shift) >> shift) // shifts by 64 leave 0
	return err
}

// pushString reads a string after its length of so many bytes.
func (p *pickle) pushString(width int) error {
	n, err := p.number(width)
	if err != nil {
		return err
	}
	b, err := p.bytes(n)
	if err != nil {
		return err
	}
	if !utf8.Valid(b) {
		return p.corrupt("a string is not UTF-8")
	}
	p.push(string(b))
	return nil
}

// line reads what a GLOBAL's names end with.
func (p *pickle) line() (string, error) {
	const longest = 256
	rest := p.in[p.at:min(len(p.in), p.at+longest)]
	name, _, ok := strings.Cut(string(rest), "\n")
	if !ok {
		return "", p.corrupt("a GLOBAL's name has no end")
	}
	p.at += len(name) + 1
	return name, nil
}

func (p *pickle) pushGlobal(module, name string) error {
	g := global(module + "." + name)
	if !g.known() {
		if strings.HasPrefix(module, "__torch__") {
			return fmt.Errorf("%w: pickle, byte %d: %.200q", ErrTorchScript, p.op, string(g))
		}
		return p.forbidden("GLOBAL %.200q", string(g))
	}
	p.push(g)
	return nil
}

// remember carries out what writes and reads the memo.
func (p *pickle) remember(op byte) error {
	width := 1
	switch op {
	case opLongPut, opLongGet:
		width = 4
	case opMemoize:
		width = 0
	}
	n, err := p.number(width)
	if err != nil {
		return err
	}
	key := uint32(n)
	if op == opGet || op == opLongGet {
		v, ok := p.memo[key]
		if !ok {
			return p.corrupt("nothing is remembered as %d", key)
		}
		p.push(v)
		return nil
	}
	if op == opMemoize {
		key = uint32(len(p.memo))
	}
	v, err := p.top()
	if err != nil {
		return err
	}
	p.memo[key] = v
	return nil
}

// storage makes ('storage', type, key, device, elements), which a persistent
// id is, into a storage; the legacy form adds a view, of which there must be
// none. The device is where it was saved from, and of no meaning here.
func (p *pickle) storage(id any) (*storage, error) {
	t, ok := id.(tuple)
	if !ok || len(t) != 5 && len(t) != 6 || t[0] != "storage" {
		return nil, p.forbidden("a persistent id other than a storage's")
	}
	if len(t) == 6 && t[5] != nil {
		return nil, p.forbidden("a view of a storage")
	}
	kind, okKind := t[1].(global)
	dtype, okType := storageTypes[kind]
	key, okKey := t[2].(string)
	_, okDevice := t[3].(string)
	size, okSize := t[4].(int64)
	switch {
	case !okKind || !okType || !okKey || !okDevice || !okSize:
		return nil, p.corrupt("a storage of bad types")
	case size < 0 || size > maxStorage:
		return nil, p.corrupt("storage %.32q of %d elements", key, size)
	}
	s := &storage{key: key, dtype: dtype, size: size}
	if old := p.storages[key]; old != nil {
		if *old != *s {
			return nil, p.corrupt("storage %.32q is described in two ways", key)
		}
		return old, nil
	}
	p.storages[key] = s
	return s, nil
}

// reduce does what the three known functions would.
func (p *pickle) reduce(function, arguments any) (any, error) {
	args, ok := arguments.(tuple)
	if !ok {
		return nil, p.corrupt("REDUCE with a %s", typeName(arguments))
	}
	switch g, _ := function.(global); g {
	case orderedDict:
		if len(args) != 0 {
			return nil, p.forbidden("an OrderedDict made of values")
		}
		return new(dict), nil
	case rebuildTensor:
		return p.tensor(args)
	case rebuildParameter:
		if len(args) != 3 {
			return nil, p.corrupt("a parameter of %d parts", len(args))
		}
		v, ok := args[0].(*view)
		if !ok {
			return nil, p.corrupt("a parameter is a %s", typeName(args[0]))
		}
		return v, p.plain(args[1], args[2])
	}
	return nil, p.forbidden("REDUCE of a %s", typeName(function))
}

// plain checks requires_grad and the hooks, of which there may be none.
func (p *pickle) plain(grad, hooks any) error {
	if _, ok := grad.(bool); !ok {
		return p.corrupt("requires_grad is a %s", typeName(grad))
	}
	if d, ok := hooks.(*dict); !ok || len(d.keys) != 0 {
		return p.forbidden("a tensor with hooks")
	}
	return nil
}

// tensor makes (storage, offset, size, stride, requires_grad, hooks) into a
// view, every element of which lies in its storage.
func (p *pickle) tensor(args tuple) (*view, error) {
	if len(args) != 6 {
		return nil, p.corrupt("a tensor of %d parts", len(args))
	}
	s, ok := args[0].(*storage)
	offset, okOffset := args[1].(int64)
	shape, okShape := ints(args[2])
	stride, okStride := ints(args[3])
	if !ok || !okOffset || !okShape || !okStride || len(shape) != len(stride) || len(shape) > maxRank {
		return nil, p.corrupt("a tensor of bad parts")
	}
	count, ok := elements(shape, dtypeBytes[s.dtype])
	if !ok || offset < 0 || offset > s.size {
		return nil, p.corrupt("a tensor of shape %v at %d", shape, offset)
	}
	last := offset
	for i, n := range shape {
		switch step := stride[i]; {
		case step < 0:
			return nil, p.corrupt("strides %v", stride)
		case count == 0 || n <= 1:
		case step > s.size/(n-1):
			return nil, p.corrupt("strides %v reach beyond the storage", stride)
		default:
			last += step * (n - 1)
		}
		if last > s.size {
			break
		}
	}
	if count > 0 && last >= s.size {
		return nil, p.corrupt("a tensor of shape %v, strides %v at %d in a storage of %d", shape, stride, offset, s.size)
	}
	return &view{s, offset, shape, stride, count}, p.plain(args[4], args[5])
}

func ints(v any) ([]int64, bool) {
	t, ok := v.(tuple)
	if !ok {
		return nil, false
	}
	out := make([]int64, len(t))
	for i := range t {
		if out[i], ok = t[i].(int64); !ok {
			return nil, false
		}
	}
	return out, true
}

// build gives an object its state: torch so attaches _metadata, which is of
// no use here, to an OrderedDict.
func (p *pickle) build(state any) error {
	v, err := p.top()
	if err != nil {
		return err
	}
	_, ok := v.(*dict)
	_, okState := state.(*dict)
	if !ok || !okState {
		return p.forbidden("BUILD of a %s with a %s", typeName(v), typeName(state))
	}
	return nil
}

// fill adds to a dict or a list.
func (p *pickle) fill(op byte) error {
	var v []any
	var err error
	switch op {
	case opSetItems, opAppends:
		v, err = p.marked()
	case opSetItem:
		v, err = p.take(2)
	default:
		v, err = p.take(1)
	}
	if err != nil {
		return err
	}
	to, err := p.top()
	if err != nil {
		return err
	}
	switch to := to.(type) {
	case *dict:
		if op != opSetItem && op != opSetItems || len(v)%2 != 0 {
			break
		}
		for i := 0; i < len(v); i += 2 {
			if err := to.set(v[i], v[i+1]); err != nil {
				return err
			}
		}
		return nil
	case *list:
		if op != opAppend && op != opAppends {
			break
		}
		to.items = append(to.items, v...)
		return nil
	}
	return p.forbidden("%d values put into a %s by %q", len(v), typeName(to), op)
}

func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case tuple:
		return "tuple"
	case *list:
		return "list"
	case *dict:
		return "dict"
	case *storage:
		return "storage"
	case *view:
		return "tensor"
	case global:
		return string(v)
	}
	panic("checkpoint: a pickle's value of unknown type")
}
