package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

// udpClients is how many there are at once, and clientMemory what a daemon may need for them, in bytes.
const (
	udpClients   = 10_000
	clientMemory = 128 << 20
)

// TestManyClients: 10,000 sockets of UDP at once through one NodePort and through egress, all answered, in bounded memory.
func TestManyClients(t *testing.T) {
	for i := range len(families) * waysEach {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c := newCluster(t, lab.ClusterConfig{}) // with an empty flow table
			w := c.ways(t, "udp")[i]
			serve(t, w.server, w.at)
			before, begin := c.resident(c.Nodes[0]), time.Now()
			askMany(t, w, fewer(udpClients))
			after := c.resident(c.Nodes[0])
			t.Logf("%s: %d clients in %v: %d MiB before, %d MiB after", w.name, fewer(udpClients), time.Since(begin).Round(time.Millisecond), before>>20, after>>20)
			if after > before+clientMemory {
				t.Errorf("the daemon grew from %d to %d MiB", before>>20, after>>20)
			}
		})
	}
}

// askMany asks by n sockets that are open at the same time.
func askMany(t *testing.T, w way, n int) {
	t.Helper()
	conns, errs := make([]net.Conn, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range conns {
		var err error
		if conns[i], err = dial(w.from, "udp", w.to, patience); err != nil {
			t.Fatalf("socket %d: %v", i, err)
		}
		defer conns[i].Close()
	}
	const crew = 50 // that ask at once
	for worker := range crew {
		wg.Go(func() {
			for i := worker; i < n; i += crew {
				errs[i] = mustHear(conns[i], w.server.Name())
			}
		})
	}
	wg.Wait()
	for i := 0; i < n; i += 97 { // those asked first are still there
		if errs[i] == nil {
			errs[i] = mustHear(conns[i], w.server.Name())
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Errorf("%.1000v", err)
	}
}

// mustHear asks up to five times, since a busy machine loses datagrams.
func mustHear(c net.Conn, name string) (err error) {
	for range 5 {
		if _, err = c.Write([]byte("?")); err != nil {
			continue
		}
		var got said
		if got, err = hear(c, 2*time.Second); err == nil && got.name != name {
			return fmt.Errorf("%v: %s answered", c.LocalAddr(), got.name)
		}
		if err == nil {
			return nil
		}
	}
	return err
}

// TestUDPStays: a client that keeps its socket keeps its flow though the daemon is killed, in and out.
func TestUDPStays(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	for _, w := range c.ways(t, "udp") {
		t.Run(w.name, func(t *testing.T) {
			serve(t, w.server, w.at)
			awaitAnswer(t, w.from, "udp", w.to)
			conn, err := dial(w.from, "udp", w.to, patience)
			c.must(err)
			defer conn.Close()
			first, err := askOn(conn)
			c.must(err)
			c.restart(c.Nodes[0])
			awaitAnswer(t, w.from, "udp", w.to)
			again, err := askOn(conn)
			if err != nil || again.name != first.name {
				t.Errorf("got %v (%v), want %v", again, err, first)
			}
		})
	}
}

// TestSamePort: one socket of a client outside asks node ports of two nodes and two Services, and each answer comes from where it was
// asked.
func TestSamePort(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	servePod(t, c.pod(1, 1))
	c.put(service("one", 0), onPod(1, c.pod(1, 1)))
	c.put(service("two", 1), onPod(1, c.pod(1, 1)))
	for _, f := range families {
		var asked []netip.AddrPort
		for number := range 2 {
			for n := 1; n <= 2; n++ {
				to := netip.AddrPortFrom(f.node(n), nodePort(number))
				awaitAnswer(t, c.outside(f.outside(2)), "udp", to)
				asked = append(asked, to)
			}
		}
		conn, err := c.External.ListenPacket("udp", netip.AddrPortFrom(f.outside(2), 5000).String())
		c.must(err)
		buf := make([]byte, 100)
		for _, to := range append(asked, asked...) {
			eventually(t, fmt.Sprintf("%v answers", to), func() bool {
				_, _ = conn.WriteTo([]byte("?"), net.UDPAddrFromAddrPort(to))
				_ = conn.SetReadDeadline(time.Now().Add(time.Second))
				_, from, err := conn.ReadFrom(buf)
				if err == nil && from.String() != to.String() {
					t.Errorf("asked %v, and %v answers", to, from)
				}
				return err == nil
			})
		}
		c.must(conn.Close())
	}
}
