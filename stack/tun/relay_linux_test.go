package tun_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
)

// relay carries frames between two pods; each is taken apart into packets, and these are merged again.
type relay struct {
	ends    [2]queue
	partial bool         // leave checksums open between splitting and merging, as between nodes that agreed on it
	seen    func([]byte) // every frame, as it was read; may be nil

	segments, trains atomic.Int64 // packets that were in super-packets, and super-packets written
	stop             atomic.Bool
	group            sync.WaitGroup
}

func (r *relay) start(t testing.TB) {
	for i := range r.ends {
		r.group.Go(func() { r.carry(t, r.ends[i], r.ends[1-i]) })
	}
	t.Cleanup(r.end)
}

func (r *relay) end() {
	r.stop.Store(true)
	r.group.Wait()
}

func (r *relay) carry(t testing.TB, from, to queue) {
	f := make([]byte, packet.VnetLen+packet.MaxSize+40)
	var train packet.Train
	for !r.stop.Load() {
		if !readable(from.FD(), 20*time.Millisecond) {
			continue
		}
		for range 16 {
			n, err := from.Read(f)
			if err != nil {
				break
			}
			if r.seen != nil {
				r.seen(f[:n])
			}
			segs, err := expand(f[:n], r.partial)
			if err != nil {
				t.Errorf("relay: %v", err)
				continue
			}
			if len(segs) > 1 {
				r.segments.Add(int64(len(segs)))
			}
			o, _ := packet.DecodeOffload(f)
			for _, s := range segs {
				r.merge(t, &train, s, o.NeedsChecksum && r.partial, to)
			}
		}
		r.flush(t, &train, to)
	}
}

func (r *relay) merge(t testing.TB, train *packet.Train, s []byte, partial bool, to queue) {
	var p packet.Parsed
	if reason := packet.Parse(s[packet.VnetLen:], &p); reason != packet.Kept {
		t.Errorf("relay: a segment is %v", reason)
		return
	}
	var o packet.Offload
	if partial && p.Payload > 0 {
		o = packet.PartialOffload(&p)
	}
	if !train.Empty() && train.Append(s[packet.VnetLen:], &p, o) {
		return
	}
	r.flush(t, train, to)
	train.Start(s, &p, o)
}

func (r *relay) flush(t testing.TB, train *packet.Train, to queue) {
	if train.Empty() {
		return
	}
	if train.Count() > 1 {
		r.trains.Add(1)
	}
	packet.DecrementTTL(train.First())
	frame, more := train.Finish()
	if err := to.Write(frame, more); err != nil {
		t.Errorf("relay: write %d bytes in %d parts: %v", train.Len(), 1+len(more), err)
	}
	train.Reset()
}

// TestRelay moves data between two pods through a relay that takes everything apart and merges it again.
func TestRelay(t *testing.T) {
	for _, b := range backends {
		for _, partial := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, partial %v", b.name, partial), func(t *testing.T) {
				one, two := newPod(t, b, 2), newPod(t, b, 3)
				r := &relay{ends: [2]queue{one.queue, two.queue}, partial: partial}
				r.start(t)
				for _, v6 := range []bool{false, true} {
					addr := two.v4
					if v6 {
						addr = two.v6
					}
					relayTCP(t, one, two, addr)
					for _, gro := range []int{0, 1} {
						relayUDP(t, b, one, two, addr, 5000+uint16(gro), gro)
					}
				}
				t.Logf("%d segments of super-packets, %d merged super-packets written", r.segments.Load(), r.trains.Load())
				if b.name == "device" && (r.segments.Load() < 1000 || r.trains.Load() < 100) {
					t.Errorf("got %d segments and %d merged super-packets: nothing was tested", r.segments.Load(), r.trains.Load())
				}
			})
		}
	}
}

// relayTCP sends data both ways at once and compares hashes.
func relayTCP(t *testing.T, client, server *pod, addr netip.Addr) {
	t.Helper()
	const size = 8 << 20
	l, err := lab.Sockets{Namespace: server.Namespace, Congestion: "cubic"}.Listen("tcp", netip.AddrPortFrom(addr, 80).String())
	must(t, err)
	defer l.Close()
	type result struct {
		sum [32]byte
		err error
	}
	exchange := func(c io.ReadWriteCloser, fill byte) (got result) {
		sent := make(chan error, 1)
		go func() {
			data := bytes.Repeat([]byte{fill, 1, 2, 3, 5, 7, 11}, size/7)
			_, err := c.Write(data)
			sent <- err
		}()
		h := sha256.New()
		_, got.err = io.CopyN(h, c, size/7*7)
		copy(got.sum[:], h.Sum(nil))
		if err := <-sent; err != nil {
			got.err = err
		}
		return got
	}
	results := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			results <- result{err: err}
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		results <- exchange(c, 's')
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := lab.Sockets{Namespace: client.Namespace, Congestion: "cubic"}.Dial(ctx, "tcp", l.Addr().String())
	must(t, err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	got := map[byte]result{'s': exchange(c, 'c'), 'c': <-results}
	for fill, r := range got {
		want := sha256.Sum256(bytes.Repeat([]byte{fill, 1, 2, 3, 5, 7, 11}, size/7))
		if r.err != nil || r.sum != want {
			t.Errorf("TCP to %v: sent by %c: %v, hash equal: %v", addr, fill, r.err, r.sum == want)
		}
	}
}

// relayUDP sends super-packets, each answered, to a receiver with or without UDP_GRO.
func relayUDP(t *testing.T, b backend, client, server *pod, addr netip.Addr, port uint16, gro int) {
	t.Helper()
	l := listenUDP(t, server, addr, port)
	setUDP(t, l, unix.UDP_GRO, gro)
	c := dialUDP(t, client, netip.AddrPortFrom(addr, port))
	setUDP(t, c, unix.UDP_SEGMENT, 1200)
	joined := false
	for round := range 40 {
		want := pattern(1200*(round+2) - round)
		_, err := c.Write(want)
		mustSegment(t, b, err)
		var got []byte
		data := make([]byte, 70_000)
		for len(got) < len(want) {
			must(t, l.SetReadDeadline(time.Now().Add(3*time.Second)))
			n, err := l.Read(data)
			if err != nil {
				t.Fatalf("UDP to %v, GRO %d: got %d of %d bytes: %v", addr, gro, len(got), len(want), err)
			}
			joined = joined || n > 1200
			got = append(got, data[:n]...)
		}
		if sha256.Sum256(got) != sha256.Sum256(want) {
			t.Fatalf("UDP to %v, GRO %d, round %d: got other bytes", addr, gro, round)
		}
	}
	if joined && gro == 0 {
		t.Errorf("UDP to %v: a datagram came joined although nobody asked for it", addr)
	}
	if server.queue.Takes(packet.GSOUDP) && !joined && gro == 1 {
		t.Errorf("UDP to %v: no datagrams came joined", addr)
	}
}

// TestSplitAgainstKernelReal takes super-packets that the kernel made for real connections.
func TestSplitAgainstKernelReal(t *testing.T) {
	one, two := newPod(t, backends[0], 2), newPod(t, backends[0], 3)
	var mu sync.Mutex
	var taken [][]byte
	count := map[packet.GSO]int{}
	rel := &relay{ends: [2]queue{one.queue, two.queue}, seen: func(f []byte) {
		o, _ := packet.DecodeOffload(f)
		mu.Lock()
		defer mu.Unlock()
		var p packet.Parsed
		packet.Parse(f[packet.VnetLen:], &p)
		if p.Flow.Dst() == two.v4 || p.Flow.Dst() == two.v6 { // what the router knows
			if count[o.GSO]++; o.GSO != packet.GSONone && count[o.GSO] <= 25 {
				taken = append(taken, bytes.Clone(f))
			}
		}
	}}
	rel.start(t)
	for _, addr := range []netip.Addr{two.v4, two.v6} {
		relayTCP(t, one, two, addr)
		relayUDP(t, backends[0], one, two, addr, 5000, 0)
	}
	rel.end()
	for _, kind := range []packet.GSO{packet.GSOTCP4, packet.GSOTCP6, packet.GSOUDP} {
		if count[kind] < 10 && one.queue.Takes(kind) {
			t.Errorf("only %d super-packets of kind %d", count[kind], kind)
		}
	}
	r := newRouter(t)
	for _, f := range taken {
		ours := forwarded(t, f)
		compare(t, "real", ours, r.through(t, f, nil, len(ours)))
		r.again(t, "real", f, false)
		r.again(t, "real", f, true)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d super-packets compared", len(taken))
}
