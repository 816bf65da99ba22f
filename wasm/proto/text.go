package proto

import "lqa/quant/json"

// The messages as JSON text, by hand: reflection would be a tenth of the
// download and most of a frame's allocations. Tests hold this file to the
// fields' tags.

// Read reads a request. Unknown keys are ignored.
func (q *Request) Read(r *json.Reader) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "kind":
			q.Kind = Kind(r.String())
		case "id":
			q.ID = r.Int()
		case "version":
			q.Version = r.Int()
		case "url":
			q.URL = r.String()
		case "integrity":
			q.Integrity = r.String()
		case "simd":
			q.SIMD = r.String()
		case "threads":
			q.Threads = r.Int()
		case "session":
			q.Session = r.String()
		case "labels":
			q.Labels = r.Strings()
		case "template":
			q.Template = r.String()
		case "adapter":
			q.Adapter = r.String()
		case "time":
			q.Time = r.Float64()
		case "still":
			q.Still = r.Bool()
		case "label":
			q.Label = r.String()
		case "example":
			q.Example = r.Int()
		case "taught":
			q.Taught = r.Bool()
		case "on":
			q.On = r.Bool()
		case "effect":
			q.Effect = r.String()
		case "strength":
			q.Strength = r.Int()
		}
	})
}

// Write writes a request.
func (q *Request) Write(w *json.Writer) {
	w.Open('{')
	text(w, "kind", string(q.Kind))
	whole(w, "id", q.ID)
	count(w, "version", q.Version)
	optional(w, "url", q.URL)
	optional(w, "integrity", q.Integrity)
	optional(w, "simd", q.SIMD)
	count(w, "threads", q.Threads)
	optional(w, "session", q.Session)
	if len(q.Labels) > 0 {
		texts(w, "labels", q.Labels)
	}
	optional(w, "template", q.Template)
	optional(w, "adapter", q.Adapter)
	if q.Time != 0 {
		number(w, "time", q.Time)
	}
	truth(w, "still", q.Still)
	optional(w, "label", q.Label)
	count(w, "example", q.Example)
	truth(w, "taught", q.Taught)
	truth(w, "on", q.On)
	optional(w, "effect", q.Effect)
	count(w, "strength", q.Strength)
	w.Close('}')
}

// Write writes a reply.
func (m *Reply) Write(w *json.Writer) {
	w.Open('{')
	text(w, "kind", string(m.Kind))
	whole(w, "id", m.ID)
	count(w, "version", m.Version)
	optional(w, "session", m.Session)
	if m := m.Memory; m != nil {
		w.Key("memory")
		w.Open('{')
		whole(w, "kernel", m.Kernel)
		whole(w, "weights", m.Weights)
		whole(w, "activations", m.Activations)
		whole(w, "goHeap", m.GoHeap)
		whole(w, "mallocs", m.Mallocs)
		whole(w, "state", m.State)
		w.Close('}')
	}
	if p := m.ProgressInfo; p != nil {
		text(w, "phase", p.Phase)
		w.Key("loadedBytes")
		w.Int(p.LoadedBytes)
		w.Key("totalBytes")
		w.Int(p.TotalBytes)
	}
	if i := m.ModelInfo; i != nil {
		text(w, "stage", i.Stage)
		text(w, "model", i.Model)
		text(w, "hash", i.Hash)
		text(w, "simd", i.Simd)
		whole(w, "threads", i.Threads)
		text(w, "kernels", i.Kernels)
		texts(w, "defaults", i.Defaults)
		texts(w, "templates", i.Templates)
		texts(w, "adapters", i.Adapters)
		w.Key("methods")
		w.Open('[')
		for _, v := range i.Methods {
			w.Open('{')
			text(w, "name", v.Name)
			text(w, "title", v.Title)
			text(w, "doc", v.Doc)
			w.Close('}')
		}
		w.Close(']')
		texts(w, "effects", i.Effects)
		number(w, "loadMS", i.LoadMS)
	}
	if i := m.SessionInfo; i != nil {
		texts(w, "labels", i.Labels)
		w.Key("known")
		w.Open('[')
		for _, k := range i.Known {
			w.Bool(k)
		}
		w.Close(']')
		number(w, "embedMS", i.EmbedMS)
	}
	if l := m.Lessons; l != nil {
		w.Key("taught")
		w.Open('[')
		for _, v := range l.Taught {
			w.Open('{')
			whole(w, "example", v.Example)
			text(w, "label", v.Label)
			w.Close('}')
		}
		w.Close(']')
		whole(w, "replaced", l.Replaced)
		text(w, "adapter", l.Adapter)
	}
	if a := m.Answer; a != nil {
		a.ZeroShot.write(w, "zeroShot")
		a.Adapted.write(w, "adapted")
		number(w, "time", a.Time)
		number(w, "viewMS", a.ViewMS)
		number(w, "encodeMS", a.EncodeMS)
		number(w, "adaptMS", a.AdaptMS)
		w.Key("report")
		w.Open('{')
		text(w, "method", a.Report.Method)
		whole(w, "entries", a.Report.Entries)
		single(w, "shift", a.Report.Shift)
		text(w, "text", a.Report.Text)
		single(w, "stickiness", a.Report.Stickiness)
		whole(w, "entered", a.Report.Entered)
		if len(a.Report.Voted) > 0 {
			w.Key("voted")
			w.Open('[')
			for i := range a.Report.Voted {
				v := &a.Report.Voted[i]
				w.Open('{')
				whole(w, "slot", v.Slot)
				text(w, "label", v.Label)
				w.Key("taught")
				w.Bool(v.Taught)
				single(w, "weight", v.Weight)
				w.Close('}')
			}
			w.Close(']')
		}
		w.Close('}')
	}
	if e := m.Error; e != nil {
		text(w, "code", string(e.Code))
		text(w, "message", e.Message)
	}
	w.Close('}')
}

func (s *Scores) write(w *json.Writer, key string) {
	w.Key(key)
	w.Open('{')
	w.Key("scores")
	w.Open('[')
	for i := range s.Scores {
		w.Open('{')
		text(w, "label", s.Scores[i].Label)
		single(w, "score", s.Scores[i].Score)
		w.Close('}')
	}
	w.Close(']')
	single(w, "none", s.None)
	w.Close('}')
}

func text(w *json.Writer, key, v string) {
	w.Key(key)
	w.String(v)
}

func optional(w *json.Writer, key, v string) {
	if v != "" {
		text(w, key, v)
	}
}

func texts(w *json.Writer, key string, v []string) {
	w.Key(key)
	w.Strings(v)
}

func whole(w *json.Writer, key string, v int) {
	w.Key(key)
	w.Int(int64(v))
}

// count is a whole number that is left out where it is 0.
func count(w *json.Writer, key string, v int) {
	if v != 0 {
		whole(w, key, v)
	}
}

func truth(w *json.Writer, key string, v bool) {
	if v {
		w.Key(key)
		w.Bool(true)
	}
}

func single(w *json.Writer, key string, v float32) {
	w.Key(key)
	w.Float32(v)
}

func number(w *json.Writer, key string, v float64) {
	w.Key(key)
	w.Float64(v)
}

// Read reads a reply; its parts come to be with their first key. What teaching
// is about (Methods, Lessons, Voted) it leaves out: web/learn.js reads that, and
// each key is part of the download.
func (m *Reply) Read(r *json.Reader) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "kind":
			m.Kind = Kind(r.String())
		case "id":
			m.ID = r.Int()
		case "version":
			m.Version = r.Int()
		case "session":
			m.Session = r.String()
		case "memory":
			part(&m.Memory).read(r)
		case "phase":
			part(&m.ProgressInfo).Phase = r.String()
		case "loadedBytes":
			part(&m.ProgressInfo).LoadedBytes = r.Int64()
		case "totalBytes":
			part(&m.ProgressInfo).TotalBytes = r.Int64()
		case "stage":
			part(&m.ModelInfo).Stage = r.String()
		case "model":
			part(&m.ModelInfo).Model = r.String()
		case "hash":
			part(&m.ModelInfo).Hash = r.String()
		case "simd":
			part(&m.ModelInfo).Simd = r.String()
		case "threads":
			part(&m.ModelInfo).Threads = r.Int()
		case "kernels":
			part(&m.ModelInfo).Kernels = r.String()
		case "defaults":
			part(&m.ModelInfo).Defaults = r.Strings()
		case "templates":
			part(&m.ModelInfo).Templates = r.Strings()
		case "adapters":
			part(&m.ModelInfo).Adapters = r.Strings()
		case "effects":
			part(&m.ModelInfo).Effects = r.Strings()
		case "loadMS":
			part(&m.ModelInfo).LoadMS = r.Float64()
		case "labels":
			part(&m.SessionInfo).Labels = r.Strings()
		case "known":
			i := part(&m.SessionInfo)
			i.Known = []bool{}
			r.Array(func() { i.Known = append(i.Known, r.Bool()) })
		case "embedMS":
			part(&m.SessionInfo).EmbedMS = r.Float64()
		case "zeroShot":
			part(&m.Answer).ZeroShot.read(r)
		case "adapted":
			part(&m.Answer).Adapted.read(r)
		case "time":
			part(&m.Answer).Time = r.Float64()
		case "viewMS":
			part(&m.Answer).ViewMS = r.Float64()
		case "encodeMS":
			part(&m.Answer).EncodeMS = r.Float64()
		case "adaptMS":
			part(&m.Answer).AdaptMS = r.Float64()
		case "report":
			part(&m.Answer).Report.read(r)
		case "code":
			part(&m.Error).Code = Code(r.String())
		case "message":
			part(&m.Error).Message = r.String()
		}
	})
}

// part is *p, made where it is not there.
func part[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

func (m *Memory) read(r *json.Reader) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "kernel":
			m.Kernel = r.Int()
		case "weights":
			m.Weights = r.Int()
		case "activations":
			m.Activations = r.Int()
		case "goHeap":
			m.GoHeap = r.Int()
		case "mallocs":
			m.Mallocs = r.Int()
		case "state":
			m.State = r.Int()
		}
	})
}

func (s *Scores) read(r *json.Reader) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "scores":
			s.Scores = []Score{}
			r.Array(func() {
				var v Score
				r.Object(func(key []byte) {
					switch string(key) {
					case "label":
						v.Label = r.String()
					case "score":
						v.Score = r.Float32()
					}
				})
				s.Scores = append(s.Scores, v)
			})
		case "none":
			s.None = r.Float32()
		}
	})
}

func (p *Report) read(r *json.Reader) {
	r.Object(func(key []byte) {
		switch string(key) {
		case "method":
			p.Method = r.String()
		case "entries":
			p.Entries = r.Int()
		case "shift":
			p.Shift = r.Float32()
		case "text":
			p.Text = r.String()
		case "stickiness":
			p.Stickiness = r.Float32()
		case "entered":
			p.Entered = r.Int()
		}
	})
}
