package checkpoint

import (
	"fmt"

	"lqa/quant/json"
)

// object is a JSON object of a configuration: its members by key, but for
// those that are null. A value of the wrong type or out of bounds is kept as
// the first error of the document.
type object struct {
	path    string // "config.json: vision_config."
	members map[string]json.Raw
	err     *error
}

// readObject reads a configuration file's text.
func readObject(file string, text []byte) (object, error) {
	o := object{path: file + ": ", err: new(error)}
	o.members = o.parse(text)
	return o, *o.err
}

func (o object) fail(key string, cause any) {
	if *o.err == nil {
		*o.err = fmt.Errorf("%w: %s%s: %v", ErrConfig, o.path, key, cause)
	}
}

func (o object) parse(text []byte) map[string]json.Raw {
	members := map[string]json.Raw{}
	r := new(json.Reader)
	err := r.Read(text, func() {
		r.Object(func(key []byte) { members[string(key)] = r.Raw() })
	})
	if err != nil {
		o.fail("", err)
	}
	return members
}

func (o object) has(key string) bool { return o.members[key] != nil }

// object is a member that is an object, empty if it is not there.
func (o object) object(key string) object {
	inner := object{path: o.path + key + ".", members: map[string]json.Raw{}, err: o.err}
	if raw := o.members[key]; raw != nil {
		inner.members = inner.parse(raw)
	}
	return inner
}

// read runs f on a member's value, if it is there.
func (o object) read(key string, f func(r *json.Reader)) {
	raw := o.members[key]
	if raw == nil {
		return
	}
	r := new(json.Reader)
	if err := r.Read(raw, func() { f(r) }); err != nil {
		o.fail(key, err)
	}
}

func (o object) text(key, otherwise string) string {
	o.read(key, func(r *json.Reader) { otherwise = r.String() })
	return otherwise
}

func (o object) bool(key string, otherwise bool) bool {
	o.read(key, func(r *json.Reader) { otherwise = r.Bool() })
	return otherwise
}

func (o object) float(key string, otherwise float64) float64 {
	o.read(key, func(r *json.Reader) { otherwise = r.Float64() })
	return otherwise
}

// rgb is a list of three numbers, one a channel.
func (o object) rgb(key string, otherwise [3]float32) [3]float32 {
	o.read(key, func(r *json.Reader) {
		n := 0
		r.Array(func() {
			if n < len(otherwise) {
				otherwise[n] = r.Float32()
			}
			n++
		})
		if n != len(otherwise) {
			o.fail(key, "three numbers are expected, one a channel")
		}
	})
	return otherwise
}

// number is a whole number of a configuration, and whose it is: errors name
// it.
type number struct {
	path   string
	value  int
	stated bool // rather than a default
}

func (n number) String() string {
	if n.stated {
		return fmt.Sprintf("%s is %d", n.path, n.value)
	}
	return fmt.Sprintf("%s is not there, which means %d", n.path, n.value)
}

// maxNumber bounds what a configuration says, so that products do not
// overflow.
const maxNumber = 1 << 20

// number is a member from 0 to maxNumber. A list of equal numbers, the sides
// of a square, is as good as one.
func (o object) number(key string, otherwise int) number {
	n := number{path: o.path + key, value: otherwise}
	o.read(key, func(r *json.Reader) {
		n.stated = true
		if r.Next() != '[' {
			n.value = r.Int()
			return
		}
		var sides []int
		r.Array(func() {
			if len(sides) <= 2 {
				sides = append(sides, r.Int())
			}
		})
		if len(sides) == 0 || len(sides) > 2 || sides[0] != sides[len(sides)-1] {
			o.fail(key, fmt.Sprintf("%v is not the side of a square", sides))
			return
		}
		n.value = sides[0]
	})
	if n.value < 0 || n.value > maxNumber {
		o.fail(key, fmt.Sprintf("%d is not in 0..%d", n.value, maxNumber))
		n.value = otherwise
	}
	return n
}

// idle reports whether a member says nothing, or no: null, false, 0, "", {} or
// [].
func (o object) idle(key string) bool {
	switch string(o.members[key]) {
	case "", "false", "0", "0.0", `""`, "{}", "[]":
		return true
	}
	return false
}
