// Package kernel is the list of SIMD kernels: each file holds one idea, its
// command, its emitter and, beside them, the plain Go reference that defines
// it. A kernel gives the reference's result bit for bit, on every host:
// integer sums are exact, and float32 is multiplied and added in one fixed
// order, never fused.
//
// A model is recorded once as a List of commands. Offsets are bytes in the
// device's memory. Feature maps are [pixels][channels]; the stride between
// pixels is the channel count rounded up to 8 and the padding is zero, so no
// kernel needs a column tail. Letters: M rows, N columns, K inner; K4 and N8
// are K and N rounded up to 4 and 8.
package kernel

import (
	"iter"
	"math"

	"lqa/quant/kernel/asm"
)

// MaxThreads is how many threads scratch is laid out for.
const MaxThreads = 8

// Lanes is what channel strides are rounded up to.
const Lanes = 8

// Op is a command's code.
type Op uint32

// The command set. Codes are internal to a process: lists are never stored.
const (
	opEnd Op = iota
	opResizeH
	opResizeV
	opPatch
	opGEMMF32
	opQuant
	opQuantGELU
	opQuantQuickGELU
	opQuantLayerNorm
	opGEMMQ8C
	opGEMMQ8CCodes
	opQuantLow
	opQuantLowGELU
	opQuantLowQuickGELU
	opQuantLowLayerNorm
	opGEMMQ4
	opGEMMQ5
	opGEMMQ6
	opGEMMQ7
	opGEMMQ4Codes
	opGEMMQ5Codes
	opGEMMQ6Codes
	opGEMMQ7Codes
	opColSumsQ4
	opColSumsQ5
	opColSumsQ6
	opColSumsQ7
	opPeak
	opDepthwise3s1
	opDepthwise3s2
	opDepthwise5s1
	opDepthwise5s2
	opDepthwiseCodes3s1
	opDepthwiseCodes3s2
	opDepthwiseCodes5s1
	opDepthwiseCodes5s2
	opDepthwiseWide3s1
	opDepthwiseWide3s2
	opDepthwiseWide5s1
	opDepthwiseWide5s2
	opAdd
	opPool
	opNormalize
	opGatherQ8R
	opGatherF32
	opSoftmaxPool
	opSoftmax
	opGate
	opGELU
	opQuickGELU
	opLayerNorm
	opAttentionPackF32
	opAttentionF32
	opAttentionPackQN16
	opAttentionQN16
	opVote
	opDots
)

// Kernels is the one list: the module, the tests and the benchmarks range over
// it. Its order is that of the command set.
var Kernels = []Kernel{
	{opResizeH, "resize_u8_u8_u8_1x1_simd", emitResizeH},
	{opResizeV, "resize_v_u8_u8_u8_1x1_simd", emitResizeV},
	{opPatch, "patch_u8_f32_1x1_simd", emitPatch},
	{opGEMMF32, "gemm_f32_f32_f32_path", emitGEMMF32},
	{opQuant, "quant_f32_qd8_1x8_simd", emitQuant(Nothing)},
	{opQuantGELU, "gelu_f32_qd8_1x8_simd", emitQuant(DoGELU)},
	{opQuantQuickGELU, "quickgelu_f32_qd8_1x8_simd", emitQuant(DoQuickGELU)},
	{opQuantLayerNorm, "layernorm_f32_f32_qd8_1x8_simd", emitQuant(DoLayerNorm)},
	{opGEMMQ8C, "gemm_qd8_q8c_f32_path", emitIntGEMM(8, false)},
	{opGEMMQ8CCodes, "gemm_qd8_q8c_r7_path", emitIntGEMM(8, true)},
	{opQuantLow, "quant_f32_qd8_path", emitQuantLow(Nothing)},
	{opQuantLowGELU, "gelu_f32_qd8_path", emitQuantLow(DoGELU)},
	{opQuantLowQuickGELU, "quickgelu_f32_qd8_path", emitQuantLow(DoQuickGELU)},
	{opQuantLowLayerNorm, "layernorm_f32_f32_qd8_path", emitQuantLow(DoLayerNorm)},
	{opGEMMQ4, "gemm_qd8_q4_f32_path", emitIntGEMM(4, false)},
	{opGEMMQ5, "gemm_qd8_q5_f32_path", emitIntGEMM(5, false)},
	{opGEMMQ6, "gemm_qd8_q6_f32_path", emitIntGEMM(6, false)},
	{opGEMMQ7, "gemm_qd8_q7_f32_path", emitIntGEMM(7, false)},
	{opGEMMQ4Codes, "gemm_qd8_q4_r7_path", emitIntGEMM(4, true)},
	{opGEMMQ5Codes, "gemm_qd8_q5_r7_path", emitIntGEMM(5, true)},
	{opGEMMQ6Codes, "gemm_qd8_q6_r7_path", emitIntGEMM(6, true)},
	{opGEMMQ7Codes, "gemm_qd8_q7_r7_path", emitIntGEMM(7, true)},
	{opColSumsQ4, "colsums_q4_f32_simd", emitColSums(4)},
	{opColSumsQ5, "colsums_q5_f32_simd", emitColSums(5)},
	{opColSumsQ6, "colsums_q6_f32_simd", emitColSums(6)},
	{opColSumsQ7, "colsums_q7_f32_simd", emitColSums(7)},
	{opPeak, "peak_path", emitPeak},
	{opDepthwise3s1, "depthwise_f32_f32_f32_3x3s1_simd", emitDepthwise(3, 1)},
	{opDepthwise3s2, "depthwise_f32_f32_f32_3x3s2_simd", emitDepthwise(3, 2)},
	{opDepthwise5s1, "depthwise_f32_f32_f32_5x5s1_simd", emitDepthwise(5, 1)},
	{opDepthwise5s2, "depthwise_f32_f32_f32_5x5s2_simd", emitDepthwise(5, 2)},
	{opDepthwiseCodes3s1, "depthwise_r7_q8r_r8_3x3s1_path", emitDepthwiseCodes(3, 1, false)},
	{opDepthwiseCodes3s2, "depthwise_r7_q8r_r8_3x3s2_path", emitDepthwiseCodes(3, 2, false)},
	{opDepthwiseCodes5s1, "depthwise_r7_q8r_r8_5x5s1_path", emitDepthwiseCodes(5, 1, false)},
	{opDepthwiseCodes5s2, "depthwise_r7_q8r_r8_5x5s2_path", emitDepthwiseCodes(5, 2, false)},
	{opDepthwiseWide3s1, "depthwise_r7_q8r_r16_3x3s1_path", emitDepthwiseCodes(3, 1, true)},
	{opDepthwiseWide3s2, "depthwise_r7_q8r_r16_3x3s2_path", emitDepthwiseCodes(3, 2, true)},
	{opDepthwiseWide5s1, "depthwise_r7_q8r_r16_5x5s1_path", emitDepthwiseCodes(5, 1, true)},
	{opDepthwiseWide5s2, "depthwise_r7_q8r_r16_5x5s2_path", emitDepthwiseCodes(5, 2, true)},
	{opAdd, "add_f32_f32_f32_1x4_simd", emitAdd},
	{opPool, "pool_f32_f32_1x4_simd", emitPool},
	{opNormalize, "normalize_f32_f32_1x4_simd", emitNormalize},
	{opGatherQ8R, "gather_q8r_f32_1x4_simd", emitGatherQ8R},
	{opGatherF32, "gather_f32_f32_1x4_simd", emitGatherF32},
	{opSoftmaxPool, "softmaxpool_f32_f32_1x4_simd", emitSoftmaxPool},
	{opSoftmax, "softmax_f32_f32_1x4_simd", emitSoftmax},
	{opGate, "gate_f32_f32_f32_1x4_simd", emitGate},
	{opGELU, "gelu_f32_f32_1x4_simd", emitGELU},
	{opQuickGELU, "quickgelu_f32_f32_1x4_simd", emitQuickGELU},
	{opLayerNorm, "layernorm_f32_f32_f32_1x8_simd", emitLayerNorm},
	{opAttentionPackF32, "attentionpack_f32_f32_4x8_simd", emitAttentionPackF32},
	{opAttentionF32, "attention_f32_f32_f32_4x8_simd", emitAttention(true)},
	{opAttentionPackQN16, "attentionpack_f32_qn16_8x8c2_simd", emitAttentionPackQN16},
	{opAttentionQN16, "attention_qn16_qn16_f32_4x8c2_simd", emitAttention(false)},
	{opVote, "vote_q8r_q8r_f32_1x4c8_simd", emitVote},
	{opDots, "dots_f32_f32_f32_1x16_simd", emitDots},
}

// Kernel is one entry: a command's code, its name and its emitter, which
// writes the body of a function (args, tid, nthreads).
type Kernel struct {
	op   Op
	Name string
	emit func(e *emitter)
}

// List is a recorded command list: per command its code, its length in words
// and its arguments.
type List []uint32

func (l List) add(op Op, args ...uint32) List {
	return append(append(l, uint32(op), uint32(len(args)+2)), args...)
}

// End closes the list; nothing runs beyond it.
func (l List) End() List { return append(l, uint32(opEnd)) }

// Command is anything that can stand in a List.
type Command interface{ Append(l List) List }

// Inf clamps nothing: Lo: -Inf, Hi: Inf.
var Inf = float32(math.Inf(1))

// Spec is what a module is assembled for.
type Spec struct {
	Pages  int  // of 64 KiB, exactly so many
	Shared bool // memory between threads
	Path   Path // how its integer GEMMs are built
	// Lists are the command lists that it will run; kernels that none of them
	// uses are left out. nil: all kernels are in.
	Lists []List
}

// uses reports which commands the lists hold.
func (s Spec) uses() func(Op) bool {
	if s.Lists == nil {
		return func(Op) bool { return true }
	}
	used := map[Op]bool{}
	for _, l := range s.Lists {
		for op := range l.commands() {
			used[op] = true
		}
	}
	return func(op Op) bool { return used[op] }
}

// commands yields each command's code and arguments, up to the end.
func (l List) commands() iter.Seq2[Op, []uint32] {
	return func(yield func(Op, []uint32) bool) {
		for len(l) > 0 && Op(l[0]) != opEnd {
			if !yield(Op(l[0]), l[2:l[1]]) {
				return
			}
			l = l[l[1]:]
		}
	}
}

// Each yields every command by its kernel's name, as a list of its own.
func (l List) Each() iter.Seq2[string, List] {
	return func(yield func(string, List) bool) {
		for op, args := range l.commands() {
			if !yield(Kernels[op-1].Name, List(nil).add(op, args...).End()) {
				return
			}
		}
	}
}

// Module assembles the kernel module, whose memory is imported as "env"
// "memory". It exports run(list, tid, n), which runs thread tid's share of each
// command and returns 0. In a shared memory run is for thread 0: it wakes n - 1
// others, who wait in help(tid), and returns 1 where one of them does not come.
func Module(s Spec) ([]byte, error) {
	m := asm.NewModule()
	m.ImportMemory("env", "memory", uint32(s.Pages), s.Shared)
	uses := s.uses()
	funcs := make([]*asm.Func, len(Kernels))
	for i, k := range Kernels {
		if !uses(k.op) {
			continue
		}
		f := m.Func(k.Name)
		e := &emitter{Func: f, path: s.Path, args: f.Param(asm.I32), tid: f.Param(asm.I32), n: f.Param(asm.I32)}
		k.emit(e)
		funcs[i] = f
	}

	name := "run"
	if s.Shared {
		name = "work"
	}
	work := m.Func(name, asm.I32)
	list, tid, n := work.Param(asm.I32), work.Param(asm.I32), work.Param(asm.I32)
	var arrived asm.Expr // threads at barriers, when this one may go on
	if s.Shared {
		arrived = work.Param(asm.I32)
	}
	args, op := work.Local(asm.I32), work.Local(asm.I32)
	work.Set(op, asm.I32Load(list, 0))
	work.While(op, func() {
		work.Set(args, asm.I32Add(list, asm.I32Const(8)))
		work.Add(asm.I32Shl(asm.I32Load(list, 4), asm.I32Const(2)), list)
		cases := make([]func(), len(Kernels))
		for i := range Kernels {
			cases[i] = work.Unreachable
			if funcs[i] != nil {
				cases[i] = func() { work.Call(funcs[i], args, tid, n) }
			}
		}
		work.Switch(asm.I32Sub(op, asm.I32Const(1)), cases, work.Unreachable)
		if s.Shared {
			work.If(asm.I32GtS(n, asm.I32Const(1)), func() {
				barrier(work, n, arrived, func() { work.Return(asm.I32Const(1)) })
			})
		}
		work.Set(op, asm.I32Load(list, 0))
	})
	work.Return(asm.I32Const(0))
	if s.Shared {
		emitThreads(m, work)
	} else {
		m.Export(work)
	}
	return m.Bytes()
}

// emitter is a kernel function under construction.
type emitter struct {
	*asm.Func
	path         Path
	args, tid, n asm.Expr
}

// arg loads argument i of the command into a local.
func (e *emitter) arg(i int) asm.Expr {
	l := e.Local(asm.I32)
	e.Set(l, asm.I32Load(e.args, uint32(4*i)))
	return l
}

// ints loads the first n arguments.
func (e *emitter) ints(n int) []asm.Expr {
	l := make([]asm.Expr, n)
	for i := range l {
		l[i] = e.arg(i)
	}
	return l
}

// splat loads argument i, a float32, into all four lanes of a local.
func (e *emitter) splat(i int) asm.Expr {
	l := e.Local(asm.V128)
	e.Set(l, asm.V128Load32Splat(e.args, uint32(4*i)))
	return l
}

// share gives this thread's part of 0..total: from (a fresh counter) and end.
func (e *emitter) share(total asm.Expr) (from, end asm.Expr) {
	from, end = e.Local(asm.I32), e.Local(asm.I32)
	e.Set(from, asm.I32DivU(asm.I32Mul(total, e.tid), e.n))
	e.Set(end, asm.I32DivU(asm.I32Mul(total, asm.I32Add(e.tid, i32(1))), e.n))
	return from, end
}

// let is a fresh local set to x.
func (e *emitter) let(x asm.Expr) asm.Expr {
	l := e.Local(x.Type())
	e.Set(l, x)
	return l
}

// consts are vectors of four equal constants, in locals: V8 makes a constant
// anew at each use in a loop, which costs more than the operation it is for.
func (e *emitter) consts(v ...float32) []asm.Expr {
	c := make([]asm.Expr, len(v))
	for i, x := range v {
		c[i] = e.let(asm.F32x4Const(x))
	}
	return c
}

// clamp is v limited to lo..hi: PMin(PMax(v, lo), hi).
func clamp(v, lo, hi asm.Expr) asm.Expr { return asm.F32x4PMin(asm.F32x4PMax(v, lo), hi) }

// refClamp is clamp's definition.
func refClamp(v, lo, hi float32) float32 {
	if v < lo {
		v = lo
	}
	if hi < v {
		v = hi
	}
	return v
}

func i32(v int) asm.Expr { return asm.I32Const(int32(v)) }

func bits(v float32) uint32 { return math.Float32bits(v) }

// mulAdd is a·b + c in two roundings.
func mulAdd(a, b, c asm.Expr) asm.Expr { return asm.F32x4Add(asm.F32x4Mul(a, b), c) }
