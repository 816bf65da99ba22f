package page

import (
	"math"
	"strconv"
	"strings"
)

// Bytes prints a count of bytes for people: "812 bytes", "3.4 kB", "6.9 MB"
// (thousands, as download sizes are given).
func Bytes(n int64) string {
	switch {
	case n < 1000:
		return strconv.FormatInt(n, 10) + " bytes"
	case n < 1e6:
		return strconv.FormatFloat(float64(n)/1e3, 'f', 1, 64) + " kB"
	default:
		return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + " MB"
	}
}

// BytesOf prints how much of a whole there is: "2.1 of 7.4 MB".
func BytesOf(n, total int64) string {
	whole := Bytes(total)
	part, unit, _ := strings.Cut(Bytes(n), " ")
	if strings.HasSuffix(whole, " "+unit) {
		return part + " of " + whole
	}
	return part + " " + unit + " of " + whole
}

// Percent prints a probability: "87%", "<1%" where rounding would hide it.
func Percent(p float32) string {
	switch {
	case p > 0 && p < 0.005:
		return "<1%"
	case p < 1 && p >= 0.995:
		return ">99%"
	}
	return strconv.Itoa(int(math.Round(float64(p)*100))) + "%"
}

// Milliseconds prints a duration: "8.4", "23".
func Milliseconds(ms float64) string {
	if ms < 10 {
		return strconv.FormatFloat(ms, 'f', 1, 64)
	}
	return strconv.FormatFloat(ms, 'f', 0, 64)
}

// counted counts things for people: "1 thread", "2 threads".
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
