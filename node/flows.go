package node

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/unixsock"
)

// FlowsRequest chooses flows. Of a list any one has to match, of different lists all.
type FlowsRequest struct {
	From []netip.Prefix `json:"from,omitempty"` // has who opened the flow
	// To has the flow's destination, as it was asked for or as its packets leave.
	To []netip.Prefix `json:"to,omitempty"`
	// Services are NAMESPACE/NAME, or NAMESPACE/NAME:PORT.
	Services []string `json:"services,omitempty"`
	// Follow goes on with what comes, changes and goes.
	Follow bool `json:"follow,omitempty"`
}

// FlowChange is what happened to a flow.
type FlowChange string

// Changes. Without one the flow was there when it was asked for.
const (
	FlowCame    FlowChange = "came"
	FlowChanged FlowChange = "changed" // its state
	FlowWent    FlowChange = "went"    // it was idle too long, or its backend has gone
)

// FlowEvent is a live flow of a node, or what has become of one.
type FlowEvent struct {
	Node   string     `json:"node"`
	Change FlowChange `json:"change,omitempty"`
	stack.Flow
}

// wants reports whether a flow was asked for.
func (r *FlowsRequest) wants(f *stack.Flow) bool {
	to := []netip.Addr{f.Dst.Addr()}
	if f.LeavesAs != nil {
		to = append(to, f.LeavesAs.Dst.Addr())
	}
	return anyOf(r.From, f.Src.Addr()) && anyOf(r.To, to...) &&
		(len(r.Services) == 0 || slices.ContainsFunc(r.Services, func(s string) bool { return f.Service == s || strings.HasPrefix(f.Service, s+":") }))
}

// anyOf reports whether a range has one of the addresses; no ranges have all.
func anyOf(ranges []netip.Prefix, addrs ...netip.Addr) bool {
	return len(ranges) == 0 || slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return slices.ContainsFunc(addrs, p.Contains) })
}

// followEvery is how often the flow table is looked through for somebody who follows it.
const followEvery = 250 * time.Millisecond

// serveFlows sends FlowEvents, one a line, of what the body asks for.
func (n *Node) serveFlows(w http.ResponseWriter, r *http.Request) {
	var req FlowsRequest
	if !n.readQuestion(w, r, &req) {
		return
	}
	defer n.status.questions.end()
	buffer := bufio.NewWriterSize(w, 1<<16)
	l := flowLister{name: n.config.Name, req: req, encoder: json.NewEncoder(buffer), known: map[flowKey]stack.Flow{}}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		l.look(n.stack.Flows())
		if err := errors.Join(l.failed, buffer.Flush(), http.NewResponseController(w).Flush()); err != nil || !req.Follow {
			return // a client that has gone needs no more
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// readQuestion reads a request about the stack and counts it in; the caller counts it out.
func (n *Node) readQuestion(w http.ResponseWriter, r *http.Request, v any) bool {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err == nil {
		err = unixsock.Decode(b, v)
	}
	if err == nil {
		err = n.status.questions.begin()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	return true
}

// flowKey tells flows apart.
type flowKey struct{ came, leaves stack.Tuple }

func keyOf(f *stack.Flow) flowKey {
	if f.LeavesAs == nil {
		return flowKey{f.Tuple, f.Tuple}
	}
	return flowKey{f.Tuple, *f.LeavesAs}
}

// flowLister sends flows, and from the second look on what has become of them.
type flowLister struct {
	name    string
	req     FlowsRequest
	encoder *json.Encoder
	known   map[flowKey]stack.Flow // what was sent, of a client that follows
	again   bool
	failed  error
}

// look looks through the flows once.
func (l *flowLister) look(all func(func(stack.Flow) bool)) {
	seen := make(map[flowKey]bool, len(l.known))
	for f := range all {
		if !l.req.wants(&f) {
			continue
		}
		change := FlowChange("")
		if l.req.Follow {
			key := keyOf(&f)
			old, known := l.known[key]
			l.known[key], seen[key] = f, true
			switch {
			case known && old.State == f.State:
				continue
			case known:
				change = FlowChanged
			case l.again:
				change = FlowCame
			}
		}
		if l.send(change, f); l.failed != nil {
			return
		}
	}
	for key, f := range l.known {
		if !seen[key] {
			delete(l.known, key)
			l.send(FlowWent, f)
		}
	}
	l.again = true
}

func (l *flowLister) send(change FlowChange, f stack.Flow) {
	if l.failed == nil {
		l.failed = l.encoder.Encode(FlowEvent{Node: l.name, Change: change, Flow: f})
	}
}
