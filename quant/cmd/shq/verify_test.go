package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/jpeg"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lqa/quant/checkpoint/checkpointtest"
)

// photos writes n noisy pictures and a file that is none.
func photos(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range n {
		m := image.NewRGBA(image.Rect(0, 0, 40+i, 50))
		for j := range m.Pix {
			m.Pix[j] = byte(rng.Uint32())
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, m, nil); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, string(rune('a'+i))+".jpg"), b.Bytes())
	}
	write(t, filepath.Join(dir, "z.jpg"), []byte("no picture"))
	return dir
}

func TestVerify_Against(t *testing.T) {
	dir := writeFiles(t, smallCLIP(t, checkpointtest.Options{Merges: checkpointtest.Merges}))
	out, pictures := t.TempDir(), photos(t, 5)
	good, coarse, float, other := filepath.Join(out, "good.shq"), filepath.Join(out, "coarse.shq"), filepath.Join(out, "float.shq"), filepath.Join(out, "other.shq")
	command(t, exitOK, "convert", dir, "-o", good, "--no-calibration", "--bits", "8")
	command(t, exitOK, "convert", dir, "-o", coarse, "--no-calibration", "--bits", "4")
	command(t, exitOK, "convert", dir, "-o", float, "--float")
	command(t, exitOK, "convert", tinyModel(t), "-o", other, "--no-calibration")

	of := func(want int, args ...string) (v verdict) {
		t.Helper()
		said, talk := command(t, want, append([]string{"verify", "--json", "--pictures", pictures}, args...)...)
		if err := json.Unmarshal([]byte(said), &v); err != nil || v.OK != (want == exitOK) || v.Against == nil {
			t.Fatalf("%v: %+v, %v\n%s", args, v, err, talk)
		}
		return v
	}
	v := of(exitOK, good, "--against", dir)
	if a := v.Against; a.Pictures != 5 || a.Unreadable != 1 || a.Labels != len(everyday) || a.CosineMean < 0.99 || a.CosineMean >= 1.0001 || a.CosineMin > a.CosineMean || a.LabelMean < 0.99 || a.Worst == "" {
		t.Errorf("%+v", a)
	}
	// A float file against its directory differs in nothing but what was done to default labels.
	if a := of(exitOK, float, "--against", dir).Against; a.CosineMin < 0.99999 || a.Agreement != 1 {
		t.Errorf("float: %+v", a)
	}
	if a, b := of(exitOK, good, "--against", float, "--count", "3").Against, v.Against; a.Pictures+a.Unreadable != 3 || a.CosineMean > 1.0001 || b == nil {
		t.Errorf("against a file: %+v", a)
	}
	v = of(exitFailed, coarse, "--against", dir, "--min-cosine", "0.9999999", "--min-worst", "0.9999999")
	if len(v.Faults) < 2 || v.Against.CosineMean >= 0.9999999 {
		t.Errorf("4 bits: %+v", v)
	}
	labels := filepath.Join(out, "labels")
	write(t, labels, []byte("in the\nthan re\n"))
	if a := of(exitOK, good, "--against", dir, "--labels", labels).Against; a.Labels != 2 {
		t.Errorf("%+v", a)
	}
	said, _ := command(t, exitOK, "verify", good, "--against", dir) // on the pictures that ship
	if !strings.Contains(said, "pictures   24: mean cosine 0.99") || !strings.Contains(said, "agrees on") || !strings.Contains(said, "good.shq: ok") {
		t.Errorf("verify says:\n%s", said)
	}

	command(t, exitInput, "verify", good, "--against", other)
	command(t, exitIO, "verify", good, "--against", filepath.Join(out, "absent"))
	command(t, exitIO, "verify", good, "--against", dir, "--pictures", filepath.Join(out, "absent"))
	command(t, exitInput, "verify", good, "--against", dir, "--pictures", out)
	command(t, exitUsage, "verify", good, "--pictures", pictures)
	write(t, labels, bytes.Clone(read(t, good))[:1000])
	said, _ = command(t, exitFailed, "verify", labels, "--json")
	var bad verdict
	if err := json.Unmarshal([]byte(said), &bad); err != nil || bad.OK || len(bad.Faults) != 1 {
		t.Errorf("--json of a cut file: %+v, %v", bad, err)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "shq-original-*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
