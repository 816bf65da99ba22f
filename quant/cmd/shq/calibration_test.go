package main

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"lqa/quant/calibrate"
	"lqa/quant/checkpoint/checkpointtest"
)

// TestConvert_Calibrated: pictures steer rounding, a budget the kinds; the plan
// stands in the file and inspect shows it.
func TestConvert_Calibrated(t *testing.T) {
	dir := writeFiles(t, smallCLIP(t, checkpointtest.Options{Merges: checkpointtest.Merges, Scales: 50}))
	out := t.TempDir()
	cosine := func(args ...string) (mean float64, raw int64) {
		t.Helper()
		file := filepath.Join(out, "a.shq")
		said, _ := command(t, exitOK, append([]string{"convert", dir, "-o", file, "--json"}, args...)...)
		var made struct {
			Raw int64 `json:"raw_bytes"`
		}
		if err := json.Unmarshal([]byte(said), &made); err != nil {
			t.Fatal(err)
		}
		said, _ = command(t, exitOK, "verify", file, "--against", dir, "--json", "--min-cosine", "0.01", "--min-worst", "0.01", "--min-agreement", "0.01")
		var got struct {
			Against struct {
				CosineMean float64 `json:"cosine_mean"`
			}
		}
		if err := json.Unmarshal([]byte(said), &got); err != nil || got.Against.CosineMean == 0 {
			t.Fatalf("%v: %s", err, said)
		}
		return got.Against.CosineMean, made.Raw
	}
	plain, bytes := cosine("--bits", "8", "--no-calibration")
	folded, _ := cosine("--bits", "8", "--pictures", "8")
	if !(folded > 0.99 && folded > plain) {
		t.Errorf("8 bits: cosine %.4f, %.4f without pictures", folded, plain)
	}
	nearest, _ := cosine("--bits", "4", "--method", "nearest", "--pictures", "8")
	gptq, small := cosine("--bits", "4", "--pictures", "8")
	if !(gptq > nearest) {
		t.Errorf("4 bits: cosine %.4f by GPTQ, %.4f to nearest", gptq, nearest)
	}

	file := filepath.Join(out, "planned.shq")
	budget := (bytes + small) / 2
	_, talk := command(t, exitOK, "convert", dir, "-o", file, "--budget", strconv.FormatInt(budget, 10), "--pictures", "8")
	said, _ := command(t, exitOK, "inspect", file, "--json")
	var shown struct {
		Manifest struct{ Plan json.RawMessage }
	}
	if err := json.Unmarshal([]byte(said), &shown); err != nil {
		t.Fatal(err)
	}
	plan, err := calibrate.ReadPlan(shown.Manifest.Plan)
	if err != nil || len(plan) == 0 {
		t.Fatalf("%v, %d layers planned: %s", err, len(plan), talk)
	}
	kinds := map[string]bool{}
	for _, l := range plan {
		kinds[string(l.Kind)] = true
	}
	if len(kinds) < 3 {
		t.Errorf("half of the bytes between 4 and 8 bits buy kinds %v", kinds)
	}
	if said, _ := command(t, exitOK, "inspect", file); !strings.Contains(said, plan[0].Why) {
		t.Errorf("inspect does not say %q:\n%s", plan[0].Why, said)
	}
	command(t, exitInput, "convert", dir, "-o", file, "--budget", "1kB")
}
