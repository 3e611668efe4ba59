package tool

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

// FetchConfig describes requests to one URL.
type FetchConfig struct {
	// URL is http://, https://, tcp:// or udp://. To the last two Body is sent as it is, and what comes back is the answer: by TCP
	// all until the other end has sent its last, by UDP one datagram.
	URL    *url.URL
	Method string      // of HTTP. Default GET, with a Body POST
	Header http.Header // of HTTP. Default none but Go's own
	Body   []byte
	// Dial makes connections. Default: those of this process.
	Dial Dial
	// Follow goes where answers of HTTP redirect to. Default: they are the answer.
	Follow bool
	// Insecure takes any certificate.
	Insecure bool
	// KeepAlive makes several requests over a connection. Default: a connection each.
	KeepAlive bool
}

// Fetch is what came of a request.
type Fetch struct {
	Status  int            `json:"status,omitzero"` // of HTTP
	Proto   string         `json:"proto"`           // HTTP/1.1, tcp, …
	Header  http.Header    `json:"header,omitempty"`
	Client  netip.AddrPort `json:"client,omitzero"` // this end
	Server  netip.AddrPort `json:"server,omitzero"` // the other, as it was dialled
	Bytes   int64          `json:"bytes"`           // of the answer's body
	Timings Timings        `json:"timings"`
}

// OK reports whether the answer is no error: any but HTTP's from 400 on.
func (f Fetch) OK() bool { return f.Status < 400 }

// Timings are measured from the start of a request; what there was no need of is 0.
type Timings struct {
	Resolved  Millis `json:"resolvedMs,omitzero"`
	Connected Millis `json:"connectedMs,omitzero"`
	Secured   Millis `json:"securedMs,omitzero"` // TLS
	FirstByte Millis `json:"firstByteMs,omitzero"`
	Total     Millis `json:"totalMs"`
}

// Fetcher makes requests. Several goroutines may use it.
type Fetcher struct {
	c      FetchConfig
	client http.Client
}

// NewFetcher returns one for a URL.
func NewFetcher(c FetchConfig) (*Fetcher, error) {
	if c.URL.Host == "" {
		return nil, fmt.Errorf("%v: want a host", c.URL)
	}
	switch c.URL.Scheme {
	case "http", "https":
	case "tcp", "udp":
		if c.URL.Port() == "" || c.URL.Path != "" {
			return nil, fmt.Errorf("%v: want host and port, as in %s://10.244.2.2:7", c.URL, c.URL.Scheme)
		}
	default:
		return nil, fmt.Errorf("%v: want http, https, tcp or udp", c.URL)
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Method == "" {
		c.Method = http.MethodGet
		if c.Body != nil {
			c.Method = http.MethodPost
		}
	}
	f := &Fetcher{c: c, client: http.Client{Transport: &http.Transport{
		DialContext: c.Dial, DisableKeepAlives: !c.KeepAlive, DisableCompression: true, MaxIdleConnsPerHost: 1 << 10,
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: c.Insecure},
	}}}
	if !c.Follow {
		f.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return f, nil
}

// Close lets go of connections that are kept alive.
func (f *Fetcher) Close() { f.client.CloseIdleConnections() }

// Fetch makes one request and writes the answer's body.
func (f *Fetcher) Fetch(ctx context.Context, body io.Writer) (Fetch, error) {
	r := &result{start: time.Now()}
	ctx = httptrace.WithClientTrace(ctx, r.trace())
	fetch := f.fetchHTTP
	if f.c.URL.Scheme == "tcp" || f.c.URL.Scheme == "udp" {
		fetch = f.fetchRaw
	}
	err := fetch(ctx, r, body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetch.Timings.Total = Millis(time.Since(r.start))
	if ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	return r.fetch, err
}

func (f *Fetcher) fetchHTTP(ctx context.Context, r *result, body io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, f.c.Method, f.c.URL.String(), bytes.NewReader(f.c.Body))
	if err != nil {
		return err
	}
	req.Header = f.c.Header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "middleway")
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return unwrapURL(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(body, resp.Body)
	r.update(func(f *Fetch) { f.Status, f.Proto, f.Header, f.Bytes = resp.StatusCode, resp.Proto, resp.Header, n })
	return err
}

// unwrapURL leaves away the method and the URL, which whoever asked knows.
func unwrapURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

func (f *Fetcher) fetchRaw(ctx context.Context, r *result, body io.Writer) error {
	network := f.c.URL.Scheme
	conn, err := f.c.Dial(ctx, network, f.c.URL.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	r.update(func(f *Fetch) {
		f.Proto, f.Client, f.Server = network, addrPort(conn.LocalAddr().String()), addrPort(conn.RemoteAddr().String())
	})
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // fails only when closed
	defer stop()
	if _, err := conn.Write(f.c.Body); err != nil {
		return err
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		if err := half.CloseWrite(); err != nil {
			return err
		}
	}
	for buf := make([]byte, 1<<16); ; {
		n, err := conn.Read(buf)
		r.received(n)
		if n > 0 {
			if _, err := body.Write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && network == "udp" {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// result is a Fetch that httptrace's calls, which come from other goroutines, help to fill.
type result struct {
	start time.Time

	mu    sync.Mutex
	fetch Fetch
}

func (r *result) update(f func(*Fetch)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.fetch)
}

// note keeps when something happened the first time.
func (r *result) note(at func(*Timings) *Millis) {
	now := Millis(time.Since(r.start))
	r.update(func(f *Fetch) {
		if when := at(&f.Timings); *when == 0 {
			*when = now
		}
	})
}

func (r *result) received(n int) {
	if n > 0 {
		r.note(func(t *Timings) *Millis { return &t.FirstByte })
		r.update(func(f *Fetch) { f.Bytes += int64(n) })
	}
}

func (r *result) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSDone: func(httptrace.DNSDoneInfo) { r.note(func(t *Timings) *Millis { return &t.Resolved }) },
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				r.note(func(t *Timings) *Millis { return &t.Connected })
			}
		},
		TLSHandshakeDone:     func(tls.ConnectionState, error) { r.note(func(t *Timings) *Millis { return &t.Secured }) },
		GotFirstResponseByte: func() { r.note(func(t *Timings) *Millis { return &t.FirstByte }) },
		GotConn: func(i httptrace.GotConnInfo) {
			r.update(func(f *Fetch) {
				f.Client, f.Server = addrPort(i.Conn.LocalAddr().String()), addrPort(i.Conn.RemoteAddr().String())
			})
		},
	}
}
