package main

import (
	"bytes"
	"encoding/json"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"lqa/quant/checkpoint/checkpointtest"
	"lqa/quant/checkpoint/hub"
	"lqa/quant/convert"
)

// TestInspect_Plan: what the plan says of a layer stands in its row, and the
// sums are right.
func TestInspect_Plan(t *testing.T) {
	folder, err := hub.Dir(tinyModel(t))
	if err != nil {
		t.Fatal(err)
	}
	src, err := openModelDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	plan := `[{"name":"image.block.01.expand.weight","kind":"q8c","bytes":1,"error":0.125,"drift":0.0625,"tried":{"q4":0.5,"q8c":0.0625},"why":"costs\u001b[31m least"},
		{"name":"text.fc1.weight","kind":"q8c","error":0.25}]`
	var b bytes.Buffer
	if err := convert.Convert(&b, src.Input, convert.Options{Name: "tiny", Plan: []byte(plan)}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a.shq")
	write(t, file, b.Bytes())

	said, _ := command(t, exitOK, "inspect", "--json", file)
	var i struct {
		Bytes  int64
		First  int64 `json:"first_prediction_bytes"`
		Stages []struct {
			Bytes int64
			Raw   int64 `json:"raw_bytes"`
		}
		Towers []struct {
			Tower string
			Bytes float64
			Raw   int64 `json:"raw_bytes"`
		}
		Layers []struct {
			Name, Kind, Why string
			Shape           []int
			Tensors         int
			Bits, Share     float64
			Bytes           float64
			Raw             int64 `json:"raw_bytes"`
			Error           *float64
			Drift           float64
			Tried           map[string]float64
		}
		Memory struct{ Total int }
	}
	if err := json.Unmarshal([]byte(said), &i); err != nil {
		t.Fatal(err)
	}
	var layersRaw, towersRaw int64
	var layersPacked, towersPacked, stages, share float64
	for _, l := range i.Layers {
		layersRaw, layersPacked, share = layersRaw+l.Raw, layersPacked+l.Bytes, share+l.Share
		switch l.Name {
		case "image.block.01.expand": // [36,6]: 40 × 8 codes, 40 scales, 36 biases
			if l.Error == nil || *l.Error != 0.125 || l.Drift != 0.0625 || l.Tried["q4"] != 0.5 || l.Tensors != 2 || l.Raw != 40*8+80+72 || l.Bits != 8*400./216 {
				t.Errorf("%+v", l)
			}
		case "text.fc1":
			if l.Error == nil || *l.Error != 0.25 || len(l.Tried) != 0 {
				t.Errorf("%+v", l)
			}
		default:
			if l.Error != nil {
				t.Errorf("%+v", l)
			}
		}
	}
	for _, s := range i.Towers {
		towersRaw, towersPacked = towersRaw+s.Raw, towersPacked+s.Bytes
	}
	for _, s := range i.Stages {
		stages += float64(s.Bytes)
	}
	if layersRaw != towersRaw || math.Abs(layersPacked-towersPacked) > 1e-6 || math.Abs(share-1) > 1e-9 || towersPacked > stages || towersPacked < 0.9*stages {
		t.Errorf("layers %d raw, %v packed; towers %d, %v; stages %v; shares %v", layersRaw, layersPacked, towersRaw, towersPacked, stages, share)
	}
	if want := i.Bytes - i.Stages[1].Bytes; i.First != want || i.Memory.Total < 1<<16 {
		t.Errorf("first prediction after %d bytes, want %d; memory %+v", i.First, want, i.Memory)
	}

	said, _ = command(t, exitOK, "inspect", "--damage", file)
	_, table, _ := strings.Cut(said, "\nlayer ")
	rows := strings.Split(table, "\n")
	if !strings.HasPrefix(rows[1], "image.block.01.expand ") || !strings.Contains(rows[1], `1.2e-01  6.2e-02  costs\x1b[31m least`) || !strings.HasPrefix(rows[2], "text.fc1 ") {
		t.Errorf("by damage:\n%s", said)
	}
	for _, plan := range []string{`{}`, `[1]`, `[{"drift":"1"}]`} {
		b.Reset()
		if err := convert.Convert(&b, src.Input, convert.Options{Name: "tiny", Plan: []byte(plan)}); err != nil {
			t.Fatal(err)
		}
		write(t, file, b.Bytes())
		command(t, exitInput, "inspect", file)
	}
}

// TestInspect_Shards: a table in shards is one row.
func TestInspect_Shards(t *testing.T) {
	files := smallCLIP(t, checkpointtest.Options{Merges: checkpointtest.Merges})
	file := filepath.Join(t.TempDir(), "a.shq")
	command(t, exitOK, "convert", writeFiles(t, files), "-o", file, "--no-calibration")
	said, _ := command(t, exitOK, "inspect", file)
	if n := strings.Count(said, "text.token "); n != 1 || !strings.Contains(said, "522×24") {
		t.Errorf("the token table has %d rows:\n%s", n, said)
	}
}
