package scenario

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// LoadCommand is the hidden command that runs a Load, which it takes as JSON, and prints its Result as JSON when it is told to end.
const LoadCommand = "load"

// A Load is HTTP requests, again and again. The zero value of a field is its default.
type Load struct {
	URL       string
	Workers   int           // at the same time; default 1
	Every     time.Duration // between the begins of one worker's requests; default: one after the other
	Requests  int           // of each worker; default: until it is told to end
	KeepAlive bool          // a worker keeps its connection; else each request has one of its own
	Timeout   time.Duration // of a request; default 5 s, in which a lost packet is sent again twice
	Bodies    bool          // count the answers by their text
	Hash      bool          // the answers' SHA-256 in the place of their text
	Rate      int           // bytes per second at which an answer is read; default: as they come
	Resolver  string        // address and port of the DNS server that is asked for the URL's name each time; default: the machine's
}

// A Result is what came of a load.
type Result struct {
	Requests          int
	Failures          []Failure
	P50, P99, Longest time.Duration  // of those that were answered
	Lost              int            // connections that the other side ended; with KeepAlive only, where they should last
	Gap               time.Duration  // the longest time in which no request was answered
	Bodies            map[string]int // answers by their text, of failures by what was wrong
}

// A Failure is a request without a good answer.
type Failure struct {
	At  time.Time
	Why string
}

// tally is a Result as it grows.
type tally struct {
	mu     sync.Mutex
	result Result
	took   []time.Duration
	last   time.Time // when the last answer came; at first, the begin
}

// Run runs the load until it has an end or ctx has.
func (l Load) Run(ctx context.Context) Result {
	if l.Timeout == 0 {
		l.Timeout = 5 * time.Second
	}
	t := &tally{result: Result{Bodies: map[string]int{}}, last: time.Now()}
	var workers sync.WaitGroup
	for range max(1, l.Workers) {
		workers.Go(func() { l.work(ctx, t) })
	}
	workers.Wait()
	return t.end()
}

func (l Load) work(ctx context.Context, t *tally) {
	transport := &http.Transport{DisableKeepAlives: !l.KeepAlive, DialContext: t.dial(l)}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: l.Timeout}
	for i := 0; l.Requests == 0 || i < l.Requests; i++ {
		begin := time.Now()
		body, err := l.get(client)
		t.add(begin, body, err)
		if l.Every == 0 {
			if ctx.Err() != nil {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(begin.Add(l.Every))):
		}
	}
}

func (l Load) dialResolver(ctx context.Context, network, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, l.Resolver)
}

// get is one request, which is not given up when the load is to end: it would count as failed.
func (l Load) get(client *http.Client) (string, error) {
	resp, err := client.Get(l.URL)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var body io.Reader = resp.Body
	if l.Rate > 0 {
		body = &slow{r: resp.Body, rate: l.Rate, begin: time.Now()}
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s", resp.Status)
	}
	if l.Hash {
		h := sha256.New()
		_, err := io.Copy(h, body)
		return hex.EncodeToString(h.Sum(nil)), err
	}
	text, err := io.ReadAll(body)
	if !l.Bodies {
		text = nil
	}
	return string(text), err
}

// dial opens connections, of which those that are to be kept have their loss counted.
func (t *tally) dial(l Load) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := &net.Dialer{}
	if l.Resolver != "" {
		dialer.Resolver = &net.Resolver{PreferGo: true, Dial: l.dialResolver}
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil || !l.KeepAlive {
			return c, err
		}
		return watched{c, t}, nil
	}
}

// watched is a connection that should last until this side closes it.
type watched struct {
	net.Conn
	t *tally
}

// Read is called again after an error by nobody.
func (w watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		w.t.mu.Lock()
		w.t.result.Lost++
		w.t.mu.Unlock()
	}
	return n, err
}

func (t *tally) add(begin time.Time, body string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.Requests++
	if err != nil {
		t.result.Failures = append(t.result.Failures, Failure{At: begin, Why: err.Error()})
		body = err.Error()
	} else {
		now := time.Now()
		t.took = append(t.took, now.Sub(begin))
		t.result.Gap = max(t.result.Gap, now.Sub(t.last))
		t.last = now
	}
	if body != "" {
		t.result.Bodies[body]++
	}
}

func (t *tally) end() Result {
	t.result.Gap = max(t.result.Gap, time.Since(t.last))
	slices.Sort(t.took)
	if n := len(t.took); n > 0 {
		t.result.P50, t.result.P99, t.result.Longest = t.took[n/2], t.took[n*99/100], t.took[n-1]
	}
	return t.result
}

// slow reads no faster than a rate.
type slow struct {
	r     io.Reader
	rate  int // bytes per second
	begin time.Time
	read  int64
}

func (s *slow) Read(b []byte) (int, error) {
	n, err := s.r.Read(b[:min(len(b), max(1, s.rate/20))])
	s.read += int64(n)
	time.Sleep(time.Until(s.begin.Add(time.Duration(float64(s.read) / float64(s.rate) * float64(time.Second)))))
	return n, err
}

// RunLoad is LoadCommand.
func RunLoad(ctx context.Context, text string, out io.Writer) error {
	var l Load
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(l.Run(ctx))
}
