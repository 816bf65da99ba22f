package kernel

import "fmt"

// Form says how an integer GEMM multiplies. All forms read the same weights
// and give the same bits; which is fastest differs from chip to chip.
type Form int

// Forms.
const (
	// Plain widens codes to int16 and uses i32x4.dot_i16x8_s: SIMD128 alone,
	// 8 products an instruction, exact in int32.
	Plain Form = iota
	// Dot16 sums i16x8.relaxed_dot_i8x16_i7x16_s in 16-bit lanes: 16 products
	// an instruction, and the fastest on x64.
	Dot16
	// Dot32 is i32x4.relaxed_dot_i8x16_i7x16_add_s: one instruction on ARM with
	// dot product and on x64 with AVX-VNNI, four elsewhere.
	Dot32
)

// String returns the form's name as people see it.
func (f Form) String() string {
	return [...]string{"SIMD128", "relaxed SIMD in 16-bit sums", "relaxed SIMD in 32-bit sums"}[f]
}

// Relaxed reports whether the form needs relaxed SIMD.
func (f Form) Relaxed() bool { return f != Plain }

// Path is how a module's integer GEMMs are built. Results do not depend on it.
type Path struct {
	Form Form
	// Rows × 8·Panels is the tile. Up to ten vectors of sums stay in the
	// registers that V8 has to give; twelve in wazero's.
	Rows, Panels int
	// AFirst loads a tile's activations before its weights: for wazero, whose
	// load32_splat is slow.
	AFirst bool
}

// String describes the path to people.
func (p Path) String() string { return fmt.Sprintf("%v, %d×%d tile", p.Form, p.Rows, 8*p.Panels) }

// Paths are the candidates for a host that compiles relaxed SIMD, or does not.
// The first is the safe choice where nothing can be timed. Dot32 needs no
// register for products, so twelve vectors of sums fit.
func Paths(relaxed bool) []Path {
	paths := []Path{{Form: Plain, Rows: 4, Panels: 1}, {Form: Plain, Rows: 5, Panels: 1}}
	if relaxed {
		paths = append(paths, Path{Form: Dot16, Rows: 4, Panels: 1}, Path{Form: Dot16, Rows: 5, Panels: 1},
			Path{Form: Dot32, Rows: 5, Panels: 1}, Path{Form: Dot32, Rows: 6, Panels: 1})
	}
	return paths
}

// Wazero is the path for wazero, where it reaches twice what the others do.
var Wazero = Path{Form: Plain, Rows: 3, Panels: 2, AFirst: true}
