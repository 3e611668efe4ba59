package service

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
)

// refused reports whether a UDP socket's destination says that nobody listens.
func refused(c net.Conn) bool {
	_, _ = c.Write([]byte("anybody?")) // the error may be that of the last one
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, err := c.Read(make([]byte, 100))
	return errors.Is(err, syscall.ECONNREFUSED)
}

// TestRefusals: what a Service has no use for is refused at once or met with silence, to pods and hosts, and counted by its reason.
func TestRefusals(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	pod, far := c.pod(1, 1), c.pod(2, 1)
	servePod(t, far)
	const full, empty, onlyUnready, local, localEmpty, unallocated = 1, 2, 3, 4, 5, 9
	c.put(service("full", full), onPod(2, far))
	c.put(service("empty", empty))
	c.put(service("unready", onlyUnready), onPod(2, far).but(unready))
	policy := corev1.ServiceInternalTrafficPolicyLocal
	for number, name := range map[int]string{local: "local", localEmpty: "local-empty"} {
		s := service(name, number)
		s.Spec.InternalTrafficPolicy = &policy
		c.must(c.folder.Put(s))
		if number == local {
			c.write(slicesOf(s, onPod(2, far))...)
		}
		c.await(c.Nodes[0], s)
	}
	for _, f := range families {
		for name, from := range map[string]client{"pod": pod, "host": c.Nodes[0]} {
			for _, network := range []string{"tcp", "udp"} {
				for _, tt := range []struct {
					name   string
					to     netip.AddrPort
					silent bool
					reason string
				}{
					{"no endpoint", at(f, empty), false, "no-backend"},
					{"no endpoint that is ready", at(f, onlyUnready), false, "no-backend"},
					{"another port", netip.AddrPortFrom(f.vip(full), 81), false, "service-port"},
					{"another port, no endpoint", netip.AddrPortFrom(f.vip(empty), 81), false, "service-port"},
					{"policy Local, no endpoint anywhere", at(f, localEmpty), false, "no-backend"},
					{"policy Local, no endpoint here", at(f, local), true, "no-local-backend"},
					{"nobody's address", at(f, unallocated), true, "no-service"},
				} {
					t.Run(f.name+"/"+name+"/"+network+"/"+tt.name, func(t *testing.T) {
						before := c.drops(c.Nodes[0])[tt.reason]
						if tt.silent {
							mustBeSilent(t, from, network, tt.to)
						} else {
							mustRefuse(t, from, network, tt.to)
						}
						if c.drops(c.Nodes[0])[tt.reason] == before {
							t.Errorf("nothing was counted as %s: %v", tt.reason, c.drops(c.Nodes[0]))
						}
					})
				}
			}
		}
		// The other node's pods are served by policy Local, for there the endpoint is.
		if got := mustAsk(t, far, "tcp", at(f, local)); got.name != far.Name() {
			t.Errorf("%s answers, want %s", got.name, far.Name())
		}
	}
}

// refusalTime is how long a refusal may take. One that is lost on a busy machine is told again after a second, and silence takes minutes.
const refusalTime = 5 * time.Second

func mustRefuse(t *testing.T, from client, network string, to netip.AddrPort) {
	t.Helper()
	begin := time.Now()
	c, err := dial(from, network, to, refusalTime)
	if err == nil {
		defer c.Close()
	}
	switch {
	case network == "udp" && err != nil:
		t.Fatal(err)
	case network == "udp":
		eventually(t, "the client is refused", func() bool { return refused(c) })
	case !errors.Is(err, syscall.ECONNREFUSED):
		t.Errorf("got %v, want %v", err, syscall.ECONNREFUSED)
	}
	if took := time.Since(begin); took > refusalTime {
		t.Errorf("refused after %v", took)
	}
}

func mustBeSilent(t *testing.T, from client, network string, to netip.AddrPort) {
	t.Helper()
	const wait = 200 * time.Millisecond
	c, err := dial(from, network, to, wait)
	if network == "tcp" {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want silence", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		if _, err := c.Write([]byte("?")); err != nil {
			t.Errorf("got %v, want silence", err)
		}
		if _, err := hear(c, wait/3); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want silence", err)
		}
	}
}

// TestErrorsPass: the backend's own refusal reaches the client as one of the Service, and the client's reaches the backend.
func TestErrorsPass(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	pod, beside, far := c.pod(1, 1), c.pod(1, 2), c.pod(2, 1)
	c.put(service("beside", 1), onPod(1, beside))
	c.put(service("far", 2), onPod(2, far))
	for _, f := range families {
		for number, backend := range map[int]*lab.Pod{1: beside, 2: far} {
			for _, from := range []client{pod, c.Nodes[0]} {
				for _, network := range []string{"tcp", "udp"} {
					mustRefuse(t, from, network, at(f, number))
				}
			}
			server, err := backend.ListenPacket("udp", netip.AddrPortFrom(f.pod(backend), targetPort).String())
			c.must(err)
			asked, err := dial(pod, "udp", at(f, number), patience)
			c.must(err)
			client := addrPortOf(asked.LocalAddr())
			eventually(t, "the backend is asked", func() bool {
				_, _ = asked.Write([]byte("?"))
				_ = server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				_, _, err := server.ReadFrom(make([]byte, 100))
				return err == nil
			})
			c.must(asked.Close())
			c.must(server.Close())
			local := lab.Sockets{Namespace: backend.Namespace, Local: netip.AddrPortFrom(f.pod(backend), targetPort)}
			answer, err := dial(local, "udp", client, patience)
			c.must(err)
			eventually(t, "the client's refusal reaches the backend", func() bool { return refused(answer) })
			c.must(answer.Close())
		}
	}
}

// TestPing: the address of a Service answers pings of pods and hosts, whether or not it has endpoints; nobody's does not.
func TestPing(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{1, 1}})
	c.put(service("full", 1), onPod(2, c.pod(2, 1)))
	c.put(service("empty", 2))
	for _, f := range families {
		for _, from := range []*lab.Namespace{c.pod(1, 1).Namespace, c.Nodes[0].Namespace} {
			for _, number := range []int{1, 2, 10} { // the tenth is DNS
				for _, size := range []int{56, 1400, 8000} {
					var err error
					for range 3 { // a busy machine loses some
						if err = ping(from, f.vip(number), size, patience/4); err == nil {
							break
						}
					}
					if err != nil {
						t.Errorf("%d bytes: %v", size, err)
					}
				}
			}
			if err := ping(from, f.vip(9), 56, 200*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ping of nobody's address: got %v, want silence", err)
			}
		}
	}
}

func ping(from *lab.Namespace, dst netip.Addr, size int, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err := from.Ping(ctx, dst, size)
	return err
}
