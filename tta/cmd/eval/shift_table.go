package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// lineSet is lines of which some are picked again and again.
type lineSet []shiftLine

func (l lineSet) where(ok func(*shiftLine) bool) (some lineSet) {
	for i := range l {
		if ok(&l[i]) {
			some = append(some, l[i])
		}
	}
	return some
}

func (l lineSet) of(adapter string) lineSet {
	return l.where(func(x *shiftLine) bool { return x.Adapter == adapter })
}

func (l lineSet) values(f func(*shiftLine) float64) []float64 {
	out := make([]float64, len(l))
	for i := range l {
		out[i] = f(&l[i])
	}
	return out
}

func (l lineSet) mean(f func(*shiftLine) float64) float64 { return mean(l.values(f)) }

// bySet is the mean over sets of the means over a set's lines.
func (l lineSet) bySet(f func(*shiftLine) float64) float64 {
	var sets []float64
	for _, set := range distinct(l, func(x *shiftLine) string { return x.Set }) {
		sets = append(sets, l.where(func(x *shiftLine) bool { return x.Set == set }).mean(f))
	}
	return mean(sets)
}

func gainOf(l *shiftLine) float64    { return l.Gain }
func worstOf(l *shiftLine) float64   { return l.Worst }
func flickerOf(l *shiftLine) float64 { return l.Flicker }

// distinct are the values of f in the order in which they come up.
func distinct(l lineSet, f func(*shiftLine) string) (all []string) {
	for i := range l {
		if v := f(&l[i]); !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}

// still are the orders of stills, real the sets of video that count as a whole.
var (
	still = []string{"shuffled", "block", "video", "imbalanced", "few", "drift"}
	real  = []string{"hands", "objects", "moving", "actions"}
)

// shiftTables are the results in Markdown: the published protocol, the camera,
// adapters side by side, and what was aimed at.
func shiftTables(all lineSet) string {
	if len(all) == 0 {
		return "no stream\n"
	}
	var b strings.Builder
	adapters := distinct(all, func(x *shiftLine) string { return x.Adapter })
	head := func(title string, columns ...string) {
		fmt.Fprintf(&b, "\n## %s\n\n| %s | %s |\n|%s\n", title, strings.Join(columns, " | "), strings.Join(adapters, " | "), strings.Repeat("---|", len(columns)+len(adapters)))
	}
	mark := func(l *shiftLine) string {
		if l.ChosenOn {
			return "\\*"
		}
		return ""
	}
	fmt.Fprintf(&b, "Model: %s. Points over zero-shot; \\* constants were chosen on this set.\n", all[0].Model)

	published := all.where(func(x *shiftLine) bool { return x.Stream == "shuffled" })
	head("The published protocol: shuffled, one picture at a time (gain ± half its 95% interval)", "set", "shift", "zero-shot, %")
	for _, row := range published.of(adapters[0]) {
		fmt.Fprintf(&b, "| %s%s | %s | %.1f |", row.Set, mark(&row), named(&row), row.ZeroShotTop1)
		for _, x := range published.where(func(x *shiftLine) bool { return x.key() == row.key() }) {
			fmt.Fprintf(&b, " %+.1f ± %.1f |", x.Gain, x.Interval)
		}
		b.WriteString("\n")
	}

	camera := all.where(func(x *shiftLine) bool { return x.Stream != "shuffled" })
	head("The camera: all other streams (mean gain over shifts / worst shift; changes a second)", "set", "stream", "shifts", "zero-shot, %", "changes/s")
	group := func(x *shiftLine) string {
		if x.Stream == "camera" || x.Stream == "recover" {
			return x.Set + "/" + x.Stream + "/" + x.Shift
		}
		return x.Set + "/" + x.Stream + "/" + x.Detail
	}
	for _, g := range distinct(camera, group) {
		rows := camera.where(func(x *shiftLine) bool { return group(x) == g })
		one := rows.of(adapters[0])
		what := fmt.Sprint(len(one))
		if len(one) == 1 {
			what = named(&one[0])
		}
		fmt.Fprintf(&b, "| %s%s | %s | %s | %.1f | %s |", one[0].Set, mark(&one[0]), strings.TrimSpace(one[0].Stream+" "+one[0].Detail), what,
			one.mean(func(x *shiftLine) float64 { return x.ZeroShotTop1 }), flickers(rows.of("zeroshot")))
		for _, a := range adapters {
			mine := rows.of(a)
			fmt.Fprintf(&b, " %+.1f / %+.1f; %s |", mine.mean(gainOf), slices.Min(mine.values(gainOf)), flickers(mine))
		}
		b.WriteString("\n")
	}

	head("Adapters side by side", "")
	row := func(name string, f func(lineSet) string) {
		b.WriteString("| " + name + " |")
		for _, a := range adapters {
			b.WriteString(" " + f(all.of(a)) + " |")
		}
		b.WriteString("\n")
	}
	row("mean gain over all conditions", func(l lineSet) string { return fmt.Sprintf("%+.2f", l.mean(gainOf)) })
	row("worst tenth of streams", func(l lineSet) string {
		return fmt.Sprintf("%+.2f", l.mean(func(x *shiftLine) float64 { return x.TailGain }))
	})
	row("worst condition", func(l lineSet) string { return fmt.Sprintf("%+.2f", slices.Min(l.values(gainOf))) })
	row("worst stream", func(l lineSet) string { return fmt.Sprintf("%+.2f", slices.Min(l.values(worstOf))) })
	row("conditions below -0.5", func(l lineSet) string { return fmt.Sprintf("%.1f%%", under(l, -.5)) })
	row("calibration error, %", func(l lineSet) string {
		return fmt.Sprintf("%.2f", l.mean(func(x *shiftLine) float64 { return x.ECE }))
	})
	row("changes of answer a second", func(l lineSet) string { return fmt.Sprintf("%.2f", l.mean(flickerOf)) })
	row("seconds until right after a switch, median", func(l lineSet) string { return optional(l, func(x *shiftLine) *float64 { return x.SwitchS }) })
	row("never right after a switch, %", func(l lineSet) string { return optional(l, func(x *shiftLine) *float64 { return x.Never }) })
	row("seconds until right after a degradation, median", func(l lineSet) string { return optional(l, func(x *shiftLine) *float64 { return x.RecoverS }) })
	row("poison's loss, points", func(l lineSet) string {
		return optional(l.harmed("poisoned"), func(x *shiftLine) *float64 { return x.Loss })
	})
	row("loss by 500 frames of nothing listed, points", func(l lineSet) string {
		return optional(l.harmed("absent"), func(x *shiftLine) *float64 { return x.Loss })
	})
	row("ms a frame, largest", func(l lineSet) string {
		return fmt.Sprintf("%.3f", slices.Max(l.values(func(x *shiftLine) float64 { return x.MS })))
	})
	row("bytes of state, largest", func(l lineSet) string {
		return fmt.Sprintf("%.0f", slices.Max(l.values(func(x *shiftLine) float64 { return float64(x.StateBytes) })))
	})

	if aims := shiftAims(all.where(func(x *shiftLine) bool { return x.Suite == "shift" })); len(aims) > 0 {
		b.WriteString("\n## What was aimed at, for stream\n\n| what | wanted | got | |\n|---|---|---|---|\n")
		for _, a := range aims {
			met := "missed"
			if a.met() {
				met = "met"
			}
			fmt.Fprintf(&b, "| %s | %s %.4g | %.2f | %s |\n", a.what, a.sign, a.want, a.got, met)
		}
	}
	return b.String()
}

func named(l *shiftLine) string {
	if l.Severity == 0 {
		return l.Shift
	}
	return fmt.Sprintf("%s %d", l.Shift, l.Severity)
}

func flickers(l lineSet) string {
	if len(l) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", l.mean(flickerOf))
}

// under is the share of lines with a gain below so many points, in percent.
func under(l lineSet, points float64) float64 {
	n := 0
	for i := range l {
		if l[i].Gain < points {
			n++
		}
	}
	return percent(float64(n), float64(max(1, len(l))))
}

func optional(l lineSet, f func(*shiftLine) *float64) string {
	var values []float64
	for i := range l {
		if v := f(&l[i]); v != nil {
			values = append(values, *v)
		}
	}
	if values == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f", mean(values))
}

// aim is a figure that the adapter stream should reach.
type aim struct {
	what string
	sign string // ">=" or "<="
	want float64
	got  float64
}

func (a *aim) met() bool {
	if a.sign == ">=" {
		return a.got >= a.want
	}
	return a.got <= a.want
}

// harmed are lines with a loss.
func (l lineSet) harmed(stream string) lineSet {
	return l.where(func(x *shiftLine) bool { return x.Stream == stream && x.Loss != nil })
}

// shiftAims are those aims of which there are lines.
func shiftAims(all lineSet) (aims []aim) {
	stream := all.of("stream")
	add := func(l lineSet, what, sign string, want float64, f func(lineSet) float64) {
		if len(l) > 0 {
			aims = append(aims, aim{what, sign, want, f(l)})
		}
	}
	gain := func(l lineSet) float64 { return l.bySet(gainOf) }
	least := func(f func(*shiftLine) float64) func(lineSet) float64 {
		return func(l lineSet) float64 { return slices.Min(l.values(f)) }
	}
	isReal := func(x *shiftLine) bool { return x.Stream == "camera" && slices.Contains(real, x.Set) }

	camera := stream.where(isReal)
	add(camera, "camera, untaught: gain, mean of the sets", ">=", 5, gain)
	add(camera, "camera: over the best of "+strings.Join(plain, ", "), ">=", 1.5, func(l lineSet) float64 {
		best := math.Inf(-1)
		for _, p := range plain {
			if rows := all.where(isReal).of(p); len(rows) > 0 {
				best = max(best, rows.bySet(gainOf))
			}
		}
		return gain(l) - best
	})
	add(camera, "camera: worst set", ">=", .5, func(l lineSet) float64 {
		worst := math.Inf(1)
		for _, set := range real {
			if rows := l.where(func(x *shiftLine) bool { return x.Set == set }); len(rows) > 0 {
				worst = min(worst, rows.mean(gainOf))
			}
		}
		return worst
	})
	add(camera, "camera: worst stream", ">=", -1.5, least(worstOf))
	add(camera, "camera: changes a second", "<=", .4, func(l lineSet) float64 { return l.bySet(flickerOf) })

	recover := stream.where(func(x *shiftLine) bool { return x.Stream == "recover" && slices.Contains(real, x.Set) })
	add(recover, "degraded after 10 s: gain", ">=", 5, gain)
	add(recover, "degraded: worst cell", ">=", 0, least(gainOf))

	stills := stream.where(func(x *shiftLine) bool { return slices.Contains(still, x.Stream) })
	kind := func(name string) lineSet {
		return stills.where(func(x *shiftLine) bool { return x.Stream == name })
	}
	add(stills, "stills, six orders: gain, mean of sets, shifts, orders", ">=", 4.5, func(l lineSet) float64 {
		var orders []float64
		for _, name := range still {
			if len(kind(name)) > 0 {
				orders = append(orders, gain(kind(name)))
			}
		}
		return mean(orders)
	})
	add(kind("block"), "block: gain", ">=", 8, gain)
	add(kind("few"), "few labels in view: gain", ">=", 10, gain)
	add(kind("video"), "video: gain", ">=", 1.5, gain)
	add(kind("shuffled").where(func(x *shiftLine) bool { return x.Severity > 0 }), "shuffled, corrupted: gain", ">=", 1.5, gain)
	add(kind("drift"), "drift: gain", ">=", 0, gain)
	add(kind("imbalanced"), "imbalanced: gain", ">=", 0, gain)
	add(stills, "stills: conditions that lose over 0.5, %", "<=", 5, func(l lineSet) float64 { return under(l, -.5) })
	add(stills, "stills: worst condition", ">=", -2, least(gainOf))
	add(stills, "stills: calibration error over zero-shot's", "<=", 0, func(l lineSet) float64 {
		return l.mean(func(x *shiftLine) float64 { return x.ECE - x.ZeroShotECE })
	})
	loss := func(l lineSet) float64 { return l.mean(func(x *shiftLine) float64 { return *x.Loss }) }
	add(stream.harmed("poisoned"), "poisoned: points lost over the next 200 frames", "<=", 3, loss)
	add(stream.harmed("absent"), "500 frames of nothing listed: points lost", "<=", 1, loss)
	return aims
}
