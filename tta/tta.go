// Package tta is test-time adaptation on the embeddings of a stream: no
// labels, no gradients, a small bounded state.
//
// An [Adapter] adjusts the scores of one stream; each method has a file and an
// entry in [Methods]. A [Session] is what one picture-in-view has: labels, an
// adapter, and the way from an embedding to probabilities.
//
// Everything here gives the same bits natively and under js/wasm: functions
// come from quant/numeric, products are converted before they are added.
package tta

import "time"

// Space is what an adapter knows of model and labels. It does not change while
// a session runs.
type Space struct {
	Scale       float32     // logits = Scale · cosine (CLIP: 100)
	Temperature float32     // p = softmax(logits/Temperature); 0 means 1
	ImageMean   []float32   // [D] mean embedding of training images; nil if the model has none
	Labels      [][]float32 // [C][D] label embeddings, L2 norm 1

	HasNone bool    // "none of these" is one of the answers
	None    float32 // its logit, the same for every frame

	kernels *kernels       // of the session; nil: none
	metric  func() *Metric // likewise
}

// Frame is one look through the camera.
type Frame struct {
	Time      time.Duration // since the session began; constants of methods are per second
	Embedding []float32     // [D], L2 norm 1; not kept unless copied
	Logits    []float32     // [C], Scale · cosine, and what teaching made of it
	Taught    float32       // share of the labels that the user taught, 0 to 1
	Frozen    bool          // answer, but learn nothing for longer than what is in view now
}

// Adapter adjusts scores from the stream it has seen: no labels, no gradients.
// The order of calls is part of its state, so one goroutine owns it.
// Temperature, softmax and "none of these" come after it, in the Session.
//
// Adapt allocates nothing. Numbers are finite: the Session has checked them.
type Adapter interface {
	Adapt(dst []float32, f Frame) // writes [C] adjusted logits; dst may be f.Logits
	Reset()                       // back to the state before the first call, bit for bit
	AppendState(b []byte) []byte  // bounded; the method's doc states the bound
	Restore(state []byte) error   // what AppendState wrote, checked; after an error nothing has changed
	Report() Report               // what it is doing now, in words and numbers a page can show
}

// Report says what an adapter is doing.
type Report struct {
	Method     string  // its name in the registry
	Entries    int     // exemplars in the caches
	StateBytes int     // bytes of state held: the length of AppendState(nil)
	Shift      float32 // largest change made to a logit in the last frame
	Stickiness float32 // of the persistence prior in the last frame, 0..1; 0: none
	Entered    int     // slot of the cache that the last frame went into, or -1
	Text       string  // one short sentence
}

// Encoder is the model as a Session sees it; *engine.Engine is one.
type Encoder interface {
	ViewSize() int
	View(dst []byte) error
	SetView(rgba []byte) error
	Encode(dst []float32) error
	EmbedText(labels []string) ([][]float32, error)
}
