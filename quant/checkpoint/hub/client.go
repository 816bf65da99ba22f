package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// client speaks to one endpoint.
type client struct {
	base  *url.URL
	token string
	cache string
	http  http.Client
	o     Options
}

func newClient(o Options) (*client, error) {
	o.Stall = cmp.Or(o.Stall, 30*time.Second)
	o.Retries = cmp.Or(o.Retries, 6)
	if o.Log == nil {
		o.Log = func(string) {}
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.create == nil {
		o.create = func(name string) (part, error) { return os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666) }
	}
	base, err := url.Parse(strings.TrimRight(cmp.Or(o.Endpoint, Public), "/"))
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Host == "" {
		return nil, fmt.Errorf("%w: HF_ENDPOINT is no http address", ErrName)
	}
	if o.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDisk, err)
		}
		o.Cache = filepath.Join(dir, "lqa", "hub")
	}
	c := &client{base: base, token: strings.TrimSpace(o.Token), cache: o.Cache, o: o}
	c.http.Transport = o.Transport
	// Redirects are followed by hand: the hub's own carry headers that the last answer lacks.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *client) mirror() bool { return c.base.String() != Public }

// own reports whether u is on the endpoint's host: only there the token goes.
func (c *client) own(u *url.URL) bool { return u.Scheme == c.base.Scheme && u.Host == c.base.Host }

// bare is u without what may be secret: user and query.
func bare(u *url.URL) string { return u.Scheme + "://" + u.Host + u.EscapedPath() }

// maxRedirects is more than any hub uses.
const maxRedirects = 10

// answer is the last response on a way of redirects, and what the way told.
type answer struct {
	*http.Response
	etag string // of the content: X-Linked-ETag, or the ETag of the endpoint's host
	size int64  // X-Linked-Size, -1 if none was told
	own  bool   // the endpoint's host has answered, no other
}

// get asks for u and follows redirects. The caller closes the body.
func (c *client) get(ctx context.Context, u *url.URL, header http.Header) (*answer, error) {
	a := &answer{size: -1}
	for range maxRedirects {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("%w: bad address", ErrAnswer)
		}
		for k, v := range header {
			req.Header[k] = v
		}
		req.Header.Set("User-Agent", "lqa-shq")
		req.Header.Set("Accept-Encoding", "identity")
		a.own = c.own(u)
		if a.own && c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			c.o.Log(fmt.Sprintf("GET %s: failed", bare(u)))
			return nil, c.failure(ctx, u, err)
		}
		c.o.Log(fmt.Sprintf("GET %s: %d", bare(u), resp.StatusCode))
		if tag := resp.Header.Get("X-Linked-Etag"); tag != "" {
			a.etag = unquote(tag)
		}
		if n, err := strconv.ParseInt(resp.Header.Get("X-Linked-Size"), 10, 64); err == nil {
			a.size = n
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			if a.etag == "" && a.own {
				a.etag = unquote(resp.Header.Get("Etag"))
			}
			a.Response = resp
			return a, nil
		}
		resp.Body.Close()
		next, err := u.Parse(resp.Header.Get("Location"))
		if err != nil || next.Host == "" || next.Scheme != "https" && next.Scheme != "http" || u.Scheme == "https" && next.Scheme == "http" {
			return nil, fmt.Errorf("%w: %s redirects to no address that can be asked", ErrAnswer, bare(u))
		}
		u = next
	}
	return nil, fmt.Errorf("%w: over %d redirects", ErrAnswer, maxRedirects)
}

// failure is why a request got no answer, or a body broke off. net/http's own
// error quotes the whole address, signature included: it is taken apart.
func (c *client) failure(ctx context.Context, u *url.URL, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
		if !errors.Is(cause, ErrStalled) { // the caller gave up
			return err
		}
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return fmt.Errorf("%w: %s://%s: %w", ErrNetwork, u.Scheme, u.Host, err)
}

// unquote takes W/ and quotes off an ETag.
func unquote(tag string) string { return strings.Trim(strings.TrimPrefix(tag, "W/"), `"`) }

// api reads a JSON answer into v, with retries, and returns the address of the
// next page, "" if this is the last.
func (c *client) api(ctx context.Context, address string, v any) (next string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("%w: bad address", ErrAnswer)
	}
	err = c.retry(ctx, func() (bool, error) {
		next, err = c.apiOnce(ctx, u, v)
		return false, err
	})
	return next, err
}

func (c *client) apiOnce(ctx context.Context, u *url.URL, v any) (string, error) {
	ctx, watch := watch(ctx, c.o.Stall)
	defer watch.stop()
	a, err := c.get(ctx, u, nil)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		return "", c.status(a)
	}
	b, err := io.ReadAll(io.LimitReader(watch.reader(a.Body), maxAnswer+1))
	if err != nil {
		return "", c.failure(ctx, a.Request.URL, err)
	}
	if len(b) > maxAnswer {
		return "", fmt.Errorf("%w: %s: over %d bytes", ErrAnswer, bare(u), maxAnswer)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return "", fmt.Errorf("%w: %s: no JSON as expected", ErrAnswer, bare(u))
	}
	return c.nextPage(a.Request.URL, a.Header.Get("Link"))
}

// nextPage reads `<address>; rel="next"`. The page is asked of the endpoint,
// whatever host the address names: mirrors pass the hub's links on.
func (c *client) nextPage(at *url.URL, link string) (string, error) {
	for l := range strings.SplitSeq(link, ",") {
		address, params, ok := strings.Cut(l, ";")
		if !ok || !strings.Contains(params, `rel="next"`) {
			continue
		}
		next, err := at.Parse(strings.Trim(strings.TrimSpace(address), "<>"))
		if err != nil {
			return "", fmt.Errorf("%w: bad address of the next page", ErrAnswer)
		}
		next.Scheme, next.Host, next.User = c.base.Scheme, c.base.Host, c.base.User
		return next.String(), nil
	}
	return "", nil
}

// status is an answer that is no success.
func (c *client) status(a *answer) error {
	if a.own {
		e := c.refusal(a.Response)
		if e.Err == ErrRate {
			return &waitError{e, rateWait(a.Header)}
		}
		return e
	}
	// Storage says 403 when a signed address has expired, and at times for no
	// reason: the hub is asked for a new one.
	e := &StatusError{URL: bare(a.Request.URL), Status: a.StatusCode, Err: ErrNetwork}
	if a.StatusCode != http.StatusForbidden && !transient(a.StatusCode) {
		e.Err = ErrRefused
	}
	if a.StatusCode == http.StatusTooManyRequests {
		return &waitError{e, rateWait(a.Header)}
	}
	return e
}

// waitError is a refusal that says how long to wait.
type waitError struct {
	error
	wait time.Duration // 0 if it does not
}

func (e *waitError) Unwrap() error { return e.error }

// maxWait is the longest that a server can make Fetch wait at once; the hub's
// window is five minutes.
const maxWait = 6 * time.Minute

// rateWait reads `RateLimit: "resolvers";r=0;t=55`, or Retry-After, in seconds.
func rateWait(h http.Header) time.Duration {
	seconds := h.Get("Retry-After")
	for field := range strings.SplitSeq(h.Get("Ratelimit"), ";") {
		if t, ok := strings.CutPrefix(strings.TrimSpace(field), "t="); ok {
			seconds = t
		}
	}
	n, err := strconv.Atoi(seconds)
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(min(n, 1e6))*time.Second, maxWait)
}

// retry calls f until it succeeds, fails for good, or fails c.o.Retries times
// in a row without progress: f reports whether there was any.
func (c *client) retry(ctx context.Context, f func() (progress bool, err error)) error {
	for failed := 0; ; {
		progress, err := f()
		if err == nil || ctx.Err() != nil {
			return err
		}
		var wait *waitError
		if !errors.As(err, &wait) && !errors.Is(err, ErrNetwork) {
			return err
		}
		if failed++; progress {
			failed = 1
		}
		if failed >= c.o.Retries {
			return fmt.Errorf("%w (tried %d times)", err, failed)
		}
		delay := time.Second << min(failed-1, 5)
		if wait != nil && wait.wait > 0 {
			delay = wait.wait
		}
		c.o.Log(fmt.Sprintf("%v: trying again in %s", err, delay))
		if err := c.o.Sleep(ctx, delay); err != nil {
			return err
		}
	}
}

// stallWatch ends a context when nothing has come for too long.
type stallWatch struct {
	timer  *time.Timer
	stall  time.Duration
	cancel context.CancelCauseFunc
}

func watch(ctx context.Context, stall time.Duration) (context.Context, *stallWatch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &stallWatch{stall: stall, cancel: cancel}
	w.timer = time.AfterFunc(stall, func() { cancel(ErrStalled) })
	return ctx, w
}

func (w *stallWatch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// reader is r with every byte noted.
func (w *stallWatch) reader(r io.Reader) io.Reader { return &watched{w, r} }

type watched struct {
	*stallWatch
	r io.Reader
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if n > 0 {
		w.timer.Reset(w.stall)
	}
	return n, err
}
