package cni

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

func TestKills(t *testing.T) {
	kills := 200
	if testing.Short() {
		kills = 20
	}
	testKills(t, kills, 7)
}

func TestSoakKills(t *testing.T) {
	if os.Getenv("MIDDLEWAY_SOAK") != "1" {
		t.Skip("long: set MIDDLEWAY_SOAK=1")
	}
	for seed := range uint64(10) {
		testKills(t, 500, seed)
	}
}

// testKills kills plugins and the daemon at random instants while pods come and go. Whatever was added works, and after
// DEL or GC nothing is left of the rest.
func testKills(t *testing.T, kills int, seed uint64) {
	n := newNode(t, func(c *node.Config) { c.CNI.Interval = node.Duration(100 * time.Millisecond) })
	k := &killer{t: t, n: n, r: newRuntime(t, n, "1.1.0", nil), rnd: rand.New(rand.NewPCG(seed, 1))}
	k.keepers = []*sandbox{k.r.sandbox("keeper-0"), k.r.sandbox("keeper-1")}
	for _, s := range k.keepers {
		begin := time.Now()
		k.r.mustAdd(s)
		k.span = 5 * time.Since(begin)
	}
	for i := range 5 {
		k.pods = append(k.pods, k.r.sandbox(fmt.Sprintf("pod-%d", i)))
	}
	for rounds := 1; int(k.killed.Load()) < kills; rounds++ {
		k.round()
		if t.Failed() {
			t.Fatalf("seed %d, round %d", seed, rounds)
		}
	}
	t.Logf("%d kills, %d of them of the daemon; %d ADDs succeeded, %d did not; kills within %v", k.killed.Load(), k.daemons, k.added, k.failed, k.span)

	if err := k.r.gc(k.keepers...); err != nil {
		t.Error(err)
	}
	k.mustBeLeft(len(k.keepers))
	mustReach(k.t, k.keepers[0], k.keepers[1].addrs[0])
	for _, s := range k.keepers {
		k.r.mustDel(s)
	}
	eventually(t, "nothing is left", func() bool { return len(left(t, n)) == 0 })
}

type killer struct {
	t       *testing.T
	n       *lab.Node
	r       *runtime
	rnd     *rand.Rand
	span    time.Duration // within which after its start a process is killed
	keepers []*sandbox
	pods    []*sandbox

	killed                 atomic.Int32
	daemons, added, failed int
}

// round adds all pods, kills, and takes away what came of it.
func (k *killer) round() {
	restarted := k.killDaemonSoon()
	killed, errs := k.each(0.6, (*runtime).addOnly)
	daemonKilled := <-restarted
	for i, s := range k.pods {
		var e *types.Error
		switch {
		case errs[i] == nil:
			k.added++
			mustReach(k.t, s, k.keepers[0].addrs[k.rnd.IntN(2)])
			mustReach(k.t, k.keepers[1], s.addrs[k.rnd.IntN(2)])
			continue
		case !killed[i] && (!daemonKilled || !errors.As(errs[i], &e) || e.Code != 11):
			k.t.Errorf("ADD of %s: %v; want success, or code 11 while the daemon is away", s.Name(), errs[i])
		}
		k.failed++
	}
	restarted = k.killDaemonSoon()
	k.each(0.3, (*runtime).del)
	byGC := k.rnd.IntN(4) == 0
	if byGC {
		<-restarted
		if err := k.r.gc(k.keepers...); err != nil {
			k.t.Error(err)
		}
	} else {
		_, errs = k.each(0, (*runtime).del)
		if err := errors.Join(errs...); err != nil {
			k.t.Error(err)
		}
		<-restarted
	}
	for _, s := range k.pods {
		// A daemon that started while DEL found none may have its hand on the device until it sees the tombstone.
		eventually(k.t, "no device is left in "+s.Name(), func() bool { return len(devices(k.t, s.Namespace)) == 0 })
	}
	k.mustBeLeft(len(k.keepers))
}

func (r *runtime) addOnly(s *sandbox) error {
	_, err := r.add(s)
	return err
}

// each calls f for all pods at once, and kills the plugins of some.
func (k *killer) each(share float64, f func(*runtime, *sandbox) error) (killed []bool, errs []error) {
	killed, errs = make([]bool, len(k.pods)), make([]error, len(k.pods))
	var wg sync.WaitGroup
	for i, s := range k.pods {
		e := newExecutor()
		if k.rnd.Float64() < share {
			after := time.Duration(k.rnd.Int64N(int64(k.span)))
			e.onStart(func(p *os.Process) { time.AfterFunc(after, func() { _ = p.Kill() }) })
		}
		wg.Go(func() {
			errs[i] = f(k.r.with(e), s)
			var exit *exec.ExitError
			if errors.As(errs[i], &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
				killed[i] = true
				k.killed.Add(1)
			}
		})
	}
	wg.Wait()
	return killed, errs
}

// killDaemonSoon kills the daemon in two of three rounds and starts it again; the result tells whether it did.
func (k *killer) killDaemonSoon() <-chan bool {
	done := make(chan bool, 1)
	if k.rnd.IntN(3) == 0 {
		done <- false
		return done
	}
	after := time.Duration(k.rnd.Int64N(int64(2 * k.span)))
	pause := time.Duration(k.rnd.Int64N(int64(k.span)))
	k.daemons++
	go func() {
		time.Sleep(after)
		if err := k.n.Daemon().Kill(); err != nil {
			k.t.Error(err)
		}
		k.killed.Add(1)
		time.Sleep(pause)
		if err := k.n.Start(); err != nil {
			k.t.Error(err)
		} else if err := k.n.WaitReady(15 * time.Second); err != nil {
			k.t.Error(err)
		}
		done <- true
	}()
	return done
}

// mustBeLeft waits until the node knows of so many pods and of nothing else.
func (k *killer) mustBeLeft(pods int) {
	k.t.Helper()
	var got []string
	want := append(slices.Repeat([]string{"lease"}, pods), fmt.Sprint(pods, " attachments"))
	ok := func() bool {
		got = left(k.t, k.n)
		queues := 0
		rest := slices.DeleteFunc(slices.Clone(got), func(s string) bool {
			if s == openQueue {
				queues++
				return true
			}
			return false
		})
		for i := range rest {
			if len(rest[i]) > 5 && rest[i][:5] == "lease" {
				rest[i] = "lease"
			}
		}
		return slices.Equal(rest, want) && queues == pods*mustStatus(k.t, k.n).Workers
	}
	end := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			k.t.Fatalf("left: %v; want %d pods", got, pods)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
