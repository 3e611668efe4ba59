package bench

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/perf"
)

// What cannot carry data unharmed has no speed.
func TestContestantsCarryData(t *testing.T) {
	for _, place := range Places {
		for _, c := range contestants {
			t.Run(string(place)+"/"+c.Name(), func(t *testing.T) {
				p := join(t, c, place)
				if sent, got := carry(t, p, 8<<20); got != sent {
					t.Errorf("hash of what arrived: got %x, want %x", got, sent)
				}
			})
		}
	}
}

// carry sends random bytes over a pair and returns the hashes of what went in and what came out.
func carry(t *testing.T, p *Pair, size int64) (sent, got [sha256.Size]byte) {
	t.Helper()
	l, err := lab.Sockets{Namespace: p.To, Congestion: "cubic"}.Listen("tcp", netip.AddrPortFrom(p.Addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	received := make(chan [sha256.Size]byte, 1)
	go func() {
		h := sha256.New()
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(h, c)
			_ = c.Close()
		}
		received <- [sha256.Size]byte(h.Sum(nil))
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := lab.Sockets{Namespace: p.From, Congestion: "cubic"}.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	h := sha256.New()
	random := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(io.MultiWriter(c, h), random, size); err != nil {
		t.Error(err)
	}
	_ = c.Close()
	return [sha256.Size]byte(h.Sum(nil)), <-received
}

// All kinds of load work over every contestant.
func TestRun(t *testing.T) {
	for _, place := range Places {
		for _, c := range contestants {
			t.Run(string(place)+"/"+c.Name(), func(t *testing.T) { runAll(t, join(t, c, place)) })
		}
	}
}

func runAll(t *testing.T, p *Pair) {
	for _, kind := range []perf.Kind{perf.TCP, perf.UDP, perf.TCPLatency, perf.UDPLatency, perf.Connections} {
		var r Result
		var err error
		// On a machine that is busy with other things nothing may arrive within so short a time.
		for deadline := time.Now().Add(30 * time.Second); r.Bytes+r.Requests == 0 && time.Now().Before(deadline); {
			if r, err = Run(p, perf.Test{Kind: kind, WarmUp: 20 * time.Millisecond, Time: 50 * time.Millisecond}); err != nil {
				t.Logf("%s: %v", kind, err)
			}
		}
		if err != nil || r.Bytes+r.Requests == 0 || r.GeneratorCPU() <= 0 || (r.DaemonCPU > 0) != (len(p.Daemons) > 0) {
			t.Errorf("%s: got %+v, %v, want something, and processor time of the daemons if there are any", kind, r, err)
		}
	}
}

func TestRunFails(t *testing.T) {
	p := join(t, Kernel{}, SameNode)
	if _, err := Run(p, perf.Test{Congestion: "none-such"}); err == nil || !strings.Contains(err.Error(), "none-such") {
		t.Errorf("a congestion control that does not exist: got %v", err)
	}
}

func TestRounds(t *testing.T) {
	of := func(bytes ...int64) (results []Result) {
		for _, n := range bytes {
			results = append(results, Result{Result: perf.Result{Bytes: n, Elapsed: time.Second}})
		}
		return results
	}
	size := func(r Result) float64 { return float64(r.Bytes) }
	r := Rounds{Own: of(2, 16, 3), Kernel: of(4, 4, 4, 2)}
	if got := Median(r.Ratios(size)); got != 1 {
		t.Errorf("median of 2/4, 16/4 and 3/3: got %v", got)
	}
	if got := r.Noise(size); got != 0 {
		t.Errorf("median of 0, 0 and a half: got %v", got)
	}
	if got := (Rounds{Own: of(1, 1), Kernel: of(2, 3, 1)}).Noise(size); got < 0.58 || got > 0.59 {
		t.Errorf("median of a half and two thirds: got %v", got)
	}
	if got := Median(Figures(of(1, 2), size)); got != 1.5 {
		t.Errorf("median of 1 and 2: got %v", got)
	}
}
