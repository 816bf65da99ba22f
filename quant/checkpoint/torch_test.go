package checkpoint_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"lqa/quant/checkpoint"
	"lqa/quant/checkpoint/checkpointtest"
)

// Pieces of pickles, as text: the tests below break one at a time.
const (
	head    = "\x80\x02"
	ordered = "ccollections\nOrderedDict\n)R"
	rebuild = "ctorch._utils\n_rebuild_tensor_v2\n"
)

func str(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func num(n int64) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func nums(list ...int64) string {
	s := "("
	for _, n := range list {
		s += num(n)
	}
	return s + "t"
}

// storage is a persistent id.
func storage(kind, key string, n int64) string {
	return "(" + str("storage") + "ctorch\n" + kind + "\n" + str(key) + str("cpu") + num(n) + "tQ"
}

// stored is a tensor of the six floats of storage 0.
func stored(offset int64, size, stride string) string {
	return rebuild + "(" + storage("FloatStorage", "0", 6) + num(offset) + size + stride + "\x89" + ordered + "tR"
}

// saved is a state dict of one tensor, w.
func saved(tensor string) string { return head + ordered + "(" + str("w") + tensor + "u." }

type zipFile struct {
	name, data string
}

// zipped is an archive as older versions of torch wrote it: without the files
// whose names begin with a dot.
func zipped(t testing.TB, files ...zipFile) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		to, err := w.CreateHeader(&zip.FileHeader{Name: f.name, Method: zip.Store})
		if err == nil {
			_, err = to.Write([]byte(f.data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func floats(x ...float32) string {
	var b []byte
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return string(b)
}

var six = floats(0, 1, 2, 3, 4, 5)

// archive is one of a pickle and storage 0.
func archive(t testing.TB, pickle string) []byte {
	return zipped(t, zipFile{"archive/data.pkl", pickle}, zipFile{"archive/data/0", six}, zipFile{"archive/version", "3\n"})
}

func openTorch(b []byte) (*checkpoint.Torch, error) {
	return checkpoint.OpenTorch(bytes.NewReader(b), int64(len(b)), checkpoint.Limits{})
}

// TestTorch_Views: a tensor is what its offset and strides say.
func TestTorch_Views(t *testing.T) {
	for _, c := range []struct {
		name   string
		tensor string
		shape  []int
		want   []float32
	}{
		{"whole", stored(0, nums(2, 3), nums(3, 1)), []int{2, 3}, []float32{0, 1, 2, 3, 4, 5}},
		{"transposed", stored(0, nums(3, 2), nums(1, 3)), []int{3, 2}, []float32{0, 3, 1, 4, 2, 5}},
		{"slice of rows", stored(3, nums(1, 3), nums(3, 1)), []int{1, 3}, []float32{3, 4, 5}},
		{"slice of columns", stored(1, nums(2, 2), nums(3, 1)), []int{2, 2}, []float32{1, 2, 4, 5}},
		{"every second", stored(1, nums(3), nums(2)), []int{3}, []float32{1, 3, 5}},
		{"expanded", stored(4, nums(2, 2), nums(0, 1)), []int{2, 2}, []float32{4, 5, 4, 5}},
		{"scalar", stored(5, ")", ")"), []int{}, []float32{5}},
		{"of one, any stride", stored(5, nums(1, 1), nums(1<<40, 7)), []int{1, 1}, []float32{5}},
		{"empty", stored(0, nums(0, 4), nums(4, 1)), []int{0, 4}, []float32{}},
		{"empty, at the end", stored(6, nums(4, 0), nums(9, 9)), []int{4, 0}, []float32{}},
		{"parameter", "ctorch._utils\n_rebuild_parameter\n(" + stored(4, nums(2), nums(1)) + "\x88" + ordered + "tR", []int{2}, []float32{4, 5}},
	} {
		f, err := openTorch(archive(t, saved(c.tensor)))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		shape, ok := f.Shape("w")
		got, err := f.Float32("w")
		if err != nil || !ok || !slices.Equal(shape, c.shape) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v %v, %v, want %v %v", c.name, shape, got, err, c.shape, c.want)
		}
		if _, err := f.Float32("v"); !errors.Is(err, checkpoint.ErrMissing) {
			t.Errorf("absent: %v", err)
		}
	}
}

// TestTorch_DTypes: floats are widened, the rest has a name and a shape only.
func TestTorch_DTypes(t *testing.T) {
	for kind, c := range map[string]struct {
		data string
		want float32
		err  error
	}{
		"FloatStorage":    {floats(-2.5), -2.5, nil},
		"HalfStorage":     {"\x01\x00", 0x1p-24, nil}, // the smallest subnormal
		"BFloat16Storage": {"\x49\x40", 3.140625, nil},
		"DoubleStorage":   {"\x00\x00\x00\x00\x00\x00\xf0\x3f", 1, nil},
		"LongStorage":     {"\x07\x00\x00\x00\x00\x00\x00\x00", 0, checkpoint.ErrDType},
		"IntStorage":      {"\x07\x00\x00\x00", 0, checkpoint.ErrDType},
		"ShortStorage":    {"\x07\x00", 0, checkpoint.ErrDType},
		"CharStorage":     {"\x07", 0, checkpoint.ErrDType},
		"ByteStorage":     {"\x07", 0, checkpoint.ErrDType},
		"BoolStorage":     {"\x01", 0, checkpoint.ErrDType},
	} {
		tensor := rebuild + "(" + storage(kind, "0", 1) + num(0) + nums(1) + nums(1) + "\x89" + ordered + "tR"
		f, err := openTorch(zipped(t, zipFile{"a/data.pkl", saved(tensor)}, zipFile{"a/data/0", c.data}))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		got, err := f.Float32("w")
		if !errors.Is(err, c.err) || err == nil && got[0] != c.want {
			t.Errorf("%s: %v, %v, want %v, %v", kind, got, err, c.want, c.err)
		}
	}
}

// TestTorch_Objects: what a state dict may be wrapped in, and what protocol 4
// writes.
func TestTorch_Objects(t *testing.T) {
	w := stored(0, nums(6), nums(1))
	for name, pickle := range map[string]string{
		"dict":         head + "}" + str("w") + w + "s.",
		"list beside":  head + "}(" + str("l") + "](K\x01K\x02eM\x00\x01a" + str("w") + w + "u.",
		"more beside":  head + "}(" + str("a") + "K\x01\x85" + str("b") + "K\x01K\x02\x86" + str("c") + "G\x3f\xf0\x00\x00\x00\x00\x00\x00" + str("w") + w + "u.",
		"state_dict":   head + "}(" + str("epoch") + "K\x20" + str("state_dict") + ordered + str("w") + w + "s" + str("none") + "Nu.",
		"optimizer":    head + "}(" + str("optimizer") + "}(K\x00" + w + str("x") + "]u" + str("state_dict") + ordered + str("w") + w + "su.",
		"metadata":     head + ordered + str("w") + w + "s}" + str("_metadata") + ordered + "sb.",
		"itself":       head + "}q\x00(" + str("self") + "h\x00" + str("w") + w + "r\x07\x01\x00\x00" + str("again") + "j\x07\x01\x00\x00u.",
		"protocol 4":   "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01w" + w + "s.",
		"STACK_GLOBAL": "\x80\x04\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94" + str("w") + w + "s.",
	} {
		f, err := openTorch(archive(t, pickle))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if x, err := f.Float32("w"); err != nil || len(x) != 6 || f.Names()[0] != "w" {
			t.Errorf("%s: %v, %v, %v", name, f.Names(), x, err)
		}
	}
}

// TestTorch_Refused: each rule of a plain state dict broken once.
func TestTorch_Refused(t *testing.T) {
	w := stored(0, nums(6), nums(1))
	tensor := func(storage, rest string) string { return saved(rebuild + "(" + storage + rest + "tR") }
	plain := num(0) + nums(6) + nums(1) + "\x89" + ordered
	ok := storage("FloatStorage", "0", 6)
	forbidden, corrupt, truncated, large := checkpoint.ErrForbidden, checkpoint.ErrCorrupt, checkpoint.ErrTruncated, checkpoint.ErrTooLarge
	for _, c := range []struct {
		name   string
		pickle string
		want   error
		says   string
	}{
		// What runs code in Python.
		{"os.system", head + "cos\nsystem\n" + str("true") + "\x85R.", forbidden, `GLOBAL "os.system"`},
		{"builtins.eval by STACK_GLOBAL", "\x80\x04\x8c\x08builtins\x8c\x04eval\x93" + str("1") + "\x85R.", forbidden, `"builtins.eval"`},
		{"torch's own loader", head + "ctorch\nload\n" + str("x") + "\x85R.", forbidden, `"torch.load"`},
		{"numpy's scalar", head + "cnumpy.core.multiarray\nscalar\n.", forbidden, `"numpy.core.multiarray.scalar"`},
		{"_codecs.encode", head + "c_codecs\nencode\n.", forbidden, `"_codecs.encode"`},
		{"another rebuild", head + "ctorch._utils\n_rebuild_qtensor\n.", forbidden, "_rebuild_qtensor"},
		{"another storage", head + "ctorch\nQInt8Storage\n.", forbidden, "torch.QInt8Storage"},
		{"name split elsewhere", head + "ccollections.OrderedDict\n\n.", forbidden, `"collections.OrderedDict."`},
		{"a program", head + "c__torch__.model\nCLIP\n.", checkpoint.ErrTorchScript, `"__torch__.model.CLIP"`},
		{"REDUCE of a storage's type", head + "ctorch\nFloatStorage\n)R.", forbidden, "REDUCE of a torch.FloatStorage"},
		{"REDUCE of a string", head + str("os.system") + ")R.", forbidden, "REDUCE of a str"},
		{"REDUCE of None", head + "N)R.", forbidden, "REDUCE of a None"},
		{"REDUCE without a tuple", head + "ccollections\nOrderedDict\n]R.", corrupt, "REDUCE with a list"},
		{"OrderedDict of pairs", head + "ccollections\nOrderedDict\n]\x85R.", forbidden, "OrderedDict made of values"},
		{"INST", head + "(ios\nsystem\n.", forbidden, "INST"},
		{"OBJ", head + "(cos\nsystem\no.", forbidden, "os.system"},
		{"OBJ of a known one", head + "(ccollections\nOrderedDict\no.", forbidden, "OBJ"},
		{"NEWOBJ", head + "ccollections\nOrderedDict\n)\x81.", forbidden, "NEWOBJ"},
		{"NEWOBJ_EX", "\x80\x04ccollections\nOrderedDict\n)}\x92.", forbidden, "NEWOBJ_EX"},
		{"EXT1", head + "\x82\x01.", forbidden, "EXT1"},
		{"EXT2", head + "\x83\x01\x00.", forbidden, "EXT2"},
		{"EXT4", head + "\x84\x01\x00\x00\x00.", forbidden, "EXT4"},
		{"BINBYTES", head + "B\x01\x00\x00\x00x.", forbidden, "BINBYTES"},
		{"BINSTRING of Python 2", head + "U\x01x.", forbidden, "SHORT_BINSTRING"},
		{"PERSID as text", head + "Pstorage\n.", forbidden, "PERSID"},
		{"DUP", head + "}2.", forbidden, "DUP"},
		{"POP", head + "}}0.", forbidden, "POP"},
		{"unknown opcode", head + "\xff.", forbidden, "0xff"},
		{"BYTEARRAY8 of protocol 5", "\x80\x04\x96.", forbidden, "BYTEARRAY8"},
		{"NEXT_BUFFER of protocol 5", "\x80\x04\x97.", forbidden, "NEXT_BUFFER"},
		{"protocol 5", "\x80\x05}.", forbidden, "protocol 2 to 4"},
		{"protocol 0", "(dp0\n.", forbidden, "protocol 2 to 4"},
		{"a second pickle", saved(w) + head + "cos\nsystem\n.", forbidden, "follow the pickle"},
		{"zeros behind", saved(w) + "\x00", forbidden, "1 bytes follow"},

		// Wrong types (CVE-2026-24747 and its like).
		{"SETITEM on a list", head + "]" + str("w") + w + "s.", forbidden, "put into a list"},
		{"SETITEM on a tensor", head + w + str("w") + "Ns.", forbidden, "put into a tensor"},
		{"SETITEMS on a tuple", head + ")(" + str("w") + w + "u.", forbidden, "put into a tuple"},
		{"SETITEMS of three", head + "}(" + str("w") + w + "Nu.", forbidden, "3 values"},
		{"APPEND on a dict", head + "}Na.", forbidden, "put into a dict"},
		{"APPENDS on a string", head + str("w") + "(Ne.", forbidden, "put into a str"},
		{"BUILD on a list", head + "]}b.", forbidden, "BUILD of a list with a dict"},
		{"BUILD on a tensor", head + w + "}b.", forbidden, "BUILD of a tensor"},
		{"BUILD with a tuple", head + ordered + ")b.", forbidden, "BUILD of a dict with a tuple"},
		{"a dict's key is a tensor", head + "}" + w + "Ns.", forbidden, "key is a tensor"},
		{"a key twice", head + "}(" + str("w") + w + str("w") + w + "u.", corrupt, `"w" stands twice`},
		{"persistent id of a string", head + str("0") + "Q.", forbidden, "persistent id"},
		{"persistent id of a module", tensor("("+str("module")+"ctorch\nFloatStorage\n"+str("0")+str("cpu")+num(6)+"tQ", plain), forbidden, "persistent id"},
		{"storage of four parts", tensor("("+str("storage")+"ctorch\nFloatStorage\n"+str("0")+str("cpu")+"tQ", plain), forbidden, "persistent id"},
		{"storage is a view", tensor("("+str("storage")+"ctorch\nFloatStorage\n"+str("0")+str("cpu")+num(6)+nums(0, 6)+"tQ", plain), forbidden, "view of a storage"},
		{"storage of no type", tensor("("+str("storage")+str("FloatStorage")+str("0")+str("cpu")+num(6)+"tQ", plain), corrupt, "bad types"},
		{"storage in two ways", head + "(" + ok + storage("IntStorage", "0", 6) + "t.", corrupt, "two ways"},
		{"storage below zero", tensor(storage("FloatStorage", "0", -6), plain), corrupt, "-6 elements"},
		{"storage overflows", tensor(storage("FloatStorage", "0", math.MaxInt64), plain), corrupt, "elements"},
		{"tensor of a list", tensor("]", plain), corrupt, "bad parts"},
		{"tensor with metadata", tensor(ok, plain+"}"), corrupt, "7 parts"},
		{"tensor with hooks", tensor(ok, num(0)+nums(6)+nums(1)+"\x89"+ordered+str("hook")+"Ns"), forbidden, "hooks"},
		{"requires_grad is a number", tensor(ok, num(0)+nums(6)+nums(1)+"K\x01"+ordered), corrupt, "requires_grad"},
		{"size is a list", tensor(ok, num(0)+"]"+nums(1)+"\x89"+ordered), corrupt, "bad parts"},
		{"size of strings", tensor(ok, num(0)+str("6")+"\x85"+nums(1)+"\x89"+ordered), corrupt, "bad parts"},
		{"ranks differ", saved(stored(0, nums(2, 3), nums(1))), corrupt, "bad parts"},
		{"rank 9", saved(stored(0, nums(1, 1, 1, 1, 1, 1, 1, 1, 1), nums(1, 1, 1, 1, 1, 1, 1, 1, 1))), corrupt, "bad parts"},
		{"parameter of a storage", saved("ctorch._utils\n_rebuild_parameter\n(" + ok + "\x88" + ordered + "tR"), corrupt, "parameter is a storage"},
		{"parameter of two", saved("ctorch._utils\n_rebuild_parameter\n(" + w + "\x88tR"), corrupt, "2 parts"},

		// Ranges that lie.
		{"one past the end", saved(stored(1, nums(6), nums(1))), corrupt, "in a storage of 6"},
		{"strides past the end", saved(stored(0, nums(2, 3), nums(4, 1))), corrupt, "in a storage of 6"},
		{"stride far past the end", saved(stored(0, nums(2), nums(math.MaxInt64))), corrupt, "beyond the storage"},
		{"strides that overflow together", saved(stored(6, nums(2, 2, 2), nums(6, 6, 6))), corrupt, "in a storage of 6"},
		{"stride below zero", saved(stored(5, nums(6), nums(-1))), corrupt, "strides [-1]"},
		{"stride below zero, of an empty one", saved(stored(0, nums(0), nums(-1))), corrupt, "strides [-1]"},
		{"offset below zero", saved(stored(-1, nums(2), nums(1))), corrupt, "at -1"},
		{"offset overflows", saved(stored(math.MaxInt64, nums(2), nums(1))), corrupt, "a tensor"},
		{"size below zero", saved(stored(0, nums(-6), nums(1))), corrupt, "shape [-6]"},
		{"sizes overflow", saved(stored(0, nums(1<<30, 1<<30, 1<<30), nums(0, 0, 0))), corrupt, "shape"},
		{"storage longer than its file", tensor(storage("FloatStorage", "0", 7), plain), corrupt, "has 24 bytes, its tensors say 28"},
		{"storage shorter than its file", tensor(storage("FloatStorage", "0", 5), num(0)+nums(5)+nums(1)+"\x89"+ordered), corrupt, "has 24 bytes, its tensors say 20"},
		{"storage of another width", tensor(storage("HalfStorage", "0", 6), plain), corrupt, "say 12"},
		{"storage that is not there", tensor(storage("FloatStorage", "1", 6), plain), corrupt, `no storage "1"`},
		{"storage in another folder", tensor(storage("FloatStorage", "../data/0", 6), plain), corrupt, "no storage"},

		// Ends and depths.
		{"no end", head + "}", truncated, ""},
		{"string longer than the rest", head + "X\xff\xff\xff\xffw.", truncated, "4294967295 bytes wanted"},
		{"number cut", head + "J\x00", truncated, ""},
		{"GLOBAL without an end", head + "c" + strings.Repeat("x", 300) + "\n", corrupt, "no end"},
		{"empty stack", head + ".", corrupt, "0 values"},
		{"two values", head + "}}.", corrupt, "2 values"},
		{"mark left", head + "}(.", corrupt, "ends with"},
		{"no mark", head + "}t.", corrupt, "no mark"},
		{"pop beneath a mark", head + "}(\x85.", corrupt, "stack is empty"},
		{"memo read first", head + "h\x00.", corrupt, "remembered as 0"},
		{"memo of nothing", head + "q\x00.", corrupt, "stack is empty"},
		{"long integer", head + "\x8a\x09123456789.", forbidden, "integer of 9 bytes"},
		{"string not UTF-8", head + "X\x01\x00\x00\x00\xff.", corrupt, "UTF-8"},
		{"stack without end", head + strings.Repeat("N", 1<<17) + ".", large, "stack"},
		{"marks without end", head + strings.Repeat("(", 1<<17) + ".", large, "stack"},
		{"opcodes without end", head + strings.Repeat("}\x85", 1<<20) + ".", large, ""},

		// Not what is wanted.
		{"a tensor was saved", head + w + ".", forbidden, "a tensor was saved"},
		{"no tensors", head + "}(" + str("epoch") + "K\x01u.", forbidden, `"epoch"`},
	} {
		_, err := openTorch(archive(t, c.pickle))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v saying %q", c.name, err, c.want, c.says)
		}
	}
}

// TestTorch_Zip: tricks with archives.
func TestTorch_Zip(t *testing.T) {
	pickle := saved(stored(0, nums(6), nums(1)))
	good := archive(t, pickle)
	if _, err := openTorch(good); err != nil {
		t.Fatal(err)
	}
	whole, err := checkpointtest.Make(checkpointtest.Options{Arch: small, Format: checkpointtest.Torch})
	if err != nil {
		t.Fatal(err)
	}
	wide := whole["pytorch_model.bin"]
	patch := func(b []byte, at int, with string) []byte {
		b = slices.Clone(b)
		if at < 0 {
			at += len(b)
		}
		copy(b[at:], with)
		return b
	}
	dir := bytes.Index(good, []byte("PK\x01\x02"))
	wideDir := bytes.Index(wide, []byte("PK\x01\x02"))
	for _, c := range []struct {
		name string
		file []byte
		want error
		says string
	}{
		{"empty", nil, checkpoint.ErrTruncated, "0 bytes"},
		{"cut", good[:len(good)-1], checkpoint.ErrTruncated, "no end of a zip"},
		{"cut in half", good[:len(good)/2], checkpoint.ErrTruncated, "no end of a zip"},
		{"bytes appended", append(slices.Clone(good), 0), checkpoint.ErrTruncated, "bytes appended"},
		{"comment", patch(append(slices.Clone(good), 'x'), -3, "\x01\x00"), checkpoint.ErrTruncated, ""},
		{"bytes before", append([]byte("PK\x03\x04"), good...), checkpoint.ErrCorrupt, ""},
		{"7z", []byte("7z\xbc\xaf\x27\x1c" + strings.Repeat("\x00", 64)), checkpoint.ErrCorrupt, "neither"},
		{"tar", append([]byte("sys_info"), make([]byte, 512)...), checkpoint.ErrCorrupt, "neither"},
		{"bare pickle", []byte(pickle), checkpoint.ErrCorrupt, "neither"},
		{"encrypted", patch(good, dir+8, "\x09"), checkpoint.ErrCorrupt, "encrypted"},
		{"encrypted in its own header only", patch(good, 6, "\x09"), checkpoint.ErrCorrupt, "differs from the directory"},
		{"compressed", patch(good, dir+10, "\x08"), checkpoint.ErrCorrupt, "compressed"},
		{"compressed in its own header only", patch(good, 8, "\x08"), checkpoint.ErrCorrupt, "differs from the directory"},
		{"packed size", patch(good, dir+20, "\x01\x00\x00\x00"), checkpoint.ErrCorrupt, "stored as 1"},
		{"another name in its own header", patch(good, 30, "x"), checkpoint.ErrCorrupt, "differs from the directory"},
		{"size reaches on", patch(patch(good, dir+20, "\xff\xff\xff\x00"), dir+24, "\xff\xff\xff\x00"), checkpoint.ErrCorrupt, "reaches into the directory"},
		{"begins in the directory", patch(good, dir+42, string(binary.LittleEndian.AppendUint32(nil, uint32(dir)))), checkpoint.ErrCorrupt, ""},
		{"count of entries", patch(good, -22+8, "\x02\x00\x02\x00"), checkpoint.ErrCorrupt, "its end says 2"},
		{"directory elsewhere", patch(good, -22+16, "\x00\x00\x00\x00"), checkpoint.ErrCorrupt, "does not end where"},
		{"two disks", patch(good, -22+4, "\x01"), checkpoint.ErrCorrupt, "disks"},
		{"no entry", patch(good, dir, "PK\x09\x09"), checkpoint.ErrCorrupt, "no directory entry"},
		{"name longer than the directory", patch(good, dir+28, "\xff\xff"), checkpoint.ErrCorrupt, "longer than the directory"},
		{"64-bit end elsewhere", patch(wide, -22-20+8, "\x00"), checkpoint.ErrCorrupt, "not where it is said"},
		{"end records differ", patch(wide, -22+8, "\x01\x00\x01\x00"), checkpoint.ErrCorrupt, "end records differ"},
		{"zip64 count", patch(wide, -22-20-56+24, "\x00\x00\x00\x00\x00\x00\x00\x00"), checkpoint.ErrCorrupt, "disks"},
		{"entries overlap", patch(wide, wideDir+46+len("archive/data.pkl")+42, "\x08\x00\x00\x00"), checkpoint.ErrCorrupt, "overlaps"},
		{"name twice", zipped(t, zipFile{"a/data.pkl", pickle}, zipFile{"a/data/0", six}, zipFile{"a/data/0", six}), checkpoint.ErrCorrupt, "stands twice"},
		{"two pickles", zipped(t, zipFile{"a/data.pkl", pickle}, zipFile{"b/data.pkl", pickle}), checkpoint.ErrCorrupt, "two pickles"},
		{"deeper", zipped(t, zipFile{"a/b/data.pkl", pickle}, zipFile{"a/b/data/0", six}), checkpoint.ErrCorrupt, "one folder"},
		{"no pickle", zipped(t, zipFile{"a/data/0", six}), checkpoint.ErrCorrupt, "without a data.pkl"},
		{"another folder", zipped(t, zipFile{"a/data.pkl", pickle}, zipFile{"a/data/0", six}, zipFile{"b/x", ""}), checkpoint.ErrCorrupt, `not in "a"`},
		{"TorchScript", zipped(t, zipFile{"a/data.pkl", pickle}, zipFile{"a/constants.pkl", head + ")."}), checkpoint.ErrTorchScript, "constants.pkl"},
		{"TorchScript code", zipped(t, zipFile{"a/data.pkl", pickle}, zipFile{"a/code/__torch__.py", ""}), checkpoint.ErrTorchScript, "code/__torch__.py"},
		{"big-endian", zipped(t, zipFile{"a/data.pkl", pickle}, zipFile{"a/data/0", six}, zipFile{"a/byteorder", "big"}), checkpoint.ErrDType, "byte order"},
	} {
		_, err := openTorch(c.file)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v saying %q", c.name, err, c.want, c.says)
		}
	}
}

// toy is a model of a few numbers.
var toy = checkpointtest.Arch{
	Size: 2, Patch: 1, Image: checkpointtest.Tower{Width: 2, Layers: 1, Heads: 1}, Text: checkpointtest.Tower{Width: 1, Layers: 1, Heads: 1},
	Vocab: 2, Context: 2, D: 1,
}

// TestTorch_Cut: no beginning of a file reads as one, and none of its bytes
// may be changed into a panic.
func TestTorch_Cut(t *testing.T) {
	for _, format := range []string{checkpointtest.Torch, checkpointtest.Legacy} {
		f, err := checkpointtest.Make(checkpointtest.Options{Arch: toy, Format: format, DType: "F16"})
		if err != nil {
			t.Fatal(err)
		}
		b := f["pytorch_model.bin"]
		if _, err := openTorch(b); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(b); n += 1 + n/256 {
			if _, err := openTorch(b[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes were enough", format, n, len(b))
			}
		}
		if _, err := openTorch(append(slices.Clone(b), 0)); err == nil {
			t.Errorf("%s: a byte behind the end was ignored", format)
		}
		for at := 0; at < len(b); at += 1 + at/512 {
			changed := slices.Clone(b)
			changed[at] ^= 0x55
			if f, err := openTorch(changed); err == nil {
				for _, name := range f.Names() {
					f.Float32(name)
				}
			}
		}
	}
}

func TestTorch_Legacy(t *testing.T) {
	o := checkpointtest.Options{Arch: small, Format: checkpointtest.Legacy}
	f, err := checkpointtest.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	good := string(f["pytorch_model.bin"])
	for _, c := range []struct {
		name, from, to string
		want           error
		says           string
	}{
		{"big-endian", "little_endianq\x02\x88", "little_endianq\x02\x89", checkpoint.ErrDType, "byte order"},
		{"count", string(binary.LittleEndian.AppendUint64(nil, 20*24)), string(binary.LittleEndian.AppendUint64(nil, 20*24-1)), checkpoint.ErrCorrupt, "elements, its tensors say 480"},
		{"a key twice", "X\x01\x00\x00\x001q", "X\x01\x00\x00\x000q", checkpoint.ErrCorrupt, ""},
		{"another GLOBAL", "collections\nOrderedDict", "collections\nOrderedDicT", checkpoint.ErrForbidden, "OrderedDicT"},
		{"protocol of torch", "M\xe9\x03.", "M\xe8\x03.", checkpoint.ErrCorrupt, "neither"},
	} {
		at := strings.LastIndex(good, c.from)
		if at < 0 {
			t.Fatalf("%s: not found", c.name)
		}
		_, err := openTorch([]byte(good[:at] + c.to + good[at+len(c.from):]))
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v, want %v saying %q", c.name, err, c.want, c.says)
		}
	}
}

func TestTorch_Limits(t *testing.T) {
	b := archive(t, saved(stored(0, nums(2, 3), nums(3, 1))))
	for _, c := range []struct {
		name string
		l    checkpoint.Limits
	}{
		{"pickle", checkpoint.Limits{HeaderBytes: 100}},
		{"tensor", checkpoint.Limits{TensorBytes: 20}},
	} {
		f, err := checkpoint.OpenTorch(bytes.NewReader(b), int64(len(b)), c.l)
		if err == nil {
			_, err = f.Float32("w")
		}
		if !errors.Is(err, checkpoint.ErrTooLarge) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// A view that spans much, and one that repeats much.
	for _, view := range []string{stored(0, nums(2), nums(5)), stored(0, nums(1<<20), nums(0))} {
		b := archive(t, saved(view))
		f, err := checkpoint.OpenTorch(bytes.NewReader(b), int64(len(b)), checkpoint.Limits{TensorBytes: 16})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Float32("w"); !errors.Is(err, checkpoint.ErrTooLarge) {
			t.Errorf("view: %v", err)
		}
	}
}

func FuzzTorch(f *testing.F) {
	f.Add(archive(f, saved(stored(0, nums(3, 2), nums(1, 3)))))
	f.Add(archive(f, head+"cos\nsystem\n"+str("true")+"\x85R."))
	f.Add(archive(f, "\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01w"+stored(0, nums(6), nums(1))+"s."))
	for _, o := range []checkpointtest.Options{
		{Arch: toy, Format: checkpointtest.Torch, PositionIDs: true}, {Arch: toy, Format: checkpointtest.Legacy, DType: "F16"},
		{Arch: toy, Format: checkpointtest.Torch, Layout: checkpointtest.OpenCLIP, Wrapped: true},
	} {
		files := makeFiles(f, o)
		for name, b := range files {
			if strings.HasSuffix(name, ".bin") {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l := checkpoint.Limits{HeaderBytes: 1 << 16, TensorBytes: 1 << 20}
		file, err := checkpoint.OpenTorch(bytes.NewReader(b), int64(len(b)), l)
		if err != nil {
			return
		}
		for _, name := range file.Names() {
			x, err := file.Float32(name)
			if err != nil {
				continue
			}
			shape, _ := file.Shape(name)
			n := 1
			for _, d := range shape {
				n *= d
			}
			if len(x) != n {
				t.Fatalf("%q: %d elements of %v", name, len(x), shape)
			}
		}
	})
}
