package kernel

import "lqa/quant/kernel/asm"

// Threads of a shared memory run the same list, each its share of every
// command, and meet at a barrier after each. Thread 0 is whoever calls run;
// the others sleep in help until run wakes them. They talk through the first
// words of the memory, which Layouts leave alone.
const (
	ctlArrived = 4 * iota // barriers reached, counted over all threads and runs
	ctlRun                // counts runs: helpers sleep on it
	ctlList               // of the present run, and its threads
	ctlThreads
	ctlBase // ctlArrived when it began

	// ControlBytes is the size of the control words.
	ControlBytes = 64
)

const (
	// spins at a barrier before sleeping: some 20 µs, the longest that shares
	// of one command should differ by.
	spins = 10_000
	// patience of a sleeper, in nanoseconds. A thread that does not come within
	// it, though it had nothing else to do, is not coming.
	patience = 2_000_000_000
)

// barrier emits the wait for all threads after a command; give is what happens
// when one does not come.
func barrier(f *asm.Func, n, target asm.Expr, give func()) {
	at := asm.I32Const(ctlArrived)
	v, left := f.Local(asm.I32), f.Local(asm.I32)
	f.Add(n, target)
	f.Set(v, asm.I32Add(asm.I32AtomicAdd(at, asm.I32Const(1)), asm.I32Const(1)))
	missing := func() asm.Expr { return asm.I32LtS(asm.I32Sub(v, target), asm.I32Const(0)) }
	f.If(missing(), func() {
		f.Set(left, asm.I32Const(spins))
		f.While(asm.I32And(asm.I32GtS(left, asm.I32Const(0)), missing()), func() {
			f.Set(v, asm.I32AtomicLoad(at))
			f.Bump(-1, left)
		})
		f.While(missing(), func() {
			f.If(asm.I32Eq(asm.AtomicWait32(at, v, asm.I64Const(patience)), asm.I32Const(2)), give)
			f.Set(v, asm.I32AtomicLoad(at))
		})
	}, func() { f.AtomicNotify(at) })
}

// emitThreads writes run and help around work(list, tid, n, base), which runs
// one thread's share and returns 0, or 1 where another did not come.
func emitThreads(m *asm.Module, work *asm.Func) {
	c := asm.I32Const
	run := m.Func("run", asm.I32)
	list, tid, n := run.Param(asm.I32), run.Param(asm.I32), run.Param(asm.I32)
	run.If(asm.I32GtS(n, c(1)), func() {
		run.I32Store(c(ctlList), 0, list)
		run.I32Store(c(ctlThreads), 0, n)
		run.I32Store(c(ctlBase), 0, asm.I32AtomicLoad(c(ctlArrived)))
		run.I32AtomicStore(c(ctlRun), asm.I32Add(asm.I32AtomicLoad(c(ctlRun)), c(1)))
		run.AtomicNotify(c(ctlRun))
	})
	run.Return(asm.Call(work, list, tid, n, asm.I32Load(c(ctlBase), 0)))
	m.Export(run)

	help := m.Func("help")
	tid = help.Param(asm.I32)
	seen, failed := help.Local(asm.I32), help.Local(asm.I32)
	help.While(asm.I32Eqz(failed), func() {
		help.While(asm.I32Eq(asm.I32AtomicLoad(c(ctlRun)), seen), func() {
			help.If(asm.I32Eq(asm.AtomicWait32(c(ctlRun), seen, asm.I64Const(-1)), c(2)), help.Unreachable)
		})
		help.Set(seen, asm.I32AtomicLoad(c(ctlRun)))
		help.Set(failed, asm.Call(work, asm.I32Load(c(ctlList), 0), tid, asm.I32Load(c(ctlThreads), 0), asm.I32Load(c(ctlBase), 0)))
	})
	m.Export(help)
}
