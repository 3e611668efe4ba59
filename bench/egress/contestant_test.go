package egress

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/bench"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/perf"
)

func init() {
	flag.IntVar(&queueLen, "queue", queueLen, "length of the queue from the pod to a program's TAP device, in frames; 0: as the program leaves it")
	flag.StringVar(&tapVsockProgram, "tapvsock", "", "program of bench/tapvsock to compare with; default: bin/tapvsock, else the one in PATH")
}

func TestMain(m *testing.M) { lab.Main(m) }

// mtus are those of the pod's device.
var mtus = []int{1500, 65520}

// joined makes a way, or skips where this machine cannot.
func joined(t testing.TB, c Contestant, mtu int) *bench.Pair {
	t.Helper()
	p, err := c.Join(mtu)
	if errors.Is(err, errLacking) || errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("nothing to compare with: %v", err)
	}
	if err != nil {
		t.Fatalf("%s: %v", c.Name(), err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// What cannot carry data unharmed has no speed.
func TestContestantsCarryData(t *testing.T) {
	everyWay(t, func(t *testing.T, p *bench.Pair) {
		if sent, got := echoed(t, p, 4<<20); got != sent {
			t.Errorf("hash of what came back: got %x, want %x", got, sent)
		}
	})
}

// All kinds of load work over ours and every contestant.
func TestRun(t *testing.T) {
	everyWay(t, func(t *testing.T, p *bench.Pair) {
		for _, kind := range []perf.Kind{perf.TCP, perf.Download, perf.UDP, perf.TCPLatency, perf.Connections} {
			if kind == perf.UDP && len(p.Streams) > 0 {
				continue // Streams are of TCP
			}
			var r bench.Result
			var err error
			// On a machine that is busy with other things nothing may arrive within so short a time.
			for deadline := time.Now().Add(10 * time.Second); r.Bytes+r.Requests == 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				r, err = bench.Run(p, perf.Test{Kind: kind, WarmUp: 20 * time.Millisecond, Time: 50 * time.Millisecond})
			}
			if err != nil || r.Bytes+r.Requests == 0 || r.GeneratorCPU() <= 0 || (r.DaemonCPU > 0) != (len(p.Daemons) > 0) {
				t.Errorf("%s: got %+v, %v, want something, and processor time of the daemons if there are any", kind, r, err)
			}
		}
	})
}

func everyWay(t *testing.T, test func(*testing.T, *bench.Pair)) {
	for _, c := range append([]Contestant{middleway{}, nodePort{}, kubeProxy{}}, contestants...) {
		for _, mtu := range mtus {
			t.Run(fmt.Sprintf("%T/mtu=%d", c, mtu), func(t *testing.T) { test(t, joined(t, c, mtu)) })
		}
	}
}

// echoed sends random bytes to an echo server outside and returns the hashes of what went there and what came back.
func echoed(t *testing.T, p *bench.Pair, size int64) (sent, got [sha256.Size]byte) {
	t.Helper()
	l, to, err := listen(p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for { // the question whether the pod is reached may come late through a proxy, and first
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := p.From.Dial(ctx, "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	out, back := sha256.New(), sha256.New()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.MultiWriter(c, out), rand.NewChaCha8([32]byte{1}), size)
		done <- err
	}()
	if _, err := io.CopyN(back, c, size); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	return [sha256.Size]byte(out.Sum(nil)), [sha256.Size]byte(back.Sum(nil))
}
