// Package probe asks questions over the network from the pod in which it runs, and tells what came of each. `middleway check` has it run
// in its pods, as `middleway tool probe`: one process a pod asks all that is to be asked from there.
//
//	middleway check ── Plan, a JSON object ──► standard input   ┐
//	                ◄── Facts, then an Answer a line ── output  ┘ tool probe, in a pod ── questions ──► pods, Services, names
//
// It knows only sockets and what package tool does with them.
package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Kind is a way of asking.
type Kind string

// Kinds.
const (
	HTTP  Kind = "http"  // GET /whoami of a `tool serve`, which tells who answers and whom it sees
	HTTPS Kind = "https" // GET of a URL; any status is an answer, any certificate is taken
	TCP   Kind = "tcp"   // connect
	UDP   Kind = "udp"   // a datagram, and the same back
	Bulk  Kind = "bulk"  // 64 KiB over TCP, and the same back
	Path  Kind = "path"  // a datagram as large as the interface takes, not to be cut, and the same back
	DNS   Kind = "dns"   // records of a name, from the servers of /etc/resolv.conf
)

// Question is one thing to ask.
type Question struct {
	ID   int  `json:"id"`
	Kind Kind `json:"kind"`
	// To is HOST:PORT, of HTTPS a URL, of DNS a name. In a name "$DOMAIN" stands for the cluster's domain as resolv.conf tells it, and
	// a name without a dot at its end is completed by its search list, unless it is asked for PTR: then it is an address.
	To string `json:"to"`
	// Type is DNS's: A, AAAA, SRV or PTR.
	Type string `json:"type,omitempty"`
	// Times is how often HTTP is asked, over a connection each. Default 1.
	Times int `json:"times,omitempty"`
	// Least is how many records DNS has to answer with: what a Service was given a moment ago may not be known everywhere. Default 1.
	Least int `json:"least,omitempty"`
}

// Plan is what is to be asked.
type Plan struct {
	Questions []Question `json:"questions"`
	// Timeout is how long an answer is waited for, over all tries. Default 5 s.
	Timeout time.Duration `json:"timeoutNs"`
}

// Answer is what came of a question.
type Answer struct {
	ID    int    `json:"id"`
	Error string `json:"error,omitempty"` // empty if it was answered
	// Took is how long the try took that was answered; of an error, all of them.
	Took  time.Duration `json:"tookNs"`
	Tries int           `json:"tries"`
	// Own is this end of the connection, Seen this end as the server saw it (HTTP), Reached its own end (HTTP).
	Own     netip.AddrPort `json:"own,omitzero"`
	Seen    netip.AddrPort `json:"seen,omitzero"`
	Reached netip.AddrPort `json:"reached,omitzero"`
	// Hosts are the host names of who answered (HTTP), each once.
	Hosts []string `json:"hosts,omitempty"`
	// MTU is the size in bytes of the largest packet that came back (Path), Whole that of the largest that the interface takes.
	MTU   int `json:"mtu,omitzero"`
	Whole int `json:"whole,omitzero"`
	// Records are what the records say (DNS), and Status what HTTPS answered.
	Records []string `json:"records,omitempty"`
	Status  int      `json:"status,omitzero"`
}

// atOnce is how many questions a process asks at a time.
const atOnce = 16

// defaultTimeout is Plan.Timeout's.
const defaultTimeout = 5 * time.Second

// Serve reads a Plan and writes an Answer a line, each as soon as it is known. It returns when all are.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	var p Plan
	if err := json.NewDecoder(in).Decode(&p); err != nil {
		return fmt.Errorf("read what is to be asked: %w", err)
	}
	var mu sync.Mutex
	lines := json.NewEncoder(out)
	return Run(ctx, p, func(a Answer) error {
		mu.Lock()
		defer mu.Unlock()
		return lines.Encode(a)
	})
}

// Run asks all questions of a plan, some at a time, and calls tell with each answer, from several goroutines.
func Run(ctx context.Context, p Plan, tell func(Answer) error) error {
	if p.Timeout <= 0 {
		p.Timeout = defaultTimeout
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, q := range p.Questions {
		g.Go(func() error { return tell(ask(ctx, q, p.Timeout)) })
	}
	return g.Wait()
}

// tries is how often a question is asked until it is answered. A datagram may be lost, and a Service may be a moment old.
const tries = 3

// retryPause lies between two tries of which the first failed at once.
const retryPause = 500 * time.Millisecond

// ask tries until there is an answer, or time is up.
func ask(ctx context.Context, q Question, timeout time.Duration) Answer {
	begin := time.Now()
	for try := 1; ; try++ {
		a := Answer{ID: q.ID, Tries: try}
		start := time.Now()
		limited, cancel := context.WithTimeout(ctx, timeout/tries)
		err := once(limited, q, &a)
		cancel()
		if err == nil {
			a.Took = time.Since(start)
			return a
		}
		if try == tries || !wait(ctx, start.Add(retryPause)) {
			return Answer{ID: q.ID, Error: inWords(err), Took: time.Since(begin), Tries: try, Own: a.Own, Whole: a.Whole, Hosts: a.Hosts, Records: a.Records}
		}
	}
}

// wait returns at a time, or with false when ctx ends.
func wait(ctx context.Context, until time.Time) bool {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
