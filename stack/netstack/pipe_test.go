package netstack

import (
	"bytes"
	"context"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
)

const testMTU = 1450

var (
	gateway4 = netip.MustParseAddr("10.244.1.1")
	gateway6 = netip.MustParseAddr("fd00:10:244:1::1")
	pod4     = netip.MustParseAddr("10.244.1.2")
	pod6     = netip.MustParseAddr("fd00:10:244:1::2")
)

// pair is a node's netstack and another in a pod's place, joined by two pipes.
type pair struct {
	node, pod     *Netstack
	toPod, toNode *pipe
}

// newPair runs a pair until the test ends, and checks that nothing is left of it.
func newPair(t testing.TB, split bool) *pair {
	t.Helper()
	checkLeaks(t)
	pr := &pair{node: newNetstack(t, gateway4, gateway6), pod: newNetstack(t, pod4, pod6)}
	pr.toPod = newPipe(t, pr.pod, split)
	pr.toNode = newPipe(t, pr.node, split)
	pr.node.Connect(pr.toPod.inject)
	pr.pod.Connect(pr.toNode.inject)
	goRun(t, pr.node.Run)
	goRun(t, pr.pod.Run)
	return pr
}

func newNetstack(t testing.TB, addrs ...netip.Addr) *Netstack {
	t.Helper()
	n, err := New(Config{Addrs: addrs, MTU: testMTU})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// goRun runs run until the test ends, and waits for it.
func goRun(t testing.TB, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not return within 10 s of its context's end")
		}
	})
}

// checkLeaks compares the number of goroutines before and after the test's other cleanups.
func checkLeaks(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		var n int
		for range 200 {
			if n = runtime.NumGoroutine(); n <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		t.Errorf("%d goroutines left, %d before:\n%s", n, before, stacks)
	})
}

type frame struct {
	b []byte
	o packet.Offload
}

// pipe is a worker that knows one destination: what is injected into it, it parses, verifies and delivers. With split it
// finishes every checksum and segments every super-packet on the way, as a link without offloads would.
type pipe struct {
	t      testing.TB
	to     *Netstack
	split  bool
	drop   func(*packet.Parsed) bool // nil: nothing
	frames chan frame

	packets, supers, partials, lost atomic.Int64
}

func newPipe(t testing.TB, to *Netstack, split bool) *pipe {
	p := &pipe{t: t, to: to, split: split, frames: make(chan frame, 4096)}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case f := <-p.frames:
				p.carry(f)
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() { close(done); wg.Wait() })
	return p
}

func (p *pipe) inject(o packet.Offload, parts ...[]byte) {
	select {
	case p.frames <- frame{slices.Concat(parts...), o}:
	default: // full
		p.lost.Add(1)
	}
}

func (p *pipe) carry(f frame) {
	var h packet.Parsed
	if r := packet.Parse(f.b, &h); r != packet.Kept {
		p.t.Errorf("netstack sent % x: %v", f.b, r)
		return
	}
	if r := f.o.Check(f.b, &h); r != packet.Kept || h.Len != len(f.b) {
		p.t.Errorf("%v: offload %+v of a packet of %d bytes (%d there): %v", h.Flow, f.o, h.Len, len(f.b), r)
		return
	}
	if !h.Routable() && !h.Flow.Src().IsLoopback() && !h.Flow.Dst().IsLoopback() { // those DialFrom was asked for
		p.t.Errorf("netstack sent unasked: %v", h.Flow)
	}
	p.count(f, &h)
	if p.drop != nil && p.drop(&h) {
		return
	}
	switch {
	case p.split && f.o.GSO != packet.GSONone:
		p.carrySegments(f, &h)
	case p.split && f.o.NeedsChecksum:
		packet.FinishChecksum(f.b, &f.o)
		p.deliverComplete(f.b)
	case f.o.NeedsChecksum:
		if !packet.ChecksumIsPartial(f.b, &h) {
			p.t.Errorf("%v: checksum is not the pseudo-header's sum", h.Flow)
		}
		p.to.Deliver(f.b, &h, f.o)
	default:
		p.deliverComplete(f.b)
	}
}

func (p *pipe) count(f frame, h *packet.Parsed) {
	p.packets.Add(1)
	if f.o.NeedsChecksum {
		p.partials.Add(1)
	}
	if f.o.GSO != packet.GSONone {
		p.supers.Add(1)
	} else if h.Len > testMTU {
		p.t.Errorf("%v: packet of %d bytes without GSO", h.Flow, h.Len)
	}
}

func (p *pipe) carrySegments(f frame, h *packet.Parsed) {
	segments, ok := packet.Split(f.b, h, f.o, false)
	if !ok {
		p.t.Errorf("%v: cannot be split", h.Flow)
	}
	for segments.Left() {
		head := make([]byte, segments.HeaderLen())
		payload, _ := segments.Next(head)
		p.deliverComplete(append(head, payload...))
	}
}

func (p *pipe) deliverComplete(b []byte) {
	var h packet.Parsed
	if r := packet.Parse(b, &h); r != packet.Kept || h.Len > testMTU || !packet.TransportChecksumOK(b, &h) {
		p.t.Errorf("packet of %d bytes, %v: checksum or length is wrong (%v)", h.Len, h.Flow, r)
		return
	}
	p.to.Deliver(b, &h, packet.Offload{})
}

// both runs a test with super-packets left whole and split on the way, over IPv4 and IPv6.
func both(t *testing.T, f func(t *testing.T, pr *pair, gateway netip.Addr)) {
	for _, c := range []struct {
		name    string
		split   bool
		gateway netip.Addr
	}{
		{"whole/v4", false, gateway4},
		{"whole/v6", false, gateway6},
		{"split/v4", true, gateway4},
		{"split/v6", true, gateway6},
	} {
		t.Run(c.name, func(t *testing.T) { f(t, newPair(t, c.split), c.gateway) })
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	seed := uint64(1)
	for i := range b {
		seed = seed*6364136223846793005 + 1442695040888963407
		b[i] = byte(seed >> 56)
	}
	return b
}

func equal(t *testing.T, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, want %d equal ones", len(got), len(want))
	}
}
