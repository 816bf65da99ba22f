package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"lqa/quant/clip"
	"lqa/quant/engine"
	"lqa/quant/engine/enginetest"
	"lqa/quant/qtype"
	"lqa/quant/shq"
)

// sharded is the small CLIP with a token table in shards of so many rows.
func sharded(t testing.TB, rows int, float bool) []byte {
	t.Helper()
	cfg := enginetest.CLIPConfig()
	cfg.Text.TokenShards = rows
	return enginetest.CLIPOf(t, cfg, 3, float)
}

// remote is a file that is read as a stream and by pieces, and counts both.
type remote struct {
	io.Reader
	file     []byte
	stream   int
	fetched  int
	requests int
	// reply, if not nil, is what the fetch with that number answers, from 1.
	reply func(n int, b []byte) ([]byte, error)
}

func newRemote(file []byte) *remote { return &remote{Reader: bytes.NewReader(file), file: file} }

func (r *remote) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.stream += n
	return n, err
}

func (r *remote) Fetch(_ context.Context, offset int64, size int) ([]byte, error) {
	r.requests++
	b := slices.Clone(r.file[offset : offset+int64(size)])
	if r.reply != nil {
		var err error
		if b, err = r.reply(r.requests, b); err != nil {
			return nil, err
		}
	}
	r.fetched += len(b)
	return b, nil
}

// open reads all but the shards.
func (r *remote) open(t testing.TB) *engine.Engine {
	t.Helper()
	e, err := engine.Open(r, engine.Options{Host: newHost(), Fetch: r.Fetch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	for err == nil {
		_, err = e.LoadStage(context.Background())
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	return e
}

// texts need rows from both ends of the table; "mug" stands ready.
var texts = []string{"an of", "mug", "~ÿ", "a photo"}

// TestShards_SameBits: however the table is cut, whatever its kind, fetched or
// read in the stream, embeddings have the bits of the table in one piece.
func TestShards_SameBits(t *testing.T) {
	for _, float := range []bool{false, true} {
		whole := load(t, enginetest.CLIP(t, 3, float))
		want, err := whole.EmbedText(texts)
		if err != nil {
			t.Fatal(err)
		}
		for _, rows := range []int{7, 100, 260, 520} {
			t.Run(fmt.Sprintf("float %v, %d rows", float, rows), func(t *testing.T) {
				file := sharded(t, rows, float)
				fetched := newRemote(file).open(t)
				if _, err := fetched.EmbedText(texts); !errors.Is(err, engine.ErrTokens) {
					t.Fatalf("before its rows are fetched: %v", err)
				}
				if err := fetched.Prepare(context.Background(), texts, nil); err != nil {
					t.Fatal(err)
				}
				for _, e := range []*engine.Engine{fetched, load(t, file)} {
					got, err := e.EmbedText(texts)
					if err != nil {
						t.Fatal(err)
					}
					for i := range got {
						if !slices.Equal(got[i], want[i]) {
							t.Errorf("%q has other bits", texts[i])
						}
					}
					if saved := whole.Memory().Weights - e.Memory().Weights; saved < 514*32 {
						t.Errorf("the kernels' memory is %d bytes smaller, the table has %d rows of 32", saved, 520)
					}
				}
			})
		}
	}
}

// TestShards_Bytes: pictures and default labels cost the first stage alone, a
// label its own shards, once.
func TestShards_Bytes(t *testing.T) {
	file := sharded(t, 20, false) // 26 shards
	r := newRemote(file)
	var seen []engine.Progress
	e, err := engine.Open(r, engine.Options{Host: newHost(), Fetch: r.Fetch, Progress: func(p engine.Progress) { seen = append(seen, p) }})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	m := e.Manifest()
	load := func(stage int) {
		t.Helper()
		if got, err := e.LoadStage(context.Background()); got != stage || err != nil {
			t.Fatal(got, err)
		}
		if want := m.StageEnd(stage); int64(r.stream) != want {
			t.Errorf("stage %d: %d bytes read, want %d", stage, r.stream, want)
		}
	}
	embed := func(fetched, requests int, labels ...string) {
		t.Helper()
		if err := e.Prepare(context.Background(), labels, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := e.EmbedText(labels); err != nil {
			t.Fatal(err)
		}
		if r.fetched != fetched || r.requests != requests {
			t.Errorf("%q: %d bytes in %d requests so far, want %d in %d", labels, r.fetched, r.requests, fetched, requests)
		}
	}
	shards := func(list ...int) (n int) {
		for _, s := range list {
			for _, x := range m.Tensors {
				if x.Name == clip.ShardName(s) {
					n += m.Frames[x.Frame].Size
				}
			}
		}
		return n
	}

	load(engine.StageImage)
	encode(t, e, enginetest.Picture(80, 60, 1), 80, 60)
	embed(0, 0, "Mug", "banana")
	if err := e.Prepare(context.Background(), []string{"dog"}, nil); !errors.Is(err, engine.ErrTextNotReady) {
		t.Errorf("rows before the text tower: %v", err)
	}
	load(engine.StageText)
	if _, err := e.LoadStage(context.Background()); err != io.EOF {
		t.Errorf("after the last stage of the stream: %v", err)
	}
	if last := seen[len(seen)-1]; last.LoadedBytes != last.TotalBytes || last.TotalBytes != int64(r.stream) {
		t.Errorf("progress ends at %+v of %d bytes", last, r.stream)
	}
	embed(0, 0, "keyboard") // stands ready
	ids := map[int]bool{}   // of shards
	for _, template := range e.Config().Text.Templates {
		for _, id := range tokens(t, clip.Expand(template, "~")) {
			ids[int(id)/20] = true
		}
	}
	var need []int
	runs := 0
	for s := range 26 {
		if ids[s] {
			need = append(need, s)
			if !ids[s-1] {
				runs++
			}
		}
	}
	if len(need) < 3 || len(need) > 12 {
		t.Fatalf("shards %v: this tests nothing", need)
	}
	embed(shards(need...), runs, "~")
	embed(shards(need...), runs, "~", "mug", "~ ~") // here already
}

// tokens are the small CLIP's.
func tokens(t *testing.T, text string) []int32 {
	t.Helper()
	cfg := enginetest.CLIPConfig()
	b, err := clip.NewBPE(enginetest.Merges(t), cfg.Text.Vocab)
	if err != nil {
		t.Fatal(err)
	}
	return b.Encode(nil, text, cfg.Text.Context)
}

var errCable = errors.New("the cable is out")

// TestPrepare_Fails: what can go wrong with a shard has its own error, and a
// later call goes on where it stopped.
func TestPrepare_Fails(t *testing.T) {
	file := sharded(t, 20, false)
	good := newRemote(file)
	e := good.open(t)
	if err := e.Prepare(context.Background(), texts, nil); err != nil {
		t.Fatal(err)
	}
	want, err := e.EmbedText(texts)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		reply func(b []byte) ([]byte, error)
		want  error
	}{
		"cable":     {func([]byte) ([]byte, error) { return nil, errCable }, errCable},
		"truncated": {func(b []byte) ([]byte, error) { return b[:len(b)-1], nil }, shq.ErrTruncated},
		"nothing":   {func([]byte) ([]byte, error) { return nil, nil }, shq.ErrTruncated},
		"flipped":   {func(b []byte) ([]byte, error) { b[len(b)/2] ^= 1; return b, nil }, shq.ErrCorrupt},
		"another":   {func(b []byte) ([]byte, error) { return bytes.Repeat([]byte{7}, len(b)), nil }, shq.ErrCorrupt},
	} {
		r := newRemote(file)
		e := r.open(t)
		r.reply = func(n int, b []byte) ([]byte, error) {
			if n < 3 {
				return b, nil
			}
			return c.reply(b)
		}
		if err := e.Prepare(context.Background(), texts, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, err := e.EmbedText(texts); !errors.Is(err, engine.ErrTokens) {
			t.Errorf("%s: then %v", name, err)
		}
		encode(t, e, enginetest.Picture(80, 60, 1), 80, 60)
		r.reply = nil
		if err := e.Prepare(context.Background(), texts, nil); err != nil {
			t.Errorf("%s: after it %v", name, err)
		}
		if r.requests != good.requests+1 {
			t.Errorf("%s: %d requests in all, want one more than %d", name, r.requests, good.requests)
		}
		if got, err := e.EmbedText(texts); err != nil || !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: other bits afterwards (%v)", name, err)
		}
	}
}

// TestPrepare_Value: a shard whose hash is right but whose scales are not is
// refused.
func TestPrepare_Value(t *testing.T) {
	file := rewrite(t, sharded(t, 20, false), func(d *shq.TensorData) {
		if d.Alone {
			d.Data = slices.Clone(d.Data)
			d.Data[1] |= 0x80 // a negative scale
		}
	})
	e := newRemote(file).open(t)
	if err := e.Prepare(context.Background(), texts, nil); !errors.Is(err, engine.ErrModel) {
		t.Errorf("%v", err)
	}
}

// TestPrepare_Meanwhile: while a shard is on its way pictures are answered, and
// so are labels whose rows are here; others may ask for more.
func TestPrepare_Meanwhile(t *testing.T) {
	r := newRemote(sharded(t, 20, false))
	e := r.open(t)
	picture := encode(t, e, enginetest.Picture(80, 60, 1), 80, 60)
	r.reply = func(n int, b []byte) ([]byte, error) {
		if n > 1 {
			return b, nil
		}
		if !slices.Equal(encode(t, e, enginetest.Picture(80, 60, 1), 80, 60), picture) {
			t.Error("another embedding while a shard comes")
		}
		if _, err := e.EmbedText([]string{"mug", "keyboard"}); err != nil {
			t.Error(err)
		}
		if _, err := e.EmbedText([]string{"~ÿ"}); !errors.Is(err, engine.ErrTokens) {
			t.Errorf("its rows are on their way: %v", err)
		}
		if err := e.Prepare(context.Background(), []string{"an of"}, nil); err != nil {
			t.Error(err)
		}
		if _, err := e.EmbedText([]string{"an of"}); err != nil {
			t.Error(err)
		}
		return b, nil
	}
	if err := e.Prepare(context.Background(), []string{"~ÿ"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := e.EmbedText([]string{"~ÿ", "an of"}); err != nil {
		t.Error(err)
	}
	if r.requests < 3 {
		t.Errorf("%d requests: this tests nothing", r.requests)
	}
}

func TestPrepare_Cancel(t *testing.T) {
	r := newRemote(sharded(t, 20, false))
	e := r.open(t)
	ctx, cancel := context.WithCancel(context.Background())
	r.reply = func(_ int, b []byte) ([]byte, error) { cancel(); return b, nil }
	if err := e.Prepare(ctx, texts, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled in a fetch: %v", err)
	}
	if r.requests != 1 {
		t.Errorf("%d requests, want the one that ran", r.requests)
	}
}

// TestPrepare_Stream: without Fetch the shards are a stage of the stream, and
// Prepare says so.
func TestPrepare_Stream(t *testing.T) {
	e, err := engine.Open(bytes.NewReader(sharded(t, 100, false)), engine.Options{Host: newHost()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for stage := range engine.StageTokens + 1 {
		if stage == engine.StageTokens {
			if _, err := e.EmbedText(texts); !errors.Is(err, engine.ErrTokens) {
				t.Errorf("before the shards: %v", err)
			}
			if err := e.Prepare(context.Background(), texts, nil); !errors.Is(err, engine.ErrTokens) {
				t.Errorf("before the shards: %v", err)
			}
		}
		if got, err := e.LoadStage(context.Background()); got != stage || err != nil {
			t.Fatal(got, err)
		}
	}
	if err := e.Prepare(context.Background(), texts, nil); err != nil {
		t.Error(err)
	}
	if _, err := e.EmbedText(texts); err != nil {
		t.Error(err)
	}
	if _, err := e.LoadStage(context.Background()); err != io.EOF {
		t.Error(err)
	}
}

// TestStopFetching: what was fetched stays, the rest comes with the stream.
func TestStopFetching(t *testing.T) {
	r := newRemote(sharded(t, 20, false))
	e := r.open(t)
	r.reply = func(n int, b []byte) ([]byte, error) {
		if n > 2 {
			return nil, errCable
		}
		return b, nil
	}
	if err := e.Prepare(context.Background(), texts, nil); !errors.Is(err, errCable) {
		t.Fatal(err)
	}
	e.StopFetching()
	if err := e.Prepare(context.Background(), texts, nil); !errors.Is(err, engine.ErrTokens) {
		t.Errorf("before the stream went on: %v", err)
	}
	if stage, err := e.LoadStage(context.Background()); stage != engine.StageTokens || err != nil {
		t.Fatal(stage, err)
	}
	if _, err := e.LoadStage(context.Background()); err != io.EOF {
		t.Error(err)
	}
	if _, err := e.EmbedText(texts); err != nil || r.stream != len(r.file) {
		t.Errorf("%v, %d bytes of %d read", err, r.stream, len(r.file))
	}
}

// rewrite writes a file's tensors anew, each as change leaves it.
func rewrite(t *testing.T, file []byte, change func(d *shq.TensorData)) []byte {
	t.Helper()
	rd, err := shq.NewReader(bytes.NewReader(file), shq.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	m := rd.Manifest()
	w, err := shq.NewWriter(*m)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = rd.NextTensors(func(x *shq.Tensor, b []byte) error {
			d := shq.TensorData{Name: x.Name, Kind: x.Kind, Shape: x.Shape, Data: b, Alone: m.Frames[x.Frame].Stage == engine.StageTokens}
			change(&d)
			return w.Add(m.Frames[x.Frame].Stage, d)
		})
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestOpen_Shards: a file whose shards share frames cannot be fetched by them,
// and what are no shards of this model's are none.
func TestOpen_Shards(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *shq.TensorData)
		want   error
	}{
		"as it was": {func(*shq.TensorData) {}, nil},
		"together":  {func(d *shq.TensorData) { d.Alone = false }, clip.ErrTensor},
		"renamed": {func(d *shq.TensorData) {
			if d.Name == clip.ShardName(2) {
				d.Name = clip.ShardName(9)
			}
		}, clip.ErrTensor},
		"another kind": {func(d *shq.TensorData) {
			if d.Name == clip.ShardName(3) {
				d.Kind, d.Data = qtype.Q8C, qtype.AppendQ8C(nil, make([]float32, 100*32), 100, 32)
			}
		}, clip.ErrTensor},
	} {
		file := rewrite(t, sharded(t, 100, false), c.change)
		e, err := engine.Open(bytes.NewReader(file), engine.Options{Host: newHost()})
		if err == nil {
			e.Close()
		}
		if !errors.Is(err, c.want) || err != nil && !errors.Is(err, engine.ErrModel) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestOpen_Manifest: the host sees the manifest and may refuse it.
func TestOpen_Manifest(t *testing.T) {
	refuse := errors.New("not this one")
	e, err := engine.Open(bytes.NewReader(sharded(t, 100, false)), engine.Options{Host: newHost(), Manifest: func(m *shq.Manifest, hash [32]byte) error {
		if m.Stages() != 3 || hash == [32]byte{} {
			t.Errorf("%d stages, hash %x", m.Stages(), hash)
		}
		return refuse
	}})
	if e != nil || !errors.Is(err, refuse) {
		t.Errorf("%v", err)
	}
}
