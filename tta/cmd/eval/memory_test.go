package main

import (
	"os/exec"
	"strings"
	"testing"
)

func TestPeakMemory(t *testing.T) {
	before, err := peakMemory()
	if err != nil {
		t.Skip(err)
	}
	b := make([]byte, before+64<<20) // as much again, and touched
	for i := range b {
		b[i] = byte(i)
	}
	if after, err := peakMemory(); err != nil || after < before+48<<20 {
		t.Errorf("%d, then %d with %d bytes more: %v", before, after, len(b), err)
	}
}

func TestChild(t *testing.T) {
	res := memoryResult{Method: "tpt"}
	if err := child(exec.Command("echo", `{"peak_bytes": 3000}`), &res); err != nil || res.Method != "tpt" || res.PeakBytes != 3000 {
		t.Errorf("%+v %v", res, err)
	}
	if r := ratio(res, memoryResult{PeakBytes: 800}); r != 3.75 {
		t.Errorf("ratio %v", r)
	}
	err := child(exec.Command("sh", "-c", "echo begin >&2; echo no module named torch >&2; exit 1"), &res)
	if err == nil || !strings.HasSuffix(err.Error(), "no module named torch") {
		t.Errorf("a failing child: %v", err)
	}
}
