package bench

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
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

func TestLoad(t *testing.T) {
	p := join(t, Kernel{}, SameNode)
	r, err := Load{Streams: 2, WarmUp: 20 * time.Millisecond, Time: 50 * time.Millisecond}.Run(p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Bytes == 0 || r.Elapsed < 50*time.Millisecond || r.DaemonCPU != 0 {
		t.Errorf("got %+v, want bytes in at least 50ms and no daemon", r)
	}
	if _, err := (Load{Congestion: "none-such"}).Run(p); err == nil {
		t.Error("a congestion control that does not exist: got no error")
	}
}

func TestMedianOfRatios(t *testing.T) {
	of := func(bytes ...int64) (results []Result) {
		for _, n := range bytes {
			results = append(results, Result{Bytes: n, Elapsed: time.Second})
		}
		return results
	}
	if got := Median(Ratios(of(1, 8, 3), of(2, 2, 3))); got != 1 {
		t.Errorf("median of 0.5, 4 and 1: got %v", got)
	}
	if got := Median(Rates(of(1e9, 2e9))); got != 12 {
		t.Errorf("median of 8 and 16 Gbit/s: got %v", got)
	}
}
