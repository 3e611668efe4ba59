package stack

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// fakeExits makes exits that answer each packet at the end of the batch.
type fakeExits struct {
	fakeNode
	fail  error
	exits []*fakeExit
}

func (f *fakeExits) Exit(inject func(packet.Offload, ...[]byte)) (Exit, error) {
	if f.fail != nil && len(f.exits) > 0 {
		return nil, f.fail
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	e := &fakeExit{inject: inject, fd: fd}
	f.exits = append(f.exits, e)
	return e, nil
}

type fakeExit struct {
	inject func(packet.Offload, ...[]byte)
	fd     int

	mu     sync.Mutex
	owed   [][]byte // answers
	did    []string
	closed int
}

func (e *fakeExit) Deliver(b []byte, _ *packet.Parsed, _ packet.Offload) {
	e.note("deliver")
	e.owed = append(e.owed, answerTo(slices.Clone(b))[packet.VnetLen:])
}

func (e *fakeExit) FD() int { return e.fd }

func (e *fakeExit) Ready() {
	var b [8]byte
	_, _ = unix.Read(e.fd, b[:])
	e.note("ready")
}

func (e *fakeExit) Flush() {
	for _, b := range e.owed {
		e.inject(packet.Offload{}, b[:20], b[20:])
	}
	e.owed = nil
}

func (e *fakeExit) Stop() { e.note("stop") }

func (e *fakeExit) Close() {
	e.closed++
	_ = unix.Close(e.fd)
}

func (e *fakeExit) note(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.did = append(e.did, what)
}

func (e *fakeExit) last() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.did) == 0 {
		return ""
	}
	return e.did[len(e.did)-1]
}

// TestExit: each worker hands what leaves to a part of its own, which is told when its descriptor is ready and sends at the end of a
// batch, until the worker stops.
func TestExit(t *testing.T) {
	out := &fakeExits{}
	d := newBed(t, 2, func(c *Config) { c.Outside = out })
	if len(out.exits) != 2 {
		t.Fatalf("got %d exits, want 2", len(out.exits))
	}
	t.Cleanup(func() { // after Run has ended
		for i, e := range out.exits {
			if e.last() != "stop" {
				t.Errorf("exit %d: the last call was %q, want stop", i, e.last())
			}
		}
	})
	d.run(t)
	for i, e := range out.exits {
		d.a.Inject(i, packettest.Packet{Src: podA, Dst: server, Proto: packet.TCP, SrcPort: uint16(4000 + i), DstPort: 443, Flags: packet.SYN}.Frame())
		if got := d.outcome(t); got.where != "a" {
			t.Errorf("exit %d: the answer: got %s, want a", i, got.where)
		}
		if e.last() != "deliver" {
			t.Errorf("exit %d: the last call was %q, want deliver", i, e.last())
		}
		if _, err := unix.Write(e.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the exit is told that it is ready", func() bool { return e.last() == "ready" })
	}
}

// A stack that cannot be built leaves no exit open.
func TestExitFails(t *testing.T) {
	out := &fakeExits{fail: errors.New("no exit")}
	if _, err := New(Config{Workers: 2, Node: &fakeNode{}, NodeAddrs: []netip.Addr{gateway}, Outside: out}); !errors.Is(err, out.fail) {
		t.Errorf("got %v, want %v", err, out.fail)
	}
	if n := out.exits[0].closed; n != 1 {
		t.Errorf("the first exit was closed %d times, want once", n)
	}
}
