package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lqa/quant/checkpoint"
	"lqa/quant/checkpoint/hub/hubtest"
)

const id = "owner/some-clip"

// data is n bytes that differ from one place to the next.
func data(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// weightsFile is large, and no multiple of anything.
var weightsFile = hubtest.File{Path: "model.safetensors", Data: data(300_007), Large: true}

var configFile = hubtest.File{Path: "config.json", Data: []byte(`{"model_type":"clip"}`)}

func text(path, data string) hubtest.File { return hubtest.File{Path: path, Data: []byte(data)} }

func large(path string) hubtest.File {
	return hubtest.File{Path: path, Data: []byte(path), Large: true}
}

// rig is a server with one repository and the options to ask it. slept lists the waits.
type rig struct {
	*hubtest.Server
	o     Options
	slept []time.Duration
	log   strings.Builder
}

func newRig(t *testing.T, files ...hubtest.File) *rig {
	if files == nil {
		files = []hubtest.File{configFile, text("merges.txt", "a b\n"), text("README.md", "# readme"), weightsFile}
	}
	r := &rig{Server: hubtest.New(t, map[string]*hubtest.Repo{id: {Files: files, Licence: "mit", Revisions: []string{"refs/pr/66"}}})}
	r.o = Options{
		Endpoint: r.URL(), Cache: t.TempDir(), Stall: time.Minute,
		Sleep: func(_ context.Context, d time.Duration) error { r.slept = append(r.slept, d); return nil },
		Log:   func(s string) { fmt.Fprintln(&r.log, s) },
	}
	return r
}

func (r *rig) fetch(t *testing.T, name string) (*Repository, error) {
	t.Helper()
	ref, err := Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return Fetch(t.Context(), ref, r.o)
}

func contents(t *testing.T, f checkpoint.Folder, name string) []byte {
	t.Helper()
	file, err := f.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, file.Size())
	if _, err := file.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return b
}

// whole fails the test unless the weights came as they are.
func whole(t *testing.T, r *Repository, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, r, weightsFile.Path); string(got) != string(weightsFile.Data) {
		t.Error("the weights came out wrong")
	}
}

func TestFetch(t *testing.T) {
	r := newRig(t)
	r.PerPage = 2
	var last, total int64
	r.o.Progress = func(_ string, done, of int64) { last, total = done, of }
	repo, err := r.fetch(t, id+"@refs/pr/66")
	whole(t, repo, err)
	if repo.Commit != hubtest.Commit || repo.Licence != "mit" {
		t.Errorf("commit %s, licence %s", repo.Commit, repo.Licence)
	}
	if got, want := repo.Names(), []string{"config.json", "merges.txt", "model.safetensors"}; !slices.Equal(got, want) {
		t.Errorf("fetched %v, want %v", got, want)
	}
	if last != total || total != int64(len(weightsFile.Data)) {
		t.Errorf("progress ends at %d of %d", last, total)
	}
	if _, err := repo.Open("README.md"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that was not fetched: %v", err)
	}
	asked := r.Requests()
	if p := asked[0].Path; !strings.HasSuffix(p, "/revision/refs%2Fpr%2F66") {
		t.Errorf("asked for %s: the revision is one element of the path", p)
	}
	for _, q := range asked[1:] {
		if !q.Storage && !strings.Contains(q.Path, hubtest.Commit) {
			t.Errorf("asked for %s: not pinned to the commit", q.Path)
		}
	}

	// A second time only the revision and the list are asked for, and a pinned commit needs no network.
	whole2 := func(name string, requests int) {
		t.Helper()
		repo, err := r.fetch(t, name)
		whole(t, repo, err)
		if n := len(r.Requests()); n != requests {
			t.Errorf("%s again: %d requests, want %d", name, n, requests)
		}
	}
	whole2(id, 4) // the tree has three pages
	whole2(id+"@"+hubtest.Commit, 0)
}

// TestFetch_Faults: whatever happens on the way, the bytes are right in the end.
func TestFetch_Faults(t *testing.T) {
	for name, c := range map[string]struct {
		api, resolve, storage []hubtest.Fault
		stall                 time.Duration
		ranges                []string // asked of storage
		slept                 []time.Duration
	}{
		"cut three times": {
			storage: []hubtest.Fault{hubtest.Cut(1000), hubtest.Cut(70_000), hubtest.Cut(1)},
			ranges:  []string{"", "bytes=1000-", "bytes=71000-", "bytes=71001-"},
			slept:   []time.Duration{time.Second, time.Second, time.Second}, // each brought something
		},
		"cut with nothing": {
			storage: []hubtest.Fault{hubtest.Cut(0), hubtest.Cut(0), hubtest.Cut(5)},
			ranges:  []string{"", "", "", "bytes=5-"},
			slept:   []time.Duration{time.Second, 2 * time.Second, time.Second},
		},
		"signature expired": {
			storage: []hubtest.Fault{hubtest.Cut(500), hubtest.Status(403)},
			ranges:  []string{"", "bytes=500-", "bytes=500-"},
			slept:   []time.Duration{time.Second, 2 * time.Second},
		},
		"range refused": {
			storage: []hubtest.Fault{hubtest.Cut(500), hubtest.Status(416, "Content-Range", "bytes */300007")},
			ranges:  []string{"", "bytes=500-", ""},
			slept:   []time.Duration{time.Second, 2 * time.Second},
		},
		"range ignored": {
			storage: []hubtest.Fault{hubtest.Cut(500), hubtest.NoRange},
			ranges:  []string{"", "bytes=500-"},
			slept:   []time.Duration{time.Second},
		},
		"stalled": {
			storage: []hubtest.Fault{hubtest.Stall(900)},
			stall:   50 * time.Millisecond,
			ranges:  []string{"", "bytes=900-"},
			slept:   []time.Duration{time.Second},
		},
		"wrong bytes once": {
			storage: []hubtest.Fault{hubtest.Wrong},
			ranges:  []string{"", ""},
		},
		"busy": {
			api:     []hubtest.Fault{hubtest.Status(500), hubtest.Status(429, "RateLimit", `"api";r=0;t=55`)},
			resolve: []hubtest.Fault{hubtest.Status(503), hubtest.None, hubtest.Status(429, "Retry-After", "7")},
			storage: []hubtest.Fault{hubtest.Status(408)},
			ranges:  []string{"", ""},
			slept:   []time.Duration{time.Second, 55 * time.Second, time.Second, 7 * time.Second, time.Second},
		},
		"a day to wait": {
			api:    []hubtest.Fault{hubtest.Status(429, "RateLimit", `"api";r=0;t=86400`)},
			ranges: []string{""},
			slept:  []time.Duration{6 * time.Minute},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, configFile, weightsFile)
			r.API, r.Resolve, r.Storage = c.api, c.resolve, c.storage
			if c.stall > 0 {
				r.o.Stall = c.stall
			}
			repo, err := r.fetch(t, id)
			whole(t, repo, err)
			var ranges []string
			for _, q := range r.Requests() {
				if q.Storage {
					ranges = append(ranges, q.Range)
				}
			}
			if !slices.Equal(ranges, c.ranges) {
				t.Errorf("ranges %q, want %q", ranges, c.ranges)
			}
			if !slices.Equal(r.slept, c.slept) {
				t.Errorf("waited %v, want %v", r.slept, c.slept)
			}
			if left, _ := filepath.Glob(filepath.Join(r.o.Cache, "*", "blobs", "*.part")); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

// TestFetch_Resume: what a killed run leaves is gone on with by the next.
func TestFetch_Resume(t *testing.T) {
	r := newRig(t)
	blob := filepath.Join(r.o.Cache, "models--owner--some-clip", "blobs")
	sum := func() string { // the name of the weights, from a fetch elsewhere
		o := r.o
		o.Cache = t.TempDir()
		repo, err := Fetch(t.Context(), Ref{id, "main"}, o)
		whole(t, repo, err)
		return repo.Files()[2].SHA256
	}()
	if err := os.MkdirAll(blob, 0o777); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(blob, sum+".part")
	for _, c := range []struct {
		left  []byte
		asked []string
	}{
		{weightsFile.Data[:123_456], []string{"bytes=123456-"}},
		{weightsFile.Data, nil},                                 // whole, but not yet checked
		{append(data(300_007), 1), []string{""}},                // too long
		{make([]byte, 1000), []string{"bytes=1000-", ""}},       // damaged
		{make([]byte, len(weightsFile.Data)), []string{""}},     // damaged and whole
		{weightsFile.Data[:300_006], []string{"bytes=300006-"}}, // a byte is missing
	} {
		os.Remove(filepath.Join(blob, sum))
		if err := os.WriteFile(part, c.left, 0o666); err != nil {
			t.Fatal(err)
		}
		r.Requests()
		repo, err := r.fetch(t, id)
		whole(t, repo, err)
		var asked []string
		for _, q := range r.Requests() {
			if q.Storage {
				asked = append(asked, q.Range)
			}
		}
		if !slices.Equal(asked, c.asked) {
			t.Errorf("%d bytes left: asked %q, want %q", len(c.left), asked, c.asked)
		}
	}

	// A run that is stopped keeps its part.
	os.Remove(filepath.Join(blob, sum))
	r.Storage = []hubtest.Fault{hubtest.Stall(5000)}
	ctx, cancel := context.WithCancel(t.Context())
	r.o.Progress = func(file string, done, _ int64) {
		if file == weightsFile.Path && done == 5000 {
			cancel()
		}
	}
	if _, err := Fetch(ctx, Ref{id, "main"}, r.o); !errors.Is(err, context.Canceled) {
		t.Errorf("a stopped run: %v", err)
	}
	if info, err := os.Stat(part); err != nil || info.Size() != 5000 {
		t.Errorf("the part of a stopped run: %v, %v", info, err)
	}
}

func TestFetch_Errors(t *testing.T) {
	many := func(f hubtest.Fault) []hubtest.Fault { return slices.Repeat([]hubtest.Fault{f}, 50) }
	for name, c := range map[string]struct {
		ask    string
		change func(r *rig)
		want   error
		says   string
	}{
		"no such repository": {"owner/other", nil, ErrNotFound, "spelling"},
		"private":            {id, func(r *rig) { r.Repos[id].Token = "hf_x"; r.o.Token = "hf_y" }, ErrNotFound, "HF_TOKEN may be wrong"},
		"gated":              {id, func(r *rig) { r.Repos[id].Refuse = hubtest.Status(401, "X-Error-Code", "GatedRepo") }, ErrGated, "set HF_TOKEN"},
		"gated with a token": {id, func(r *rig) {
			r.Repos[id].Refuse = hubtest.Status(403, "X-Error-Code", "GatedRepo")
			r.o.Token = "hf_y"
		}, ErrGated, "has not accepted"},
		"forbidden":         {id, func(r *rig) { r.Repos[id].Refuse = hubtest.Status(403) }, ErrForbidden, "HF_TOKEN"},
		"no such revision":  {id + "@nowhere", nil, ErrRevision, "RevisionNotFound"},
		"no such file":      {id, func(r *rig) { r.Resolve = many(hubtest.Status(404, "X-Error-Code", "EntryNotFound")) }, ErrEntry, "config.json"},
		"teapot":            {id, func(r *rig) { r.Resolve = many(hubtest.Status(418)) }, ErrRefused, "418"},
		"busy for ever":     {id, func(r *rig) { r.API = many(hubtest.Status(429)) }, ErrRate, "tried 6 times"},
		"down for ever":     {id, func(r *rig) { r.Resolve = many(hubtest.Status(502)) }, ErrNetwork, "502"},
		"cut for ever":      {id, func(r *rig) { r.Storage = many(hubtest.Cut(0)) }, ErrNetwork, "tried 6 times"},
		"never valid":       {id, func(r *rig) { r.Storage = many(hubtest.Status(403)) }, ErrNetwork, "403"},
		"gone from storage": {id, func(r *rig) { r.Storage = many(hubtest.Status(404)) }, ErrRefused, "404"},
		"stalled for ever":  {id, func(r *rig) { r.Storage = many(hubtest.Stall(0)); r.o.Stall, r.o.Retries = 20*time.Millisecond, 2 }, ErrStalled, "tried 2 times"},
		"always wrong":      {id, func(r *rig) { r.Storage = many(hubtest.Wrong) }, ErrChecksum, "model.safetensors"},
		"no server":         {id, func(r *rig) { r.o.Endpoint = "http://127.0.0.1:1" }, ErrNetwork, "which HF_ENDPOINT names"},
		"no endpoint":       {id, func(r *rig) { r.o.Endpoint = "ftp://a" }, ErrName, "HF_ENDPOINT"},
		"another file": {id, func(r *rig) {
			r.Resolve = []hubtest.Fault{hubtest.None, hubtest.None, hubtest.None, hubtest.None, func(w http.ResponseWriter, q *http.Request, f *hubtest.File) bool {
				w.Header().Set("X-Linked-ETag", `"`+strings.Repeat("ab", 32)+`"`)
				return hubtest.NoRange(w, q, f)
			}}
		}, ErrChanged, "ETag"},
		"another size":    {id, func(r *rig) { r.Storage = many(hubtest.Status(416, "Content-Range", "bytes */5")) }, ErrChanged, "size 5"},
		"round and round": {id, func(r *rig) { r.API = many(hubtest.Status(302, "Location", "?")) }, ErrAnswer, "redirects"},
		"nowhere":         {id, func(r *rig) { r.API = many(hubtest.Status(302, "Location", "file:///etc/passwd")) }, ErrAnswer, "redirects"},
		"no JSON": {id, func(r *rig) {
			r.API = many(func(w http.ResponseWriter, _ *http.Request, _ *hubtest.File) bool {
				fmt.Fprint(w, "<html>")
				return true
			})
		}, ErrAnswer, "JSON"},
		"evil hash": {id, func(r *rig) {
			r.API = []hubtest.Fault{hubtest.None, func(w http.ResponseWriter, _ *http.Request, _ *hubtest.File) bool {
				fmt.Fprint(w, `[{"type":"file","path":"config.json","size":1,"oid":"../../../../etc/cron.d/x"}]`)
				return true
			}}
		}, ErrAnswer, "config.json"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if c.change != nil {
				c.change(r)
			}
			_, err := r.fetch(t, c.ask)
			if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("%v\nwant %v with %q", err, c.want, c.says)
			}
			if c.want != ErrName && !strings.Contains(fmt.Sprint(err), "HF_ENDPOINT") {
				t.Errorf("%v: does not say that a mirror was asked", err)
			}
		})
	}
}

// TestFetch_Token: it goes to the endpoint alone, and nowhere is it told. The
// same holds for signatures.
func TestFetch_Token(t *testing.T) {
	const token = "hf_verySecretToken"
	r := newRig(t)
	r.Repos[id].Token = token
	r.o.Token = token + "\n"
	r.Storage = []hubtest.Fault{hubtest.Cut(10), hubtest.Status(403), hubtest.Stall(0), hubtest.Status(500)}
	r.o.Stall = 50 * time.Millisecond
	repo, err := r.fetch(t, id)
	whole(t, repo, err)
	for _, q := range r.Requests() {
		if q.Storage && q.Token != "" || !q.Storage && q.Token != "Bearer "+token {
			t.Errorf("%+v", q)
		}
	}
	told := r.log.String()
	for _, f := range []hubtest.Fault{hubtest.Status(403), hubtest.Status(404), hubtest.Cut(0), hubtest.Stall(0)} {
		r.o.Cache = t.TempDir()
		r.Storage = slices.Repeat([]hubtest.Fault{f}, 9)
		r.o.Retries = 2
		if _, err = r.fetch(t, id); err == nil {
			t.Fatal("no error")
		}
		told += fmt.Sprintf("%v %+v %#v", err, err, err)
	}
	r.o.Endpoint = "http://user:" + token + "@127.0.0.1:1"
	_, err = r.fetch(t, id)
	told += fmt.Sprint(err) + r.log.String()
	if !strings.Contains(told, "/xet-bridge/") {
		t.Error("the log tells no requests")
	}
	for _, secret := range []string{token, "secret-signature"} {
		if at := strings.Index(told, secret); at >= 0 {
			t.Errorf("told: …%s", told[max(0, at-100):at+len(secret)])
		}
	}
}

// fullDisk has room for so many bytes.
type fullDisk struct {
	part
	room *int
}

func (f fullDisk) WriteAt(b []byte, at int64) (int, error) {
	if *f.room -= len(b); *f.room < 0 {
		return 0, &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	}
	return f.part.WriteAt(b, at)
}

func TestFetch_DiskFull(t *testing.T) {
	r := newRig(t, configFile, weightsFile)
	room := 200_000
	r.o.create = func(name string) (part, error) {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
		return fullDisk{f, &room}, err
	}
	_, err := r.fetch(t, id)
	if !errors.Is(err, ErrDisk) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("%v, want ErrDisk", err)
	}
	var need int
	if _, after, ok := strings.Cut(err.Error(), "still needs "); ok {
		fmt.Sscan(after, &need)
	}
	if need < 300_007-200_000 || need > 300_007 {
		t.Errorf("%v: needs %d of 300007", err, need)
	}
	room = 1 << 20 // space was made
	repo, err := r.fetch(t, id)
	whole(t, repo, err)
}

func TestFetch_Pick(t *testing.T) {
	clip := configFile
	open := text("open_clip_config.json", `{"model_cfg":{},"preprocess_cfg":{}}`)
	timm := text("config.json", `{"architecture":"vit_base_patch32_clip_224"}`)
	for name, c := range map[string]struct {
		files []hubtest.File
		want  []string // weights
		err   error
		says  string
	}{
		"pickle only":         {[]hubtest.File{clip, large("pytorch_model.bin"), large("tf_model.h5"), large("flax_model.msgpack")}, []string{"pytorch_model.bin"}, nil, ""},
		"transformers":        {[]hubtest.File{clip, large("pytorch_model.bin"), large("model.safetensors")}, []string{"model.safetensors"}, nil, ""},
		"one model four ways": {[]hubtest.File{clip, open, large("model.safetensors"), large("open_clip_model.safetensors"), large("open_clip_pytorch_model.bin"), large("pytorch_model.bin")}, []string{"open_clip_model.safetensors"}, nil, ""},
		"bare tower beside":   {[]hubtest.File{timm, open, large("model.safetensors"), large("open_clip_pytorch_model.bin")}, []string{"open_clip_pytorch_model.bin"}, nil, ""},
		"bare tower":          {[]hubtest.File{timm, large("model.safetensors")}, nil, ErrWeights, "describes model.safetensors"},
		"renamed":             {[]hubtest.File{text("config.json", `{"model_cfg":{}}`), large("open_clip_pytorch_model.bin"), large("pytorch_model.bin")}, []string{"open_clip_pytorch_model.bin"}, nil, ""},
		"sharded": {[]hubtest.File{clip, text("model.safetensors.index.json", `{"weight_map":{"a":"model-2.safetensors","b":"model-1.safetensors","c":"model-2.safetensors"}}`),
			large("model-1.safetensors"), large("model-2.safetensors"), large("model-3.safetensors")}, []string{"model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"}, nil, ""},
		"shard missing":    {[]hubtest.File{clip, text("model.safetensors.index.json", `{"weight_map":{"a":"model-9.safetensors"}}`)}, nil, ErrEntry, "model-9"},
		"shard elsewhere":  {[]hubtest.File{clip, text("model.safetensors.index.json", `{"weight_map":{"a":"x/model.safetensors"}}`), large("x/model.safetensors")}, nil, ErrEntry, "x/model"},
		"empty index":      {[]hubtest.File{clip, text("model.safetensors.index.json", `{}`)}, nil, ErrWeights, "no index"},
		"apple's own":      {[]hubtest.File{text("config.json", `{}`), large("mobileclip_s0.pt")}, nil, ErrWeights, "mobileclip_s0.pt"},
		"other frameworks": {[]hubtest.File{clip, large("tf_model.h5")}, nil, ErrWeights, "tf_model.h5"},
		"nothing":          {[]hubtest.File{clip}, nil, ErrWeights, "no weights"},
		"onnx":             {[]hubtest.File{clip, large("onnx/model.onnx")}, nil, ErrONNX, "from: hf:openai/some-clip"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.files...)
			r.Repos[id].Base = "openai/some-clip"
			repo, err := r.fetch(t, id)
			if c.err != nil {
				if !errors.Is(err, c.err) || !strings.Contains(fmt.Sprint(err), c.says) {
					t.Errorf("%v, want %v with %q", err, c.err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := slices.DeleteFunc(repo.Names(), func(n string) bool { return slices.Contains(texts, n) })
			if !slices.Equal(got, c.want) {
				t.Errorf("took %v, want %v", got, c.want)
			}
		})
	}
	// Without a card the owner of known names is told.
	l := &listing{id: "onnx-community/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M-ONNX"}
	if got := l.origin(); got != ": hf:wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M" {
		t.Errorf("origin%s", got)
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]Ref{
		"openai/clip-vit-base-patch32":     {"openai/clip-vit-base-patch32", "main"},
		"a/b.c_d@refs/pr/66":               {"a/b.c_d", "refs/pr/66"},
		"a/b@" + hubtest.Commit:            {"a/b", hubtest.Commit},
		"laion/CLIP-ViT-B-16-laion2B@v1.0": {"laion/CLIP-ViT-B-16-laion2B", "v1.0"},
	} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b..c", "a b/c", "a/b@", "a/b@x?y", "a/b@../x", "a/b@x\n", "a/b@-x", "é/b"} {
		if _, err := Parse(s); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v, want ErrName", s, err)
		}
	}
}

func TestDir(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "a.txt"), []byte("text"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	d, err := Dir(filepath.Join(root))
	if err != nil || !slices.Equal(d.Names(), []string{"a.txt"}) {
		t.Fatalf("%v, %v", d, err)
	}
	if got := contents(t, d, "a.txt"); string(got) != "text" {
		t.Errorf("%q", got)
	}
	for _, name := range []string{"b.txt", "../" + filepath.Base(root) + "/a.txt", "sub/../a.txt", filepath.Join(root, "a.txt"), ""} {
		if _, err := d.Open(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := Dir(filepath.Join(root, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent folder: %v", err)
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 5-9/10", "bytes */10", "bytes 0-0/*", "bytes -1-0/2", "bytes 9223372036854775808-/1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if from, total, ok := contentRange(s); ok && (from < 0 || total < -1) {
			t.Errorf("%q: %d of %d", s, from, total)
		}
	})
}
