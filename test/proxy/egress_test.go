package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// TestEgress: pods reach the outside over TCP, UDP and ICMP echo, as their node.
func TestEgress(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{})
	c.serveOutside(t)
	for _, f := range families {
		for number, pod := range []*lab.Pod{c.pod(1, 1), c.pod(2, 1)} {
			for _, network := range networks {
				mustAsk(t, pod, network, netip.AddrPortFrom(f.outside(1), outsidePort), "external", f.node(number+1))
			}
			for _, size := range []int{0, 56, 1400, 8000} {
				var err error
				for range 3 { // a busy machine loses some
					if err = ping(pod.Namespace, f.outside(1), size, patience/4); err == nil {
						break
					}
				}
				if err != nil {
					t.Errorf("%d bytes: %v", size, err)
				}
			}
		}
	}
}

// serveOutside starts a server at the first address outside of each family.
func (c *cluster) serveOutside(t testing.TB) *server {
	t.Helper()
	return serve(t, c.External.Namespace, netip.AddrPortFrom(v4.outside(1), outsidePort), netip.AddrPortFrom(v6.outside(1), outsidePort))
}

func ping(from *lab.Namespace, dst netip.Addr, size int, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err := from.Ping(ctx, dst, size)
	return err
}

// TestEgressLarge: questions and answers that travel in fragments.
func TestEgressLarge(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1}})
	c.serveOutside(t)
	for _, f := range families {
		for _, size := range []int{100, 1422, 1473, 3000, 8000, 60_000} {
			if err := askLarge(c.pod(1, 1), netip.AddrPortFrom(f.outside(1), outsidePort), size); err != nil {
				t.Errorf("%s, %d bytes: %v", f.name, size, err)
			}
		}
	}
}

// askLarge asks with size bytes, and expects as many to come back, the same but for what the server says in front.
func askLarge(from client, to netip.AddrPort, size int) error {
	c, err := dial(from, "udp", to, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	question, answer := make([]byte, size), make([]byte, 1<<16)
	for i := range question {
		question[i] = byte(i * 7 / 3)
	}
	for range 3 {
		if _, err = c.Write(question); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(patience / 4))
		var n int
		if n, err = c.Read(answer); err != nil {
			continue // lost by a busy machine
		}
		at := slices.Index(answer[:n], '\n') + 1
		if n != size || at == 0 || !slices.Equal(answer[at:n], question[at:]) {
			return fmt.Errorf("%d other bytes came back: %.40q", n, answer[:n])
		}
		return nil
	}
	return err
}

// Ranges outside whose packets the gateway does not deliver, each in its way.
var (
	unreachable = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/25"), netip.MustParsePrefix("2001:db8:1::/64")}
	prohibited  = []netip.Prefix{netip.MustParsePrefix("198.51.100.128/25"), netip.MustParsePrefix("2001:db8:2::/64")}
	blackholed  = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("2001:db8:3::/64")}
)

// TestEgressErrors: pods get the errors that a real route would give: refused, unreachable, silence.
func TestEgressErrors(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1}})
	nl, err := c.External.Netlink()
	c.must(err)
	for kind, ranges := range map[int][]netip.Prefix{unix.RTN_UNREACHABLE: unreachable, unix.RTN_PROHIBIT: prohibited, unix.RTN_BLACKHOLE: blackholed} {
		for _, r := range ranges {
			dst := &net.IPNet{IP: r.Addr().AsSlice(), Mask: net.CIDRMask(r.Bits(), r.Addr().BitLen())}
			c.must(nl.RouteAdd(&netlink.Route{Type: kind, Dst: dst}))
		}
	}
	pod := c.pod(1, 1)
	for i, f := range families {
		for _, network := range networks {
			for _, tt := range []struct {
				name string
				to   netip.Addr
				want []error // one of them; none: silence
			}{
				{"refused", f.outside(1), []error{syscall.ECONNREFUSED}},
				{"unreachable", host(unreachable[i], 5), []error{syscall.EHOSTUNREACH, syscall.ENETUNREACH}},
				{"prohibited", host(prohibited[i], 5), []error{syscall.EHOSTUNREACH, syscall.EACCES}},
				{"silent", host(blackholed[i], 5), nil},
			} {
				t.Run(f.name+"/"+network+"/"+tt.name, func(t *testing.T) {
					timeout := patience
					if tt.want == nil {
						timeout = time.Second
					}
					err := fails(t, pod, network, netip.AddrPortFrom(tt.to, outsidePort+1), timeout)
					if tt.want == nil && !isTimeout(err) || tt.want != nil && !slices.ContainsFunc(tt.want, func(want error) bool { return errors.Is(err, want) }) {
						t.Errorf("got %v, want %v (none: silence)", err, tt.want)
					}
				})
			}
		}
		if err := ping(pod.Namespace, host(unreachable[i], 5), 56, patience); err == nil || isTimeout(err) {
			t.Errorf("%s: ping: got %v, want an ICMP error", f.name, err)
		}
	}
}

// TestTraceroute: routers on the way to the outside tell of packets whose time to live has ended.
func TestTraceroute(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1}})
	for _, f := range families {
		for _, network := range []string{"icmp", "udp"} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			got, err := c.pod(1, 1).Trace(ctx, network, f.outside(1))
			cancel()
			if want := []netip.Addr{f.gateway(1), f.outside(1)}; err != nil || !slices.Equal(got, want) {
				t.Errorf("%s, %s: got %v (%v), want %v", f.name, network, got, err, want)
			}
		}
	}
}

// TestEgressOff: a node that is told so has no way out.
func TestEgressOff(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1}, Change: egressOff})
	c.serveOutside(t)
	for _, f := range families {
		for _, network := range networks {
			err := fails(t, c.pod(1, 1), network, netip.AddrPortFrom(f.outside(1), outsidePort), patience)
			if !errors.Is(err, syscall.ENETUNREACH) {
				t.Errorf("%s, %s: got %v, want %v", f.name, network, err, syscall.ENETUNREACH)
			}
		}
	}
}

func egressOff(_ int, n *node.Config) { n.Egress.Off = true }
