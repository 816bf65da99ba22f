package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
)

// compare sets each row's ratio: the fastest peer's time, of the same model on
// as many threads, by its own.
func compare(rows []row) {
	for i := range rows {
		r := &rows[i]
		best := 0.0
		for _, p := range rows {
			if p.Engine != lqa && p.Model == r.Model && p.Threads == r.Threads && (best == 0 || p.MS < best) {
				best = p.MS
			}
		}
		if best > 0 {
			ratio := best / r.MS
			r.Ratio = &ratio
		}
	}
}

// table writes rows as Markdown, fastest first within model and threads.
func table(w io.Writer, rows []row) {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.Model, b.Model), cmp.Compare(a.Threads, b.Threads), cmp.Compare(a.MS, b.MS))
	})
	fmt.Fprint(w, "| model | threads | engine | weights | SIMD | ms | ratio | GMAC/s | kernel MB | renderer MB above blank | download MB |\n"+
		"|---|---:|---|---|---|---:|---:|---:|---:|---:|---:|\n")
	for _, r := range rows {
		var above *int64
		if r.RendererPeakBytes != nil && r.RendererBlankBytes != nil {
			n := *r.RendererPeakBytes - *r.RendererBlankBytes
			above = &n
		}
		fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %.1f | %s | %s | %s | %s | %s |\n", r.Model, r.Threads, r.Engine, r.Weights, r.SIMD, r.MS,
			number(r.Ratio, 2), number(r.GMACs, 1), number(megabytes(r.KernelBytes), 0), number(megabytes(above), 0), number(megabytes(r.EngineDownloadBytes), 2))
	}
}

func megabytes(n *int64) *float64 {
	if n == nil {
		return nil
	}
	mb := float64(*n) / 1e6
	return &mb
}

func number(x *float64, digits int) string {
	if x == nil {
		return ""
	}
	return strconv.FormatFloat(*x, 'f', digits, 64)
}
