package e2e

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack/packet"
)

// A datagram of exactly the MTU passes as it is, one byte more in two fragments that the pod's kernel made.
func TestMTU(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay IPv6=%v", v6), func(t *testing.T) {
			cl := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}, IPv6Underlay: v6})
			near, beside, far := cl.Nodes[0].Pods[0], cl.Nodes[0].Pods[1], cl.Nodes[1].Pods[0]
			want := 1450
			if v6 {
				want = 1430
			}
			mtu := mustStatus(t, cl.Nodes[0]).MTU
			if mtu != want {
				t.Errorf("got an MTU of %d, want %d", mtu, want)
			}
			for _, to := range []*lab.Pod{beside, far} {
				for _, dst := range []netip.Addr{to.Addr4, to.Addr6} {
					full := mtu - 8 - 20
					if dst.Is6() {
						full -= 20
					}
					for extra, packets := range map[int]int{0: 1, 1: 2, 8000: 7, -1: 1} {
						seen := newCapture(t, to.Namespace)
						echoUDP(t, near.Namespace, to.Namespace, dst, []int{full + extra})
						got := 0
						for _, b := range seen.received(t) {
							var p packet.Parsed
							if packet.Parse(b, &p) == packet.Kept && p.Proto == packet.UDP {
								got++
								if p.Len > mtu || p.Fragment != (extra > 0) {
									t.Errorf("%v: a packet of %d bytes, fragment %v", dst, p.Len, p.Fragment)
								}
							}
						}
						if got != packets {
							t.Errorf("%d bytes to %v: got %d packets, want %d", full+extra, dst, got, packets)
						}
						mustPing(t, near.Namespace, dst, full+extra)
					}
					mustNotFit(t, near.Namespace, dst, full+1)
					transfer{from: near.Namespace, to: to.Namespace, addr: dst, size: 16 << 20}.run(t)
				}
			}
			for _, n := range cl.Nodes {
				if d := dropsOf(t, n); d.sum() != d["scope"] {
					t.Errorf("%s dropped %v", n.Name(), d)
				}
			}
		})
	}
}

// mustNotFit sends a datagram that must not be fragmented: the pod's kernel refuses it by the device's MTU.
func mustNotFit(t *testing.T, from *lab.Namespace, dst netip.Addr, size int) {
	t.Helper()
	c, err := from.Dial(t.Context(), "udp", netip.AddrPortFrom(dst, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if dst.Is4() {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, size)); err == nil {
		t.Errorf("%d bytes to %v that may not be fragmented: no error", size, dst)
	}
}

func TestWorkers(t *testing.T) {
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			cl := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}, Workers: workers})
			if got := mustStatus(t, cl.Nodes[0]).Workers; got != workers {
				t.Errorf("got %d workers", got)
			}
			pods := append(cl.Nodes[0].Pods, cl.Nodes[1].Pods...)
			for i, from := range pods {
				to := pods[(i+1)%len(pods)]
				mustPing(t, from.Namespace, to.Addr4, 1000)
				mustPing(t, from.Namespace, to.Addr6, 1000)
				t.Log(from.Name(), " to ", to.Name(), ": ",
					transfer{from: from.Namespace, to: to.Namespace, addr: to.Addr4, size: 64 << 20}.run(t))
				echoUDP(t, from.Namespace, to.Namespace, to.Addr6, []int{1, 100, 1000, 5000, 60000})
			}
		})
	}
}

// A number of workers that changes from one daemon to the next costs nobody a connection.
func TestWorkersChange(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{2}, Workers: 2})
	n := cl.Nodes[0]
	for _, workers := range []int{4, 1, 3} {
		worst := restartDuring(t, transfer{from: n.Pods[0].Namespace, to: n.Pods[1].Namespace, addr: n.Pods[1].Addr4}, n,
			func(t *testing.T, n *lab.Node) { n.Config.Workers = workers; killAndStart(t, n) })
		t.Logf("%d workers: longest stall %v", workers, worst.Round(time.Millisecond))
	}
}

func TestOneFamily(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*node.Config)
	}{
		{"pods with IPv4 on nodes with both", func(c *node.Config) {
			for i := range c.Pods {
				c.Pods[i].Addresses = c.Pods[i].Addresses[:1]
			}
		}},
		{"only IPv4", func(c *node.Config) {
			c.PodCIDRs = c.PodCIDRs[:1]
			for i := range c.Pods {
				c.Pods[i].Addresses = c.Pods[i].Addresses[:1]
			}
			for i := range c.Peers {
				c.Peers[i].PodCIDRs = c.Peers[i].PodCIDRs[:1]
			}
		}},
		{"only IPv6", func(c *node.Config) {
			c.PodCIDRs = c.PodCIDRs[1:]
			for i := range c.Pods {
				c.Pods[i].Addresses = c.Pods[i].Addresses[1:]
			}
			for i := range c.Peers {
				c.Peers[i].PodCIDRs = c.Peers[i].PodCIDRs[1:]
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cl := newCluster(t, lab.ClusterConfig{Change: func(_ int, c *node.Config) { tt.change(c) }})
			near := cl.Nodes[0].Pods[0]
			for _, to := range []*lab.Pod{cl.Nodes[0].Pods[1], cl.Nodes[1].Pods[0]} {
				addr, other := to.Addr4, to.Addr6
				if !cl.Nodes[0].Config.Pods[0].Addresses[0].Is4() {
					addr, other = other, addr
				}
				mustPing(t, near.Namespace, addr, 56)
				transfer{from: near.Namespace, to: to.Namespace, addr: addr, size: 4 << 20}.run(t)
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				if _, err := near.Ping(ctx, other, 56); err == nil {
					t.Errorf("ping %v: a reply from an address that no pod has", other)
				}
				cancel()
			}
		})
	}
}

// The echo service of the gateway is reached over UDP and TCP, from the node's own pods and from those of another.
func TestEcho(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{})
	mtu := mustStatus(t, cl.Nodes[0]).MTU
	for _, pod := range []*lab.Pod{cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]} {
		for _, gateway := range []netip.Addr{host(lab.PodCIDR4(1), 1), host(lab.PodCIDR6(1), 1)} {
			t.Run(fmt.Sprintf("%s to %v", pod.Name(), gateway), func(t *testing.T) {
				mustPing(t, pod.Namespace, gateway, 1000)
				addr := netip.AddrPortFrom(gateway, 7).String()
				c := dial(t, pod.Namespace, "udp", addr)
				for _, size := range []int{1, 100, mtu - 48, mtu, 9000, 60000} {
					exchange(t, c, size)
				}
				c = dial(t, pod.Namespace, "tcp", addr)
				for _, size := range []int{1, 1000, 100_000, 1 << 20} {
					exchange(t, c, size)
				}
			})
		}
	}
	for _, n := range cl.Nodes {
		if d := dropsOf(t, n); d.sum() != d["scope"] {
			t.Errorf("%s dropped %v", n.Name(), d)
		}
	}
}

func dial(t *testing.T, from *lab.Namespace, network, addr string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	c, err := lab.Sockets{Namespace: from, Congestion: "cubic"}.Dial(ctx, network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends bytes and expects the same back, in one datagram where c is made of them.
func exchange(t *testing.T, c net.Conn, size int) {
	t.Helper()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	want, got := make([]byte, size), make([]byte, size)
	fill(rand.New(rand.NewPCG(9, uint64(size))), want)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- err
	}()
	_, err := io.ReadFull(c, got)
	if werr := <-sent; err != nil || werr != nil || string(got) != string(want) {
		t.Fatalf("%d bytes over %s: %v, %v", size, c.RemoteAddr().Network(), werr, err)
	}
}

// Many connections at once between two nodes, each with data of its own in both directions.
func TestManyConnections(t *testing.T) {
	connections, size := fewer(200), 256<<10
	cl := newCluster(t, lab.ClusterConfig{})
	from, to := cl.Nodes[0].Pods, cl.Nodes[1].Pods
	var addrs []string
	for _, pod := range to {
		for _, a := range []netip.Addr{pod.Addr4, pod.Addr6} {
			l, err := lab.Sockets{Namespace: pod.Namespace, Congestion: "cubic"}.Listen("tcp", netip.AddrPortFrom(a, 8080).String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			addrs = append(addrs, l.Addr().String())
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						io.Copy(c, c)
					}()
				}
			}()
		}
	}
	conns := make([]net.Conn, connections)
	for i := range conns { // all stand before the first one moves data
		conns[i] = dial(t, from[i%len(from)].Namespace, "tcp", addrs[i%len(addrs)])
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			if err := echoed(c, uint64(i), size); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d connections, %d KiB each way on each, in %v", connections, size>>10, time.Since(start).Round(time.Millisecond))
	for _, n := range cl.Nodes {
		if d := dropsOf(t, n); d.sum() != d["scope"] {
			t.Logf("%s dropped %v", n.Name(), d)
		}
	}
}

// echoed sends a stream of its own and compares what comes back.
func echoed(c net.Conn, seed uint64, size int) error {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, size)
	fill(rand.New(rand.NewPCG(11, seed)), b)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(b)
		c.(*net.TCPConn).CloseWrite()
		sent <- err
	}()
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, c)
	if werr := <-sent; err != nil || werr != nil {
		return errors.Join(werr, err)
	}
	if want := crc32.Checksum(b, castagnoli); n != int64(size) || sum.Sum32() != want {
		return fmt.Errorf("%d bytes with sum %08x came back, want %d with %08x", n, sum.Sum32(), size, want)
	}
	return nil
}
