package service

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// socket is a UDP socket with a fixed port that keeps to one frontend.
type socket struct {
	net.Conn
	t *testing.T
}

// fixed opens a socket from port 5000 of a client's address.
func fixed(t *testing.T, ns *lab.Namespace, addr netip.Addr, to netip.AddrPort) socket {
	t.Helper()
	c, err := dial(lab.Sockets{Namespace: ns, Local: netip.AddrPortFrom(addr, 5000)}, "udp", to, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return socket{c, t}
}

// answeredBy asks until a backend answers.
func (s socket) answeredBy(b *backend) {
	s.t.Helper()
	eventually(s.t, b.name+" answers", func() bool {
		_, _ = s.Write([]byte("?")) // a refusal of the last one is none of this one
		got, err := hear(s, 100*time.Millisecond)
		return err == nil && got.name == b.name
	})
}

// reaches sends without an answer until a backend is asked.
func (s socket) reaches(b *backend) {
	s.t.Helper()
	before := b.asked.Load()
	eventually(s.t, b.name+" is asked", func() bool {
		_, _ = s.Write([]byte("?"))
		return b.asked.Load() > before
	})
}

// reachesNoMore sends until a backend gets nothing of it: the first packets may be under way.
func (s socket) reachesNoMore(b *backend) {
	s.t.Helper()
	eventually(s.t, b.name+" is asked no more", func() bool {
		before := b.asked.Load()
		for range 20 {
			_, _ = s.Write([]byte("?"))
			time.Sleep(time.Millisecond)
		}
		return b.asked.Load() == before
	})
}

// TestUDPFollows: a client that keeps its socket goes to another backend when its own serves no more, whether it was ever answered or
// not, and stays with one that drains.
func TestUDPFollows(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 2}})
	near, far, other := c.pod(1, 2), c.pod(2, 1), c.pod(2, 2)
	for _, f := range families {
		for _, cl := range []struct {
			name string
			ns   *lab.Namespace
			addr netip.Addr
		}{{"pod", c.pod(1, 1).Namespace, f.pod(c.pod(1, 1))}, {"host", c.Nodes[0].Namespace, f.node(1)}} {
			if testing.Short() && (f == v6) != (cl.name == "host") {
				continue
			}
			t.Run(f.name+"/"+cl.name, func(t *testing.T) {
				web := service("web", 1)
				bNear, bFar, bOther := servePod(t, near), servePod(t, far), servePod(t, other)
				c.put(web, onPod(1, near))
				defer c.remove(web)
				s := fixed(t, cl.ns, cl.addr, at(f, 1))
				s.answeredBy(bNear)

				c.endpoints(web, onPod(2, far))
				s.answeredBy(bFar)
				c.endpoints(web, onPod(2, far).but(unready), onPod(1, near))
				s.answeredBy(bNear)

				// One that drains keeps its flow, and gets no other.
				c.endpoints(web, onPod(1, near).but(draining), onPod(2, other))
				s.answeredBy(bNear)
				if got := mustAsk(t, cl.ns, "udp", at(f, 1)); got.name != bOther.name {
					t.Errorf("a new flow went to %s, want %s", got.name, bOther.name)
				}
				c.endpoints(web, onPod(2, other))
				s.answeredBy(bOther)

				// Nobody ever answers, from here on.
				for _, b := range []*backend{bNear, bFar, bOther} {
					b.silent.Store(true)
				}
				c.endpoints(web, onPod(2, far))
				s.reaches(bFar)
				c.endpoints(web, onPod(1, near))
				s.reaches(bNear)
				s.reachesNoMore(bFar)

				// Without an endpoint it is refused, and asked again when there is one.
				c.endpoints(web)
				eventually(t, "the client is refused", func() bool { return refused(s) })
				s.reachesNoMore(bNear)
				c.endpoints(web, onPod(2, far))
				s.reaches(bFar)

				// A port that goes takes its flows with it.
				tcpOnly := service("web", 1)
				tcpOnly.Spec.Ports = tcpOnly.Spec.Ports[:1]
				c.put(tcpOnly, onPod(2, far))
				eventually(t, "the client is refused", func() bool { return refused(s) })
				s.reachesNoMore(bFar)
				c.put(web, onPod(2, far))
				s.reaches(bFar)

				// And so does a Service, whose address is nobody's then.
				c.remove(web)
				s.reachesNoMore(bFar)
			})
		}
	}
}

// A connection outlives its backend's place in the slices, its Service, and a Service of another name that gets its address.
func TestTCPStays(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	near, far := c.pod(1, 2), c.pod(2, 1)
	servePod(t, near)
	servePod(t, far)
	for _, f := range families {
		web := service("web", 1)
		c.put(web, onPod(2, far))
		held := hold(t, c.pod(1, 1), at(f, 1), far.Name())
		for _, change := range []func(){
			func() { c.endpoints(web, onPod(1, near)) },
			func() { c.endpoints(web) },
			func() { c.remove(web) },
			func() { c.put(service("other", 1), onPod(1, near)) },
		} {
			change()
			if s, err := askOn(held); err != nil || s.name != far.Name() {
				t.Errorf("%s: got %q (%v), want %s as before", f.name, s.name, err, far.Name())
			}
		}
		if got := mustAsk(t, c.pod(1, 1), "tcp", at(f, 1)); got.name != near.Name() {
			t.Errorf("%s: a new connection went to %s, want %s", f.name, got.name, near.Name())
		}
		c.remove(service("other", 1))
	}
}

// TestFlowsSurviveRestart: clients that keep their sockets keep their backends when the daemon is killed right after a change, over UDP
// too, as QUIC needs it. By chance all 20 do, of three backends, once in 3,000,000,000 times.
func TestFlowsSurviveRestart(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 2}})
	pods := []*lab.Pod{c.pod(1, 2), c.pod(2, 1), c.pod(2, 2)}
	for _, p := range pods {
		servePod(t, p)
	}
	c.put(service("web", 1), onPod(1, pods[0]), onPod(2, pods[1]), onPod(2, pods[2]))
	var sockets []net.Conn
	var before []string
	for _, f := range families {
		for _, network := range []string{"tcp", "udp"} {
			for range 20 {
				s, err := dial(c.pod(1, 1), network, at(f, 1), patience)
				c.must(err)
				defer s.Close()
				got, err := askOn(s)
				c.must(err)
				sockets, before = append(sockets, s), append(before, got.name)
			}
		}
	}
	for _, n := range c.Nodes {
		c.kill(n)
		c.start(n)
		for range 2 { // as the former daemon knew it, and as the folder has it
			for i, s := range sockets {
				if got, err := askOn(s); err != nil || got.name != before[i] {
					t.Errorf("%v, %s killed: %s before, then %q (%v)", s.RemoteAddr(), n.Name(), before[i], got.name, err)
				}
			}
			c.awaitSynced(n)
		}
	}
}

// TestSamePort: a client uses one port toward two Services that have the same backend, which has to tell the two flows apart.
func TestSamePort(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	pod, far := c.pod(1, 1), c.pod(2, 1)
	servePod(t, far)
	c.put(service("one", 1), onPod(2, far))
	c.put(service("two", 2), onPod(2, far))
	for _, f := range families {
		for _, network := range []string{"tcp", "udp"} {
			from := sharedPort{pod.Namespace, netip.AddrPortFrom(f.pod(pod), 6000)}
			var conns []net.Conn
			seen := map[netip.AddrPort]bool{}
			for _, to := range []netip.AddrPort{at(f, 1), at(f, 2), netip.AddrPortFrom(f.pod(far), targetPort)} {
				conn, err := dial(from, network, to, patience)
				c.must(err)
				defer conn.Close()
				conns = append(conns, conn)
			}
			for range 2 {
				for _, conn := range conns {
					got, err := askOn(conn)
					if err != nil || got.client.Addr() != f.pod(pod) {
						t.Errorf("%s %v: seen as %v (%v), want one of %v", network, conn.RemoteAddr(), got.client, err, f.pod(pod))
					}
					seen[got.client] = true
				}
			}
			if len(seen) != len(conns) || !seen[from.local] {
				t.Errorf("%s: %d sockets were seen as %v", network, len(conns), seen)
			}
		}
	}
}

// sharedPort is a client all of whose sockets have one port.
type sharedPort struct {
	ns    *lab.Namespace
	local netip.AddrPort
}

func (s sharedPort) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(s.local), Control: func(_, _ string, raw syscall.RawConn) (err error) {
		control := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return errors.Join(control, err)
	}}
	if network == "tcp" {
		d.LocalAddr = net.TCPAddrFromAddrPort(s.local)
	}
	err = s.ns.Do(func() (err error) {
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}
