package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/middleway-net/middleway/capture"
)

// Client asks a running daemon, by HTTP over its unix socket or over a connection that leads there. It may be used by several goroutines.
type Client struct {
	name string // as errors call the daemon
	dial func(context.Context) (net.Conn, error)
}

// In returns a client of the daemon of a run directory.
func In(runDir string) *Client {
	path := filepath.Join(runDir, socketName)
	return Over("the daemon in "+runDir, func(ctx context.Context) (net.Conn, error) {
		if err := CheckRunDir(runDir); err != nil {
			return nil, err
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, fmt.Errorf("no middleway node answers on %s; is it running, and is this its run directory?: %w", path, err)
		}
		return conn, nil
	})
}

// Over returns a client of the daemon to whose socket dial connects. name is how errors call it, for example "the daemon of node-1".
func Over(name string, dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{name, dial}
}

// Dial connects to the daemon's socket.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) { return c.dial(ctx) }

// ReadStatus asks the daemon of a run directory.
func ReadStatus(ctx context.Context, runDir string) (Status, error) { return In(runDir).Status(ctx) }

// Status asks for the daemon's present state.
func (c *Client) Status(ctx context.Context) (st Status, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/status", nil)
	if err != nil {
		return st, err
	}
	resp, err := c.ask(req)
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return st, fmt.Errorf("the status of %s: %w", c.name, c.refusal(resp, "status"))
	}
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		return Status{}, fmt.Errorf("read the status of %s: %w", c.name, err)
	}
	return st, nil
}

// Trace asks the daemon to trace a packet.
func (c *Client) Trace(ctx context.Context, req TraceRequest) (hop TraceHop, err error) {
	body, err := c.question(ctx, "trace", req)
	if err != nil {
		return hop, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&hop); err != nil {
		return hop, fmt.Errorf("read the trace of %s: %w", c.name, err)
	}
	return hop, nil
}

// Flows asks the daemon for its live flows, and calls see for each, with req.Follow until ctx ends.
func (c *Client) Flows(ctx context.Context, req FlowsRequest, see func(FlowEvent) error) error {
	body, err := c.question(ctx, "flows", req)
	if err != nil {
		return err
	}
	defer body.Close()
	for d := json.NewDecoder(bufio.NewReader(body)); ; {
		var e FlowEvent
		switch err := d.Decode(&e); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s ended while it told of its flows: %w", c.name, err)
		}
		if err := see(e); err != nil {
			return err
		}
	}
}

// GiveWay asks the daemon to let another one of its node work, and to wait beside it until that has ended. It does so only in a cluster with an
// API server.
func (c *Client) GiveWay(ctx context.Context) error {
	body, err := c.question(ctx, "giveway", struct{}{})
	if err != nil {
		return err
	}
	return body.Close()
}

// question sends a request to the daemon and returns the answer, which the caller closes.
func (c *Client) question(ctx context.Context, about string, req any) (io.ReadCloser, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/"+about, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	resp, err := c.ask(post)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, c.refusal(resp, about)
}

// refusal is what an answer says that is none.
func (c *Client) refusal(resp *http.Response, about string) error {
	if resp.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%s knows no %s; start it anew with this program", c.name, about)
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxRequest))
	return errors.New(strings.TrimSpace(string(text)))
}

// ask sends a request over a connection of its own.
func (c *Client) ask(req *http.Request) (*http.Response, error) {
	var dialed error // without what package net/http says about it
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
			conn, dialed = c.dial(ctx)
			return conn, dialed
		},
	}}
	resp, err := client.Do(req)
	switch {
	case err == nil:
		return resp, nil
	case req.Context().Err() != nil:
		return nil, context.Cause(req.Context())
	case dialed != nil:
		return nil, dialed
	}
	return nil, fmt.Errorf("%s does not answer: %w", c.name, errors.Unwrap(err))
}

// startWait bounds how long a daemon has to begin a capture.
var startWait = 10 * time.Second

// Capture asks the daemon for what it sees from now on.
func (c *Client) Capture(ctx context.Context, req capture.Request) (*capture.Stream, error) {
	starting, started := context.WithTimeout(ctx, startWait)
	defer started()
	s, err := c.startCapture(starting, req)
	if err != nil && ctx.Err() == nil && starting.Err() != nil {
		return nil, fmt.Errorf("%s has not begun a capture within %v; is it stopped, or the machine very busy?", c.name, startWait)
	}
	return s, err
}

// startCapture returns when the daemon has begun. From then on the capture does not end with ctx.
func (c *Client) startCapture(ctx context.Context, req capture.Request) (*capture.Stream, error) {
	req.Version = capture.Version
	line, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	// The body goes on until the capture is to end, and the answer until it has ended.
	rest, end := io.Pipe()
	under, cancel := context.WithCancel(context.WithoutCancel(ctx))
	connected := context.AfterFunc(ctx, func() {
		cancel()
		_ = end.Close() // http.Client waits for who sends the body, who waits for its end
	})
	defer connected()
	post, err := http.NewRequestWithContext(under, http.MethodPost, "http://node/capture", io.MultiReader(bytes.NewReader(append(line, '\n')), rest))
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := c.ask(post)
	if err != nil {
		cancel()
		return nil, errors.Join(err, end.Close())
	}
	closeAll := func() error {
		cancel()
		return errors.Join(end.Close(), resp.Body.Close())
	}
	if resp.StatusCode != http.StatusOK {
		err := c.refusal(resp, "captures")
		_ = closeAll()
		return nil, err
	}
	s, err := capture.NewStream(bufio.NewReaderSize(resp.Body, 1<<16), end.Close, closeAll)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return s, nil
}
