// Package proto is the page ⇄ engine contract. Its twin web/protocol.d.ts is
// checked against it by TestTwin. Raise Version when a reader of the old shape
// would be wrong; a new optional field does not count.
//
// A message is a JSON object. Beside the fields below travel, as they are: with
// Frame an image (VideoFrame, ImageBitmap or ImageData), transferred; with
// Restore and Saved a state (Uint8Array); with Taught, and with Result in a
// session that is watched, the model's view (ImageData).
package proto

// Version of the protocol.
const Version = 1

// Kind names a message. A request carries an id; the reply carries it back.
type Kind string

// Requests, page to engine, and what answers them.
const (
	Hello  Kind = "hello"  // both ways, first; unequal versions end the session
	Load   Kind = "load"   // → progress*, loaded (image stage), loaded (text stage); or error
	Open   Kind = "open"   // → opened: a session with labels and an adapter
	Labels Kind = "labels" // → opened: other labels for a session; its adapter starts over
	Frame  Kind = "frame"  // → result
	Adapt  Kind = "adapt"  // → done: chooses the session's adapter
	Reset  Kind = "reset"  // → done: forgets what the adapter has learned
	Close  Kind = "close"  // → done: ends a session

	Teach   Kind = "teach"   // → taught: the session's newest picture is an example of the label
	Unteach Kind = "unteach" // → taught: takes an example back
	Freeze  Kind = "freeze"  // → done: answers go on, learning stops or goes on
	Watch   Kind = "watch"   // → done: results tell who voted, and bring views that enter the cache; with an effect, all
	Effect  Kind = "effect"  // → done: makes the model's view hard
	Save    Kind = "save"    // → saved: all that the session has learned and was taught
	Restore Kind = "restore" // → restored: takes up what was saved for the same model and labels
)

// Replies, engine to page.
const (
	Progress Kind = "progress"
	Loaded   Kind = "loaded"
	Opened   Kind = "opened"
	Result   Kind = "result"
	Dropped  Kind = "dropped" // a frame, or labels, that newer ones of the session overtook
	Done     Kind = "done"
	Taught   Kind = "taught"
	Saved    Kind = "saved"
	Restored Kind = "restored"
	Failed   Kind = "error"
)

// Request is any message from the page.
type Request struct {
	Kind      Kind     `json:"kind"`
	ID        int      `json:"id"`
	Version   int      `json:"version,omitempty"`   // hello
	URL       string   `json:"url,omitempty"`       // load
	Integrity string   `json:"integrity,omitempty"` // load: hex SHA-256 of the manifest
	SIMD      string   `json:"simd,omitempty"`      // load: simd128 or relaxed; "": whichever is fastest
	Threads   int      `json:"threads,omitempty"`   // load: at most so many; 0: as the engine sees fit
	Session   string   `json:"session,omitempty"`   // all but hello and load
	Labels    []string `json:"labels,omitempty"`    // open, labels
	Template  string   `json:"template,omitempty"`  // open, labels: "{}" stands for the label; "" means the model's own
	Adapter   string   `json:"adapter,omitempty"`   // open, adapt: a name of the registry
	Time      float64  `json:"time,omitempty"`      // frame: milliseconds since the session began
	Still     bool     `json:"still,omitempty"`     // frame: a single picture; the adapter neither learns nor answers
	Label     string   `json:"label,omitempty"`     // teach: one of the session's
	Example   int      `json:"example,omitempty"`   // unteach: its number
	Taught    bool     `json:"taught,omitempty"`    // reset: forgets what was taught too
	On        bool     `json:"on,omitempty"`        // freeze, watch
	Effect    string   `json:"effect,omitempty"`    // effect: one of the model's list; "": none
	Strength  int      `json:"strength,omitempty"`  // effect: 1 to 5
}

// Reply is any message from the engine.
type Reply struct {
	Kind    Kind   `json:"kind"`
	ID      int    `json:"id"`
	Version int    `json:"version,omitempty"` // hello
	Session string `json:"session,omitempty"`

	Memory *Memory `json:"memory,omitempty"` // loaded, result

	*ProgressInfo
	*ModelInfo
	*SessionInfo
	*Lessons
	*Answer
	*Error
}

// ProgressInfo tells how far loading has come.
type ProgressInfo struct {
	Phase       string `json:"phase"` // fetch (each piece is verified as it comes), warm-up
	LoadedBytes int64  `json:"loadedBytes"`
	TotalBytes  int64  `json:"totalBytes"`
}

// ModelInfo describes the model; it comes with loaded.
type ModelInfo struct {
	Stage     string   `json:"stage"` // image: default labels can be answered; text: any label
	Model     string   `json:"model"`
	Hash      string   `json:"hash"`    // hex SHA-256 of the manifest
	Simd      string   `json:"simd"`    // simd128 or relaxed
	Threads   int      `json:"threads"` // that run the kernels; 1 where the page is not isolated
	Kernels   string   `json:"kernels"` // how the matrix products run, for people
	Defaults  []string `json:"defaults"`
	Templates []string `json:"templates"`
	Adapters  []string `json:"adapters"`
	Methods   []Method `json:"methods"` // the adapters once more, for people
	Effects   []string `json:"effects"`
	LoadMS    float64  `json:"loadMS"`
}

// Method is an adapter in words.
type Method struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	Doc   string `json:"doc"` // one sentence
}

// SessionInfo answers open and labels.
type SessionInfo struct {
	Labels  []string `json:"labels"` // as used: trimmed, without doubles
	Known   []bool   `json:"known"`  // stands in the model's ready table
	EmbedMS float64  `json:"embedMS"`
}

// Lessons are what a session was taught; they come with taught and restored.
type Lessons struct {
	Taught   []Example `json:"taught"`   // oldest first
	Replaced int       `json:"replaced"` // number of the example that made room for the newest; 0: none
	Adapter  string    `json:"adapter"`  // of the session
}

// Example is one picture that was taught.
type Example struct {
	Example int    `json:"example"` // its number, from 1; never given again
	Label   string `json:"label"`
}

// Answer is the result of one frame.
type Answer struct {
	ZeroShot Scores  `json:"zeroShot"`
	Adapted  Scores  `json:"adapted"`
	Time     float64 `json:"time"` // of the frame, as sent
	ViewMS   float64 `json:"viewMS"`
	EncodeMS float64 `json:"encodeMS"`
	AdaptMS  float64 `json:"adaptMS"`
	Report   Report  `json:"report"`
}

// Scores are best first; None is the probability of "none of these".
type Scores struct {
	Scores []Score `json:"scores"`
	None   float32 `json:"none"`
}

// Score is one label's probability, 0..1.
type Score struct {
	Label string  `json:"label"`
	Score float32 `json:"score"`
}

// Memory is in bytes, but for mallocs.
type Memory struct {
	Kernel      int `json:"kernel"`
	Weights     int `json:"weights"`
	Activations int `json:"activations"`
	GoHeap      int `json:"goHeap"`
	Mallocs     int `json:"mallocs"` // objects that Go has ever allocated; like goHeap up to a second old
	State       int `json:"state"`
}

// Report is what the adapter is doing.
type Report struct {
	Method  string  `json:"method"`
	Entries int     `json:"entries"`
	Shift   float32 `json:"shift"`
	Text    string  `json:"text"`

	Stickiness float32 `json:"stickiness"`      // of the answer before, 0 to 1
	Entered    int     `json:"entered"`         // slot of the cache that took this frame in, or -1
	Voted      []Vote  `json:"voted,omitempty"` // where watched: the weightiest, at most eight
}

// Vote is what a frame of the cache, or a taught one, added to its label.
type Vote struct {
	Slot   int     `json:"slot"` // of the cache; of a taught one, its example's number
	Label  string  `json:"label"`
	Taught bool    `json:"taught"`
	Weight float32 `json:"weight"` // in logits
}

// Error has a code that programs branch on and a message that people read.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Code names a failure.
type Code string

// Codes of errors.
const (
	VersionMismatch Code = "proto.version"
	BadMessage      Code = "proto.bad-message"
	UnknownSession  Code = "session.unknown"
	NoLabels        Code = "labels.none"
	TooManyLabels   Code = "labels.too-many"
	BadAdapter      Code = "adapter.unknown"
	BadEffect       Code = "effect.unknown" // or its strength
	UnknownLabel    Code = "teach.label"    // the session does not have it
	UnknownExample  Code = "teach.example"  // taken back already, or replaced
	NothingSeen     Code = "teach.nothing"  // no picture was looked at yet
	BadState        Code = "state.bad"      // damaged, or of other labels or another model
	TextNotReady    Code = "text.not-ready"
	FetchFailed     Code = "load.fetch"
	FileChanged     Code = "load.changed" // on the server, since its beginning was read
	NotSHQ          Code = "shq.magic"
	SHQVersion      Code = "shq.version"
	Truncated       Code = "shq.truncated"
	Corrupt         Code = "shq.corrupt"
	TooLarge        Code = "shq.too-large"
	IntegrityFailed Code = "shq.integrity"
	NoSIMD          Code = "device.no-simd"
	NoMemory        Code = "device.memory"
	BadImage        Code = "image.bad"
	NotLoaded       Code = "load.not-loaded"
	EngineFailed    Code = "load.engine" // the engine itself did not start, or ended
	Internal        Code = "internal"
)

// Codes of errors that arise in the page or the widget, before the engine is
// asked.
const (
	CameraDenied      Code = "camera.denied"
	CameraNone        Code = "camera.none"
	CameraBusy        Code = "camera.busy"
	CameraUnfit       Code = "camera.unfit"       // the one that was asked for cannot do it
	CameraInsecure    Code = "camera.insecure"    // not https, not localhost
	CameraUnsupported Code = "camera.unsupported" // the browser has no camera interface
	CameraLost        Code = "camera.lost"        // unplugged, or taken away while it ran
	CameraFailed      Code = "camera.failed"
	FileUnreadable    Code = "file.unreadable" // neither a picture nor a video that the browser can open
)
