package hub

import (
	"errors"
	"fmt"
	"net/http"
)

// What can go wrong, told apart.
var (
	ErrName      = errors.New("hub: bad name")                                           // no owner/name[@revision]
	ErrNotFound  = errors.New("hub: no such repository, or it is private")               // the hub does not say which to strangers
	ErrRevision  = errors.New("hub: no such revision")                                   // branch, tag or commit
	ErrEntry     = errors.New("hub: no such file")                                       // in this revision
	ErrGated     = errors.New("hub: gated repository")                                   // its terms must be accepted first
	ErrForbidden = errors.New("hub: not allowed")                                        // the token lacks rights
	ErrRefused   = errors.New("hub: request refused")                                    // any other status that trying again will not help
	ErrNetwork   = errors.New("hub: network failed")                                     // after all retries
	ErrRate      = errors.New("hub: too many requests")                                  // after all waiting
	ErrStalled   = errors.New("hub: no bytes came for too long")                         // the connection was given up
	ErrChanged   = errors.New("hub: the file is another one than the repository's list") // by ETag or size
	ErrChecksum  = errors.New("hub: wrong checksum")                                     // all bytes came, twice, and not the right ones
	ErrAnswer    = errors.New("hub: bad answer")                                         // an API's answer cannot be read
	ErrONNX      = errors.New("hub: only ONNX files, which hold no convertible weights")
	ErrWeights   = errors.New("hub: no weights that can be converted")
	ErrDisk      = errors.New("hub: cannot write to the cache")
)

// StatusError is an answer that is no success. Its text has neither token nor
// query: signed addresses carry secrets there.
type StatusError struct {
	URL    string // without query
	Status int
	Code   string // X-Error-Code, if the hub gave one
	Hint   string // what the user may do
	Err    error
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%v: %s: %d %s", e.Err, e.URL, e.Status, http.StatusText(e.Status))
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

func (e *StatusError) Unwrap() error { return e.Err }

// refusal reads an answer of the hub's own host.
func (c *client) refusal(resp *http.Response) *StatusError {
	e := &StatusError{URL: bare(resp.Request.URL), Status: resp.StatusCode, Code: printable(resp.Header.Get("X-Error-Code")), Err: ErrRefused}
	switch {
	case e.Code == "GatedRepo":
		e.Err, e.Hint = ErrGated, "accept its terms on its page, and set HF_TOKEN"
		if c.token != "" {
			e.Hint = "the account of HF_TOKEN has not accepted its terms"
		}
	case e.Code == "RevisionNotFound":
		e.Err = ErrRevision
	case e.Code == "EntryNotFound":
		e.Err = ErrEntry
	case e.Code == "RepoNotFound", e.Status == http.StatusUnauthorized:
		e.Err, e.Hint = ErrNotFound, "check the spelling; for a private one set HF_TOKEN"
		if c.token != "" {
			e.Hint = "check the spelling; HF_TOKEN may be wrong, or lack the right to see it"
		}
	case e.Status == http.StatusForbidden:
		e.Err, e.Hint = ErrForbidden, "HF_TOKEN lacks the right"
		if c.token == "" {
			e.Hint = "set HF_TOKEN"
		}
	case e.Status == http.StatusNotFound:
		e.Err = ErrEntry
	case e.Status == http.StatusTooManyRequests:
		e.Err = ErrRate
		if c.token == "" {
			e.Hint = "with HF_TOKEN set the limits are higher"
		}
	case transient(e.Status):
		e.Err = ErrNetwork
	}
	return e
}

// transient are statuses after which the same request may succeed.
func transient(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// printable makes a header's text safe to show.
func printable(s string) string {
	b := []byte(s[:min(len(s), 80)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
