package kerneltest

import (
	"fmt"
	"testing"

	"lqa/quant/device"
	"lqa/quant/kernel"
	"lqa/quant/qtype"
)

// Shapes are layers of EfficientNet-Lite0 at 224: M pixels, K inputs, N
// outputs of a pointwise convolution.
var Shapes = []struct{ M, K, N int }{
	{12544, 16, 96}, {3136, 96, 24}, {784, 240, 40}, {196, 480, 112}, {49, 672, 192}, {49, 320, 1280},
}

// TransformerShapes are layers of ViT-B/32 and ViT-Tiny/16 at 224.
var TransformerShapes = []struct{ M, K, N int }{{50, 768, 2304}, {50, 3072, 768}, {197, 192, 768}, {197, 768, 192}}

// Bench times the kernels that a frame spends its time in, on one host, in
// GMAC/s and G values/s.
func Bench(b *testing.B, newHost func() device.Host) {
	var paths []kernel.Path
	run := func(name string, work float64, unit string, build func(l *device.Layout) kernel.Command) {
		b.Run(name, func(b *testing.B) {
			var l device.Layout
			list := build(&l).Append(nil).End()
			at := l.Alloc(device.Commands, 4*len(list))
			h := newHost()
			defer h.Close()
			d, err := device.Start(h, &l, device.Options{Paths: paths, Lists: []kernel.List{list}})
			if err != nil {
				b.Fatal(err)
			}
			if err := d.WriteU32(at, list); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := d.Run(at); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(work*float64(b.N)/b.Elapsed().Seconds()/1e9, unit)
		})
	}
	alloc := func(l *device.Layout, n int) uint32 { return l.Alloc(device.Activations, n) }
	for _, s := range Shapes {
		run(fmt.Sprintf("gemm_q8c/%dx%dx%d", s.M, s.K, s.N), float64(s.M*s.K*s.N), "GMAC/s", func(l *device.Layout) kernel.Command {
			return kernel.GEMMQ8C{Q: alloc(l, 2*s.M*s.K), S: alloc(l, 8*s.M), W: alloc(l, s.N*s.K), Cols: alloc(l, 12*s.N),
				Y: alloc(l, 4*s.M*s.N), Scratch: alloc(l, 16*s.K), M: s.M, K: s.K, N: s.N, LDY: s.N, Hi: 6}
		})
	}
	for _, p := range newHost().Paths() {
		paths = []kernel.Path{p}
		run(fmt.Sprintf("peak/%v", p), float64(1000*kernel.PeakMACs(p)), "GMAC/s", func(l *device.Layout) kernel.Command {
			return kernel.Peak{X: alloc(l, kernel.PeakBytes), Turns: 1000}
		})
		for _, kind := range []qtype.Kind{"q4", "q5", "q6"} {
			low, _ := kind.Low()
			for _, s := range TransformerShapes {
				run(fmt.Sprintf("gemm_%s/%dx%dx%d/%v/%dx%d", kind, s.M, s.K, s.N, p.Form, p.Rows, 8*p.Panels), float64(s.M*s.K*s.N), "GMAC/s", func(l *device.Layout) kernel.Command {
					bytes, _ := kind.Size([]int{s.N, s.K})
					return kernel.GEMMLow{Q: alloc(l, kernel.QuantLowBytes(s.M, s.K)), S: alloc(l, 8*s.M), Starts: alloc(l, kernel.QuantLowStarts(low, s.M, s.K)),
						W: alloc(l, bytes), Cols: alloc(l, 8*s.N), Y: alloc(l, 4*s.M*s.N), Scratch: alloc(l, kernel.GEMMScratch(s.K)),
						M: s.M, K: s.K, N: s.N, LDY: s.N, Low: low, Hi: 6}
				})
			}
		}
	}
	paths = nil
	s := Shapes[2]
	run("gemm_f32", float64(s.M*s.K*s.N), "GMAC/s", func(l *device.Layout) kernel.Command {
		return kernel.GEMMF32{A: alloc(l, 4*s.M*s.K), W: alloc(l, 4*kernel.PackedF32Len(s.N, s.K)), Y: alloc(l, 4*s.M*s.N),
			M: s.M, K: s.K, N: s.N, LDA: s.K, LDY: s.N, Hi: 6}
	})
	run("quant", 3136*96, "Gvalue/s", func(l *device.Layout) kernel.Command {
		return kernel.Quant{X: alloc(l, 4*3136*96), Q: alloc(l, 2*3136*96), S: alloc(l, 8*3136), M: 3136, K: 96, LDX: 96}
	})
	for _, k := range []int{3, 5} {
		for _, stride := range []int{1, 2} {
			const size, c = 56, 144
			out := size / stride
			run(fmt.Sprintf("depthwise/%dx%ds%d", k, k, stride), float64(out*out*c*k*k), "GMAC/s", func(l *device.Layout) kernel.Command {
				return kernel.Depthwise{X: alloc(l, 4*size*size*c), W: alloc(l, 4*(1+k*k)*c), Y: alloc(l, 4*out*out*c),
					Kernel: k, Stride: stride, Pad: (k - stride) / 2, Height: size, Width: size, C: c, OutHeight: out, OutWidth: out, Hi: 6}
			})
		}
	}
	const rows, width = 50, 768 // ViT-B/32
	run("layernorm", rows*width, "Gvalue/s", func(l *device.Layout) kernel.Command {
		return kernel.LayerNorm{X: alloc(l, 4*rows*width), W: alloc(l, 8*width), Y: alloc(l, 4*rows*width), M: rows, N: width, LDX: width, LDY: width, Eps: 1e-5}
	})
	run("gelu", rows*4*width, "Gvalue/s", func(l *device.Layout) kernel.Command {
		return kernel.GELU{X: alloc(l, 4*rows*4*width), N: rows * 4 * width}
	})
	run("quickgelu", rows*4*width, "Gvalue/s", func(l *device.Layout) kernel.Command {
		return kernel.QuickGELU{X: alloc(l, 4*rows*4*width), N: rows * 4 * width}
	})
	for _, s := range []struct {
		t, h   int
		causal bool
	}{{50, 12, false}, {197, 3, false}, {77, 8, true}} { // ViT-B/32, ViT-Tiny/16, CLIP's text tower
		for _, form := range []string{"f32", "qn16"} {
			a := kernel.Attention{T: s.t, To: s.t, H: s.h, D: 64, LDX: 3 * 64 * s.h, LDY: 64 * s.h, Causal: s.causal, Float: form == "f32"}
			lay := func(l *device.Layout) kernel.Attention {
				b := a
				b.X, b.Pack, b.Scratch, b.Y = alloc(l, 4*b.T*b.LDX), alloc(l, b.PackLen()), alloc(l, b.ScratchLen()), alloc(l, 4*b.T*b.LDY)
				return b
			}
			name := fmt.Sprintf("_%s/%dx%dx%d", form, s.t, s.h, a.D)
			run("attentionpack"+name, float64(a.T*a.H*a.D*2), "Gvalue/s", func(l *device.Layout) kernel.Command {
				return kernel.AttentionPack(lay(l))
			})
			run("attention"+name, float64(a.T*a.T*a.H*a.D*2), "GMAC/s", func(l *device.Layout) kernel.Command { return lay(l) })
		}
	}
}
