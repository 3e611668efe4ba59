package cni

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"
)

// A plugin that does not say its last word keeps nobody else's tombstone from being obeyed.
func TestWatchWaitsForNobody(t *testing.T) {
	d := newDaemon(t, t.TempDir())
	d.mustAdd("a")
	d.mustAdd("b")
	c, err := d.add("silent")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"silent", "b"} {
		if err := bury(d.socket(), keyOf(id)); err != nil {
			t.Fatal(err)
		}
	}
	looked := make(chan struct{})
	go func() {
		d.server.lookAround()
		close(looked)
	}()
	select {
	case <-looked:
	case <-time.After(20 * time.Second):
		t.Fatal("the watch waits for the plugin")
	}
	d.mustHave("a", "silent")
	c.Close()
	d.mustServe(0)
	d.mustHave("a")
	d.server.lookAround()
	mustLie(t, tombstoneDir(d.socket()))
}

// A plugin that has its device and says nothing is waited for until it must have ended.
func TestLastWordIsLate(t *testing.T) {
	d := newDaemon(t, t.TempDir(), func(s *Server) { s.patience = 10 * time.Millisecond })
	if _, err := d.add("silent"); err != nil {
		t.Fatal(err)
	}
	d.mustHave()
}

// Who has hung up while he waited for his turn has nothing done for him.
func TestHungUp(t *testing.T) {
	for _, op := range []string{opDel, opGC, opAdd} {
		t.Run(op, func(t *testing.T) {
			d := newDaemon(t, t.TempDir())
			d.mustAdd("a")
			d.mustServe(0)
			id := "a"
			if op == opAdd {
				id = "b"
			}
			unlock := d.server.lock(keyOf(id))
			c := d.dial()
			if err := c.send(d.request(op, id)); err != nil {
				t.Fatal(err)
			}
			d.mustServe(1)
			c.Close()
			unlock()
			d.mustServe(0)
			d.mustHave("a")
		})
	}
}

// However many devices are busy, a start waits for them once.
func TestReopenPatience(t *testing.T) {
	d := newDaemon(t, t.TempDir())
	fail := map[string]error{}
	const pods = 50
	for i := range pods {
		id := fmt.Sprintf("pod-%02d", i)
		d.mustAdd(id)
		fail["adopt "+id] = fmt.Errorf("open: %w", syscall.EBUSY)
	}
	d.stop()
	d.node.failWith(fail)
	s, leases := d.again()
	most := pods + int(reopenPatience/reopenPause) + 1
	if d.node.asks > most || len(leases.All()) != pods {
		t.Errorf("%d devices were asked for %d times, at most %d expected; %d leases", pods, d.node.asks, most, len(leases.All()))
	}
	d.node.failWith(map[string]error{"adopt pod-00": errors.New("mine")})
	s.lookAround()
	if s.Attached(keyOf("pod-00")) || !s.Attached(keyOf("pod-01")) {
		t.Error("the watch did not take up what a start left")
	}
}
