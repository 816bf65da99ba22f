package checkpointtest

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"io"
	"slices"
)

// writeSafetensors writes as the library does: wide types first, then by
// name, and a header that blanks make a multiple of eight bytes long.
func writeSafetensors(w io.Writer, list []tensor) error {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b tensor) int {
		return cmp.Or(cmp.Compare(widths[b.dtype], widths[a.dtype]), cmp.Compare(a.name, b.name))
	})
	header := []byte(`{"__metadata__":{"format":"pt"}`)
	offset := 0
	for _, t := range list {
		entry, err := json.Marshal(map[string]any{"dtype": t.dtype, "shape": append([]int{}, t.shape...), "data_offsets": []int{offset, offset + t.size()}})
		if err != nil {
			return err
		}
		name, err := json.Marshal(t.name)
		if err != nil {
			return err
		}
		header = append(append(append(append(header, ','), name...), ':'), entry...)
		offset += t.size()
	}
	header = append(header, '}')
	for len(header)%8 != 0 {
		header = append(header, ' ')
	}
	if _, err := w.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)); err != nil {
		return err
	}
	for _, t := range list {
		if _, err := w.Write(t.bytes()); err != nil {
			return err
		}
	}
	return nil
}

// writeIndex writes the list of a sharded checkpoint's tensors.
func writeIndex(w io.Writer, where map[string]string) error {
	text, err := json.MarshalIndent(map[string]any{"metadata": map[string]any{"total_size": 0}, "weight_map": where}, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}
