package asm

// op is one row of the instruction table: what encodes and what disassembles.
type op struct {
	name string
	code uint32 // prefixed opcodes are prefix<<16 | code
	in   []Type
	out  Type
	imm  imm
}

// imm says what follows an opcode.
type imm byte

const (
	immNone    imm = iota
	immMem         // alignment, offset
	immLane        // one byte
	immMemLane     // alignment, offset, lane
	immShuffle     // 16 bytes
)

const (
	simd    = 0xfd << 16
	convert = 0xfc << 16 // saturating conversions
	threads = 0xfe << 16
)

// table lists every instruction that was declared below; Disassemble reads it.
var table = map[uint32]*op{}

func declare(name string, code uint32, out Type, i imm, in ...Type) *op {
	o := &op{name, code, in, out, i}
	table[code] = o
	return o
}

func (o *op) opcode() []byte {
	if o.code < 0x100 {
		return []byte{byte(o.code)}
	}
	return uleb([]byte{byte(o.code >> 16)}, o.code&0xffff)
}

func (o *op) expr(extra []byte, args ...Expr) Expr {
	return build(o.name, o.out, append(o.opcode(), extra...), o.in, args)
}

func op1(name string, code uint32, out, in Type) func(x Expr) Expr {
	o := declare(name, code, out, immNone, in)
	return func(x Expr) Expr { return o.expr(nil, x) }
}

func op2(name string, code uint32, out, a, b Type) func(a, b Expr) Expr {
	o := declare(name, code, out, immNone, a, b)
	return func(a, b Expr) Expr { return o.expr(nil, a, b) }
}

func op3(name string, code uint32, out, a, b, c Type) func(a, b, c Expr) Expr {
	o := declare(name, code, out, immNone, a, b, c)
	return func(a, b, c Expr) Expr { return o.expr(nil, a, b, c) }
}

// memarg encodes alignment 1 (never a promise we could break) and offset.
func memarg(offset uint32) []byte { return uleb([]byte{0}, offset) }

func load(name string, code uint32, out Type) func(addr Expr, offset uint32) Expr {
	o := declare(name, code, out, immMem, I32)
	return func(addr Expr, offset uint32) Expr { return o.expr(memarg(offset), addr) }
}

func store(name string, code uint32, in Type) func(f *Func, addr Expr, offset uint32, v Expr) {
	o := declare(name, code, Void, immMem, I32, in)
	return func(f *Func, addr Expr, offset uint32, v Expr) { f.emit(o.expr(memarg(offset), addr, v)) }
}

func lane(name string, code uint32, out Type, in ...Type) func(lane byte, args ...Expr) Expr {
	o := declare(name, code, out, immLane, in...)
	return func(lane byte, args ...Expr) Expr {
		if len(args) != len(o.in) {
			return Expr{&expr{typ: o.out, err: mistake("%s takes %d operands", o.name, len(o.in))}}
		}
		return o.expr([]byte{lane}, args...)
	}
}

// Scalar integers.
var (
	I32Eqz  = op1("i32.eqz", 0x45, I32, I32)
	I32Eq   = op2("i32.eq", 0x46, I32, I32, I32)
	I32LtS  = op2("i32.lt_s", 0x48, I32, I32, I32)
	I32LtU  = op2("i32.lt_u", 0x49, I32, I32, I32)
	I32GtS  = op2("i32.gt_s", 0x4a, I32, I32, I32)
	I32LeU  = op2("i32.le_u", 0x4d, I32, I32, I32)
	I32LeS  = op2("i32.le_s", 0x4c, I32, I32, I32)
	I32GeS  = op2("i32.ge_s", 0x4e, I32, I32, I32)
	I32Add  = op2("i32.add", 0x6a, I32, I32, I32)
	I32Sub  = op2("i32.sub", 0x6b, I32, I32, I32)
	I32Mul  = op2("i32.mul", 0x6c, I32, I32, I32)
	I32DivU = op2("i32.div_u", 0x6e, I32, I32, I32)
	I32And  = op2("i32.and", 0x71, I32, I32, I32)
	I32Shl  = op2("i32.shl", 0x74, I32, I32, I32)
	I32ShrU = op2("i32.shr_u", 0x76, I32, I32, I32)
)

// Atomics, on aligned addresses of a shared memory.
var (
	atomicNotify = declare("memory.atomic.notify", threads, I32, immMem, I32, I32)
	atomicWait32 = declare("memory.atomic.wait32", threads|1, I32, immMem, I32, I32, I64)
	atomicLoad   = declare("i32.atomic.load", threads|0x10, I32, immMem, I32)
	atomicStore  = declare("i32.atomic.store", threads|0x17, Void, immMem, I32, I32)
	atomicAdd    = declare("i32.atomic.rmw.add", threads|0x1e, I32, immMem, I32, I32)
)

// atomic encodes alignment 4, which atomics demand, and offset 0.
var atomic = []byte{2, 0}

// I32AtomicLoad reads addr.
func I32AtomicLoad(addr Expr) Expr { return atomicLoad.expr(atomic, addr) }

// I32AtomicAdd adds v to addr and is what was there before.
func I32AtomicAdd(addr, v Expr) Expr { return atomicAdd.expr(atomic, addr, v) }

// AtomicWait32 sleeps while addr holds expected, for so many nanoseconds or,
// below 0, for ever: 0 woken, 1 it held something else, 2 time was up.
func AtomicWait32(addr, expected, timeout Expr) Expr {
	return atomicWait32.expr(atomic, addr, expected, timeout)
}

// I32AtomicStore writes v to addr.
func (f *Func) I32AtomicStore(addr, v Expr) { f.emit(atomicStore.expr(atomic, addr, v)) }

// AtomicNotify wakes all that wait at addr.
func (f *Func) AtomicNotify(addr Expr) { f.emit(atomicNotify.expr(atomic, addr, I32Const(-1)), 0x1a) }

// Scalar floats.
var (
	F32Gt   = op2("f32.gt", 0x5e, I32, F32, F32)
	F32Sqrt = op1("f32.sqrt", 0x91, F32, F32)
	F32Add  = op2("f32.add", 0x92, F32, F32, F32)
	F32Sub  = op2("f32.sub", 0x93, F32, F32, F32)
	F32Mul  = op2("f32.mul", 0x94, F32, F32, F32)
	F32Div  = op2("f32.div", 0x95, F32, F32, F32)
	F32Max  = op2("f32.max", 0x97, F32, F32, F32)

	F32ConvertI32S = op1("f32.convert_i32_s", 0xb2, F32, I32)
)

// Loads: address and a constant offset.
var (
	I32Load   = load("i32.load", 0x28, I32)
	F32Load   = load("f32.load", 0x2a, F32)
	I32Load8S = load("i32.load8_s", 0x2c, I32)

	V128Load        = load("v128.load", simd, V128)
	V128Load8x8S    = load("v128.load8x8_s", simd|1, V128)
	V128Load8x8U    = load("v128.load8x8_u", simd|2, V128)
	V128Load32Splat = load("v128.load32_splat", simd|9, V128)
	V128Load32Zero  = load("v128.load32_zero", simd|92, V128)
)

var (
	i32Store  = store("i32.store", 0x36, I32)
	f32Store  = store("f32.store", 0x38, F32)
	v128Store = store("v128.store", simd|11, V128)

	v128Store32Lane = declare("v128.store32_lane", simd|90, Void, immMemLane, I32, V128)
	v128Store64Lane = declare("v128.store64_lane", simd|91, Void, immMemLane, I32, V128)
)

// I32Store writes v to addr + offset.
func (f *Func) I32Store(addr Expr, offset uint32, v Expr) { i32Store(f, addr, offset, v) }

// F32Store writes v to addr + offset.
func (f *Func) F32Store(addr Expr, offset uint32, v Expr) { f32Store(f, addr, offset, v) }

// V128Store writes v to addr + offset.
func (f *Func) V128Store(addr Expr, offset uint32, v Expr) { v128Store(f, addr, offset, v) }

// V128Store32Lane writes one 32-bit lane of v to addr + offset.
func (f *Func) V128Store32Lane(addr Expr, offset uint32, v Expr, lane byte) {
	f.emit(v128Store32Lane.expr(append(memarg(offset), lane), addr, v))
}

// V128Store64Lane writes one 64-bit lane of v to addr + offset.
func (f *Func) V128Store64Lane(addr Expr, offset uint32, v Expr, lane byte) {
	f.emit(v128Store64Lane.expr(append(memarg(offset), lane), addr, v))
}

// Vectors: moving bytes.
var (
	I32x4Splat = op1("i32x4.splat", simd|17, V128, I32)
	F32x4Splat = op1("f32x4.splat", simd|19, V128, F32)

	F32x4Lane = lane("f32x4.extract_lane", simd|31, F32, V128)

	V128And = op2("v128.and", simd|78, V128, V128, V128)
	V128Or  = op2("v128.or", simd|80, V128, V128, V128)

	V128AnyTrue = op1("v128.any_true", simd|83, I32, V128)
)

var shuffle = declare("i8x16.shuffle", simd|13, V128, immShuffle, V128, V128)

// I8x16Shuffle picks bytes: 0..15 from a, 16..31 from b.
func I8x16Shuffle(a, b Expr, lanes [16]byte) Expr { return shuffle.expr(lanes[:], a, b) }

// Vectors: integers.
var (
	I8x16NarrowI16x8S = op2("i8x16.narrow_i16x8_s", simd|101, V128, V128, V128)
	I8x16NarrowI16x8U = op2("i8x16.narrow_i16x8_u", simd|102, V128, V128, V128)
	I16x8NarrowI32x4S = op2("i16x8.narrow_i32x4_s", simd|133, V128, V128, V128)

	I8x16Sub  = op2("i8x16.sub", simd|113, V128, V128, V128)
	I8x16MinU = op2("i8x16.min_u", simd|119, V128, V128, V128)
	I8x16MaxS = op2("i8x16.max_s", simd|120, V128, V128, V128)
	I16x8MinS = op2("i16x8.min_s", simd|150, V128, V128, V128)

	I16x8ExtendLowI8x16S  = op1("i16x8.extend_low_i8x16_s", simd|135, V128, V128)
	I16x8ExtendHighI8x16S = op1("i16x8.extend_high_i8x16_s", simd|136, V128, V128)
	I16x8ExtendLowI8x16U  = op1("i16x8.extend_low_i8x16_u", simd|137, V128, V128)
	I16x8ExtendHighI8x16U = op1("i16x8.extend_high_i8x16_u", simd|138, V128, V128)
	I32x4ExtendLowI16x8S  = op1("i32x4.extend_low_i16x8_s", simd|167, V128, V128)
	I32x4ExtendLowI16x8U  = op1("i32x4.extend_low_i16x8_u", simd|169, V128, V128)

	I32x4ExtendHighI16x8U = op1("i32x4.extend_high_i16x8_u", simd|170, V128, V128)

	I16x8ExtaddPairwiseI8x16S = op1("i16x8.extadd_pairwise_i8x16_s", simd|124, V128, V128)
	I32x4ExtaddPairwiseI16x8S = op1("i32x4.extadd_pairwise_i16x8_s", simd|126, V128, V128)

	I16x8Shl  = op2("i16x8.shl", simd|139, V128, V128, I32)
	I16x8ShrU = op2("i16x8.shr_u", simd|141, V128, V128, I32)
	I16x8Add  = op2("i16x8.add", simd|142, V128, V128, V128)
	I16x8Sub  = op2("i16x8.sub", simd|145, V128, V128, V128)
	I16x8Mul  = op2("i16x8.mul", simd|149, V128, V128, V128)
	I16x8MaxS = op2("i16x8.max_s", simd|152, V128, V128, V128)

	I32x4Shl  = op2("i32x4.shl", simd|171, V128, V128, I32)
	I32x4ShrS = op2("i32x4.shr_s", simd|172, V128, V128, I32)
	I32x4Add  = op2("i32x4.add", simd|174, V128, V128, V128)
	I32x4Sub  = op2("i32x4.sub", simd|177, V128, V128, V128)
	I32x4Mul  = op2("i32x4.mul", simd|181, V128, V128, V128)

	I32x4DotI16x8S = op2("i32x4.dot_i16x8_s", simd|186, V128, V128, V128)
)

// Vectors: relaxed. With the second operand in 0..127 both have one result, the
// same on every machine, as long as pair sums stay within int16.
var (
	I16x8RelaxedDotI8x16I7x16S    = op2("i16x8.relaxed_dot_i8x16_i7x16_s", simd|274, V128, V128, V128)
	I32x4RelaxedDotI8x16I7x16AddS = op3("i32x4.relaxed_dot_i8x16_i7x16_add_s", simd|275, V128, V128, V128, V128)
)

// Vectors: floats. PMin(a, b) is b < a ? b : a and PMax(a, b) is a < b ? b : a,
// one instruction on every machine.
var (
	F32x4Gt   = op2("f32x4.gt", simd|68, V128, V128, V128)
	F32x4Abs  = op1("f32x4.abs", simd|224, V128, V128)
	F32x4Sqrt = op1("f32x4.sqrt", simd|227, V128, V128)
	F32x4Add  = op2("f32x4.add", simd|228, V128, V128, V128)
	F32x4Sub  = op2("f32x4.sub", simd|229, V128, V128, V128)
	F32x4Mul  = op2("f32x4.mul", simd|230, V128, V128, V128)
	F32x4Div  = op2("f32x4.div", simd|231, V128, V128, V128)
	F32x4PMin = op2("f32x4.pmin", simd|234, V128, V128, V128)
	F32x4PMax = op2("f32x4.pmax", simd|235, V128, V128, V128)

	F32x4ConvertI32x4S = op1("f32x4.convert_i32x4_s", simd|250, V128, V128)
)
