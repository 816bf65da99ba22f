package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// journal keeps the lines of cells that a run has finished, so that a stopped
// run goes on where it was. It holds for this very program: whatever changed an
// adapter changed the program too.
type journal struct {
	file  *os.File
	known map[string][]shiftLine
}

type journalEntry struct {
	Key   string      `json:"key"`
	Lines []shiftLine `json:"lines"`
}

// openJournal opens the journal of this program. Runs that draw plots read none:
// lines alone cannot be drawn.
func openJournal(r *run) (*journal, error) {
	name, err := os.Executable()
	if err != nil {
		return nil, err
	}
	program, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	h := sha256.New()
	if _, err := io.Copy(h, program); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.keep, 0o777); err != nil {
		return nil, err
	}
	j := &journal{known: map[string][]shiftLine{}}
	j.file, err = os.OpenFile(filepath.Join(r.keep, fmt.Sprintf("shift-%x.jsonl", h.Sum(nil)[:8])), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil || r.plots != "" {
		return j, err
	}
	lines := bufio.NewReader(j.file)
	for {
		line, err := lines.ReadBytes('\n')
		var e journalEntry
		if err == nil && json.Unmarshal(line, &e) == nil {
			j.known[e.Key] = e.Lines
		}
		if err == io.EOF {
			if len(line) > 0 { // cut off: what comes next begins a line of its own
				_, err = j.file.WriteString("\n")
				return j, err
			}
			return j, nil
		}
		if err != nil {
			return j, err
		}
	}
}

// lines returns what is known of a cell, or nil.
func (j *journal) lines(key []byte) []shiftLine { return j.known[hex.EncodeToString(key)] }

func (j *journal) add(key []byte, lines []shiftLine) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(journalEntry{hex.EncodeToString(key), lines}); err != nil {
		return err
	}
	_, err := j.file.Write(b.Bytes())
	return err
}

func (j *journal) close() { j.file.Close() }
