package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	wazero "lqa/quant/device/native"
	"lqa/quant/engine"
	"lqa/quant/shq"
	"lqa/wasm/proto"
	"lqa/web/site"
	"lqa/web/test/browser"
	"lqa/web/test/client"
)

// What CLIP ViT-B/32 may take, in bytes: the whole file with 4-bit weights of the
// image tower and 8-bit ones of the text side, and what is fetched before the
// first picture is answered with the default labels.
const (
	maxFile  = 115_000_000
	maxFirst = 50_000_000
)

// TestFullSize counts what CLIP ViT-B/32 costs to download, natively and, where
// there is one, in a browser. Its weights are random, whose codes zstd cannot
// shrink. It takes minutes; LQA_FULL=1 runs it.
func TestFullSize(t *testing.T) {
	if os.Getenv("LQA_FULL") == "" {
		t.Skip("set LQA_FULL=1: it makes a file of 112 MB")
	}
	root, err := site.Root(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	d := dirs{site: t.TempDir(), made: t.TempDir()}
	begin := time.Now()
	m, err := d.loadModel(root, "vit-b-32"+withText)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.write(m); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(d.file(m.files[0].url))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("made in %v", time.Since(begin).Round(time.Second))
	t.Logf("file: %d bytes, at most %d", len(file), maxFile)
	if len(file) > maxFile {
		t.Error("too large")
	}
	label := []string{"a blue wooden thing with two wheels"}

	t.Run("native", func(t *testing.T) {
		stream, fetched, requests := 0, 0, 0
		r := counted{bytes.NewReader(file), &stream}
		e, err := engine.Open(r, engine.Options{Host: wazero.New(), Fetch: func(_ context.Context, at int64, size int) ([]byte, error) {
			fetched += size
			requests++
			return file[at : at+int64(size)], nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		logStages(t, e.Manifest())
		if _, err := e.LoadStage(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := e.SetFrame(picture(320, 240, 0), 320, 240); err != nil {
			t.Fatal(err)
		}
		if err := e.Encode(make([]float32, e.Config().Embed)); err != nil {
			t.Fatal(err)
		}
		if _, err := e.EmbedText(m.config.Text.Defaults); err != nil {
			t.Fatal(err)
		}
		t.Logf("before the first prediction: %d bytes, at most %d", stream+fetched, maxFirst)
		if stream+fetched > maxFirst {
			t.Error("too many")
		}
		if _, err := e.LoadStage(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := e.Prepare(context.Background(), label, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := e.EmbedText(label); err != nil {
			t.Fatal(err)
		}
		t.Logf("with the text tower: %d bytes; %q then needs %d bytes in %d requests", stream, label, fetched, requests)
		t.Logf("memory of the kernels: %+v", e.Memory())
	})

	t.Run("chromium", func(t *testing.T) {
		if _, err := browser.Find(); err != nil {
			t.Skip(err)
		}
		if err := site.Build(context.Background(), root, d.site, os.Stderr); err != nil {
			t.Fatal(err)
		}
		server := site.NewServer(d.site, nil)
		server.Handle("/full.shq", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"full"`)
			http.ServeContent(line{w}, r, "", time.Time{}, bytes.NewReader(file))
		}))
		server.Replace(client.BlankPath, []byte(client.Blank))
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: server, ReadHeaderTimeout: 10 * time.Second}
		go s.Serve(ln)
		defer s.Close()
		b, err := browser.Start(browser.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		p, err := b.NewPage()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Open("http://" + ln.Addr().String() + client.BlankPath); err != nil {
			t.Fatal(err)
		}
		eval := func(script string, result any) {
			t.Helper()
			if err := p.Eval(script, result); err != nil {
				t.Fatal(err)
			}
		}
		sent := func() (n int64) {
			for _, r := range server.Requests() {
				if r.Path == "/full.shq" {
					n += r.Bytes
				}
			}
			return n
		}
		eval(client.Script, nil)
		// Asks as soon as the image tower is there, as the page does.
		eval(`globalThis.first = new Promise((resolve) => lqa.worker.addEventListener('message', async ({data}) => {
			if (data.kind !== 'loaded' || data.stage !== 'image') return;
			await lqa.ask({kind: 'open', session: 'a', labels: data.defaults});
			resolve(await lqa.ask({kind: 'frame', session: 'a'}, lqa.plain(640, 480, 'teal')));
		}));
		globalThis.text = lqa.ask({kind: 'load', url: '/full.shq'}); 0`, nil)
		var r proto.Reply
		if eval("first", &r); r.Kind != proto.Result {
			t.Fatalf("%+v", r)
		}
		// Requests count when they end: the text tower's has just begun.
		t.Logf("before the first prediction the server had sent %d bytes, at most %d", sent(), maxFirst)
		if sent() > maxFirst {
			t.Error("too many")
		}
		if eval("text", &r); r.Kind != proto.Loaded {
			t.Fatalf("%+v", r)
		}
		before := sent()
		if eval(`lqa.ask({kind: 'open', session: 'a', labels: ['`+label[0]+`']})`, &r); r.Kind != proto.Opened {
			t.Fatalf("%+v", r)
		}
		t.Logf("with the text tower: %d bytes; %q then needs %d bytes", before, label, sent()-before)
	})
}

// line is a connection of 100 Mbit/s: without it buffers of megabytes fill before
// a request can be taken back.
type line struct{ http.ResponseWriter }

func (l line) Write(b []byte) (int, error) {
	time.Sleep(time.Duration(len(b)) * time.Second / 12_500_000)
	return l.ResponseWriter.Write(b)
}

// logStages tells how large a file's stages are.
func logStages(t *testing.T, m *shq.Manifest) {
	t.Logf("manifest: %d bytes", m.Frames[0].Offset)
	for s, from := 0, m.Frames[0].Offset; s < m.Stages(); s++ {
		t.Logf("stage %d: %d bytes", s, m.StageEnd(s)-from)
		from = m.StageEnd(s)
	}
}

// counted counts what is read.
type counted struct {
	io.Reader
	n *int
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	*c.n += n
	return n, err
}
