package asm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

// ErrText is returned by Disassemble for bytes that are none of this
// package's instructions.
var ErrText = errors.New("asm: cannot disassemble")

// Disassemble returns the text form of straight-line code, instructions
// separated by "; ". It is made for tests.
func Disassemble(code []byte) (string, error) {
	var out []string
	u := func() (v uint32) {
		for s := 0; len(code) > 0; s += 7 {
			c := code[0]
			code = code[1:]
			v |= uint32(c&0x7f) << s
			if c < 0x80 {
				break
			}
		}
		return v
	}
	for len(code) > 0 {
		key := uint32(code[0])
		code = code[1:]
		if key == simd>>16 || key == convert>>16 || key == threads>>16 {
			key = key<<16 | u()
		}
		switch key {
		case 0x20:
			out = append(out, fmt.Sprintf("local.get %d", u()))
			continue
		case 0x41:
			var v int64
			for s := 0; len(code) > 0; {
				c := code[0]
				code = code[1:]
				v |= int64(c&0x7f) << s
				if s += 7; c < 0x80 {
					if c&0x40 != 0 {
						v |= -1 << s
					}
					break
				}
			}
			out = append(out, fmt.Sprintf("i32.const %d", v))
			continue
		case 0x43:
			if len(code) < 4 {
				return "", ErrText
			}
			out = append(out, fmt.Sprintf("f32.const %v", math.Float32frombits(binary.LittleEndian.Uint32(code))))
			code = code[4:]
			continue
		}
		o, ok := table[key]
		if !ok {
			return "", fmt.Errorf("%w: opcode %#x", ErrText, key)
		}
		s := o.name
		if o.imm == immMem || o.imm == immMemLane {
			u()
			if offset := u(); offset != 0 {
				s += fmt.Sprintf(" offset=%d", offset)
			}
		}
		raw := map[imm]int{immLane: 1, immMemLane: 1, immShuffle: 16}[o.imm]
		if len(code) < raw {
			return "", ErrText
		}
		for _, b := range code[:raw] {
			s += fmt.Sprintf(" %d", b)
		}
		code = code[raw:]
		out = append(out, s)
	}
	return strings.Join(out, "; "), nil
}
