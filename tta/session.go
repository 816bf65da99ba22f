package tta

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"

	"lqa/quant/numeric"
)

// MaxLabels bounds the labels of a session. 4,096 of width 512 take 8 MB of
// embeddings and up to 11 MB of adapter state.
const MaxLabels = 4096

// MaxWidth bounds the width of embeddings; integer sums of int8 products stay
// exact far beyond it.
const MaxWidth = 1 << 14

// Errors of a Session, beside ErrAdapter and ErrState.
var (
	ErrNoLabels      = errors.New("tta: no labels")
	ErrTooManyLabels = errors.New("tta: too many labels")
	ErrLabels        = errors.New("tta: labels not clean") // empty or double: use CleanLabels
	ErrDimension     = errors.New("tta: wrong dimension")
	ErrNotFinite     = errors.New("tta: not a finite number")
	ErrNorm          = errors.New("tta: embedding longer than 1")
)

// SessionConfig configures NewSession.
type SessionConfig struct {
	// Labels must be clean (CleanLabels) where Embeddings are given; otherwise
	// the session cleans and embeds them.
	Labels     []string
	Embeddings [][]float32 // [C][D], L2 norm 1; nil: the encoder makes them

	Scale       float32   // logits = Scale · cosine
	Temperature float32   // divides logits, adapted or not, before the softmax; 0 means 1
	NoneCosine  *float32  // cosine at which "none of these" is as likely as a label; nil: no such answer
	ImageMean   []float32 // [D], or nil
	Adapter     string    // a name of Methods; "" means zeroshot

	// Metric is by what frames and taught examples are compared; it is asked for
	// when something is taught. nil, or what it returns: by their cosine.
	Metric func() *Metric

	// Kernels makes those for many labels; without, or where it fails, plain Go
	// does it. nil: none.
	Kernels func(KernelShape) (Kernels, error)
}

// Scores are the answer to one frame: P [C] in the order of the labels and
// None sum to 1.
type Scores struct {
	P    []float32
	None float32 // 0 where the session has no "none of these"
}

// Best returns the likeliest label's index (the first of equals), or -1 where
// "none of these" is likelier than all of them.
func (s Scores) Best() int {
	best := -1
	top := s.None
	for i, p := range s.P {
		if p > top {
			best, top = i, p
		}
	}
	return best
}

// Result is what Frame answers. A caller reuses it: its slices are written in
// place and grow only when they are too short.
type Result struct {
	ZeroShot Scores
	Adapted  Scores
	Report   Report
}

// Session is what one picture-in-view has: labels, an adapter, and the way from
// an embedding to probabilities. Many sessions share a model. One goroutine
// owns a session.
type Session struct {
	labels      []string
	space       Space
	table       []float32 // [C][D], what space.Labels points into
	fingerprint [fingerprintBytes]byte

	adapter Adapter
	name    string // of the adapter
	taught  *teaching
	frozen  bool
	kernels kernels

	logits   []float32 // [C]
	adjusted []float32 // [C]
	p        []float32 // [C+1]
}

// NewSession checks c and returns a session whose adapter has seen nothing. enc
// embeds the labels where c brings no embeddings and may be nil where it does.
// What c points to is copied.
//
// Errors: ErrNoLabels, ErrTooManyLabels, ErrLabels, ErrDimension, ErrNotFinite,
// ErrNorm, ErrAdapter, and what the encoder returns.
func NewSession(enc Encoder, c SessionConfig) (*Session, error) {
	clean := CleanLabels(c.Labels)
	switch {
	case len(clean) == 0:
		return nil, ErrNoLabels
	case len(clean) > MaxLabels:
		return nil, fmt.Errorf("%w: %d, at most %d", ErrTooManyLabels, len(clean), MaxLabels)
	}
	if c.Temperature == 0 {
		c.Temperature = 1
	}
	if !(c.Scale > 0 && c.Scale <= 1e4) || !(c.Temperature >= 1e-3 && c.Temperature <= 1e4) {
		return nil, fmt.Errorf("%w: scale %v, temperature %v", ErrNotFinite, c.Scale, c.Temperature)
	}
	if c.NoneCosine != nil {
		if none := *c.NoneCosine; !(none >= -1 && none <= 1) {
			return nil, fmt.Errorf("%w: cosine of none %v", ErrNotFinite, none)
		}
	}
	embeddings := c.Embeddings
	if embeddings == nil {
		if enc == nil {
			return nil, fmt.Errorf("%w: neither embeddings nor an encoder", ErrDimension)
		}
		var err error
		if embeddings, err = enc.EmbedText(clean); err != nil {
			return nil, err
		}
	} else if len(clean) != len(c.Labels) {
		return nil, fmt.Errorf("%w: %d of %d are empty or double", ErrLabels, len(c.Labels)-len(clean), len(c.Labels))
	}
	if len(embeddings) != len(clean) {
		return nil, fmt.Errorf("%w: %d embeddings for %d labels", ErrDimension, len(embeddings), len(clean))
	}
	d := len(embeddings[0])
	if d < 1 || d > MaxWidth {
		return nil, fmt.Errorf("%w: width %d", ErrDimension, d)
	}

	s := &Session{labels: clean, table: make([]float32, 0, len(clean)*d)}
	for i, e := range embeddings {
		if err := checkEmbedding(e, d); err != nil {
			return nil, fmt.Errorf("label %q: %w", clean[i], err)
		}
		s.table = append(s.table, e...)
	}
	s.space = Space{Scale: c.Scale, Labels: make([][]float32, len(clean))}
	for i := range clean {
		s.space.Labels[i] = s.table[i*d : (i+1)*d : (i+1)*d]
	}
	if c.ImageMean != nil {
		if err := checkEmbedding(c.ImageMean, d); err != nil {
			return nil, fmt.Errorf("image mean: %w", err)
		}
		s.space.ImageMean = slices.Clone(c.ImageMean)
	}
	s.space.Temperature, s.space.metric = c.Temperature, c.Metric
	if c.NoneCosine != nil {
		s.space.HasNone, s.space.None = true, float32(c.Scale**c.NoneCosine)
	}
	if c.Kernels != nil && len(clean) >= kernelLabels {
		first := lqaFirst(len(clean))
		if k, err := c.Kernels(KernelShape{Labels: s.space.Labels, Slots: first + lqaNegatives*len(clean),
			Betas: []Beta{{0, lqaBeta}, {first, lqaNegBeta}}}); err == nil {
			s.kernels.k = k
		}
	}
	s.space.kernels = &s.kernels
	s.logits = make([]float32, len(clean))
	s.adjusted = make([]float32, len(clean))
	s.p = make([]float32, len(clean)+1)
	s.taught = newTeaching(&s.space)
	s.fingerprint = fingerprintOf(clean, s.table)
	if c.Adapter == "" {
		c.Adapter = "zeroshot"
	}
	if err := s.SetAdapter(c.Adapter); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close frees the session's kernels. What comes after it is worked out in plain
// Go.
func (s *Session) Close() { s.kernels.drop() }

// KernelBytes is the memory that the session's kernels hold.
func (s *Session) KernelBytes() int {
	if s.kernels.k == nil {
		return 0
	}
	return s.kernels.k.Bytes()
}

// Labels returns the labels as used, in the order of Scores. It must not be
// changed.
func (s *Session) Labels() []string { return s.labels }

// Width is D.
func (s *Session) Width() int { return len(s.space.Labels[0]) }

// Adapter is the name of the session's adapter.
func (s *Session) Adapter() string { return s.name }

// SetAdapter gives the session an adapter that has seen nothing; what was taught
// stays. Naming the one it has changes nothing.
func (s *Session) SetAdapter(name string) error {
	if s.adapter != nil && name == s.name {
		return nil
	}
	a, err := New(name, s.space)
	if err != nil {
		return err
	}
	s.take(a, name)
	return nil
}

func (s *Session) take(a Adapter, name string) {
	s.adapter, s.name = a, name
	s.kernels.owner = nil // it would keep the adapter before in memory
}

// Reset makes the adapter forget what it has seen. What was taught stays.
func (s *Session) Reset() { s.adapter.Reset() }

// ResetAll forgets what was seen and what was taught.
func (s *Session) ResetAll() {
	s.adapter.Reset()
	next := s.taught.next // identifiers are not used again
	s.taught = newTeaching(&s.space)
	s.taught.next = next
}

// Freeze stops or resumes learning from the stream. A frozen session answers as
// before and can be taught; only its belief about what is in view now goes on.
func (s *Session) Freeze(on bool) { s.frozen = on }

// Frozen says whether the session is.
func (s *Session) Frozen() bool { return s.frozen }

// Report says what the adapter is doing.
func (s *Session) Report() Report { return s.adapter.Report() }

// Frame answers one frame of the stream and lets the adapter learn from it. t
// counts from the session's beginning; embedding [D] has L2 norm 1 and is not
// kept. Once out has its size, nothing is allocated.
//
// Errors: ErrDimension, ErrNotFinite, ErrNorm; out and adapter are then as
// before.
func (s *Session) Frame(t time.Duration, embedding []float32, out *Result) error {
	if err := s.look(embedding, out); err != nil {
		return err
	}
	s.taught.apply(s.logits, embedding)
	s.adapter.Adapt(s.adjusted, Frame{Time: t, Embedding: embedding, Logits: s.logits, Taught: s.taught.share(), Frozen: s.frozen})
	s.probabilities(&out.Adapted, s.adjusted)
	out.Report = s.adapter.Report()
	return nil
}

// Still answers a single picture that is not part of the stream: the adapter
// neither learns nor answers, and Adapted differs from ZeroShot only by what was
// taught. Errors are Frame's.
func (s *Session) Still(embedding []float32, out *Result) error {
	if err := s.look(embedding, out); err != nil {
		return err
	}
	s.taught.apply(s.logits, embedding)
	s.probabilities(&out.Adapted, s.logits)
	out.Report = s.adapter.Report()
	return nil
}

func (s *Session) look(embedding []float32, out *Result) error {
	if err := checkEmbedding(embedding, s.Width()); err != nil {
		return err
	}
	s.kernels.cosines(s.logits, s.table, embedding)
	for i, c := range s.logits {
		s.logits[i] = float32(s.space.Scale * c)
	}
	s.probabilities(&out.ZeroShot, s.logits)
	return nil
}

// probabilities is softmax((logits, none)/temperature).
func (s *Session) probabilities(dst *Scores, logits []float32) {
	s.space.posterior(s.p, logits)
	dst.P = append(dst.P[:0], s.p[:len(logits)]...)
	dst.None = s.p[len(logits)]
}

// cosines writes dst[c] = numeric.Dot(table[c], f), bit for bit. Four labels at
// a time hide the latency of the additions, which must stay in order.
func cosines(dst, table, f []float32) {
	d := len(f)
	c := 0
	for ; c+4 <= len(dst); c += 4 {
		r0, r1 := table[c*d:][:d], table[(c+1)*d:][:d]
		r2, r3 := table[(c+2)*d:][:d], table[(c+3)*d:][:d]
		var y0, y1, y2, y3 float32
		for k, x := range f {
			y0 += float32(r0[k] * x)
			y1 += float32(r1[k] * x)
			y2 += float32(r2[k] * x)
			y3 += float32(r3[k] * x)
		}
		dst[c], dst[c+1], dst[c+2], dst[c+3] = y0, y1, y2, y3
	}
	for ; c < len(dst); c++ {
		dst[c] = numeric.Dot(table[c*d:][:d], f)
	}
}

// checkEmbedding accepts finite vectors no longer than 1, the zero vector
// among them.
func checkEmbedding(e []float32, d int) error {
	if len(e) != d {
		return fmt.Errorf("%w: %d values, not %d", ErrDimension, len(e), d)
	}
	var square float32
	for i, v := range e {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("%w: embedding[%d] is %v", ErrNotFinite, i, v)
		}
		square += float32(v * v)
	}
	if !(square <= 1.02) { // a norm of 1, rounded to int8, stays below
		return fmt.Errorf("%w: squared length %v", ErrNorm, square)
	}
	return nil
}

// fingerprintBytes are enough to tell label lists and models apart; they guard
// against mistakes, not against forgery.
const fingerprintBytes = 8

// fingerprintOf binds a state to labels and, through their embeddings, to the
// model.
func fingerprintOf(labels []string, table []float32) (f [fingerprintBytes]byte) {
	h := sha256.New()
	var b []byte
	for _, l := range labels {
		b = append(append(b[:0], l...), '\n') // clean labels have no line ends
		h.Write(b)
	}
	for _, v := range table {
		h.Write(binary.LittleEndian.AppendUint32(b[:0], math.Float32bits(v)))
	}
	copy(f[:], h.Sum(nil))
	return f
}

// A session's state, little-endian: "TTAS", version u8, length of the adapter's
// name u8 and the name, fingerprint [8]byte, what was taught, length of the
// adapter's state u32 and that state, CRC-32 (IEEE) u32 of all before.
const (
	stateMagic   = "TTAS"
	stateVersion = 2
)

// AppendState appends what the session has learned to b: at most 64 bytes more
// than the adapter's state and 9+D for each taught example.
func (s *Session) AppendState(b []byte) []byte {
	start := len(b)
	b = append(b, stateMagic...)
	b = append(b, stateVersion, byte(len(s.name)))
	b = append(b, s.name...)
	b = append(b, s.fingerprint[:]...)
	b = append(s.taught.appendState(b), 0, 0, 0, 0)
	body := len(b)
	b = s.adapter.AppendState(b)
	binary.LittleEndian.PutUint32(b[body-4:], uint32(len(b)-body))
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b[start:]))
}

// Restore takes up what AppendState wrote for the same labels on the same
// model, the choice of adapter included. Errors are ErrState and ErrAdapter;
// the session is then as before.
func (s *Session) Restore(state []byte) error {
	const fixed = len(stateMagic) + 2 + fingerprintBytes + 4 + 4
	if len(state) < fixed || string(state[:4]) != stateMagic {
		return fmt.Errorf("%w: not a session's state", ErrState)
	}
	if state[4] != stateVersion {
		return fmt.Errorf("%w: version %d, not %d", ErrState, state[4], stateVersion)
	}
	sum := len(state) - 4
	if crc32.ChecksumIEEE(state[:sum]) != binary.LittleEndian.Uint32(state[sum:]) {
		return fmt.Errorf("%w: damaged", ErrState)
	}
	n := int(state[5])
	if len(state) < fixed+n {
		return fmt.Errorf("%w: %w", ErrState, errShort)
	}
	name, rest := string(state[6:6+n]), state[6+n:sum]
	if [fingerprintBytes]byte(rest) != s.fingerprint {
		return fmt.Errorf("%w: of other labels or another model", ErrState)
	}
	taught, rest, err := readTeaching(&s.space, rest[fingerprintBytes:])
	if err != nil {
		return err
	}
	if len(rest) < 4 || uint64(binary.LittleEndian.Uint32(rest)) != uint64(len(rest)-4) {
		return fmt.Errorf("%w: wrong length", ErrState)
	}
	a, err := New(name, s.space)
	if err != nil {
		return err
	}
	if err := a.Restore(rest[4:]); err != nil {
		return err
	}
	s.take(a, name)
	s.taught = taught
	return nil
}
