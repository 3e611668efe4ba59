package demo

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// drops are the counters of dropped packets, by node and reason.
type drops map[string]map[string]uint64

func (r *run) drops() drops {
	d := drops{}
	if r.cluster == nil {
		return d
	}
	for _, n := range r.cluster.Nodes() {
		if st, err := n.Node.Status(); err == nil {
			d[n.Name()] = st.Stack.Drops
		}
	}
	return d
}

// explain returns an error's cause in one line: the error itself, and what the daemons know of it.
func (r *run) explain(err error, before drops) string {
	words := []string{strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")}
	if r.cluster == nil {
		return words[0]
	}
	after := r.drops()
	for _, n := range r.cluster.Nodes() {
		switch counted, answers := after[n.Name()]; {
		case answers:
			if s := dropped(before[n.Name()], counted); s != "" {
				words = append(words, n.Name()+" dropped "+s)
			}
		case n.Daemon() == nil:
			words = append(words, "the daemon of "+n.Name()+" was not started")
		default:
			words = append(words, n.Name()+": "+n.Status().Message)
		}
	}
	return strings.Join(words, "; ")
}

// dropped names the packets dropped since before. A new daemon counts from 0. What pods send to everybody on their link
// (MLD, router solicitations) is always dropped, for its scope, and never the cause.
func dropped(before, after map[string]uint64) string {
	var words []string
	for _, reason := range slices.Sorted(maps.Keys(after)) {
		n := after[reason]
		if n >= before[reason] {
			n -= before[reason]
		}
		if n > 0 && reason != "scope" {
			words = append(words, fmt.Sprintf("%d (%s)", n, reason))
		}
	}
	return strings.Join(words, ", ")
}

// timedOut reports whether an error is a timeout.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}
