package cni

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

// portMapping is an entry of the capability portMappings as container runtimes write it.
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// newMappingRuntime returns a runtime whose configuration declares the capability portMappings.
func newMappingRuntime(t *testing.T) *runtime {
	return newRuntime(t, newNode(t, nil), "1.1.0", func(conf map[string]any) {
		conf["plugins"].([]any)[0].(map[string]any)["capabilities"] = map[string]bool{"portMappings": true}
	})
}

func (r *runtime) mapped(id string, mappings ...portMapping) *sandbox {
	s := r.sandbox(id)
	s.conf.CapabilityArgs = map[string]any{"portMappings": mappings}
	return s
}

// A host port is one pod's until that is deleted, over a restart of the daemon and a DEL that found none.
func TestHostPort(t *testing.T) {
	r := newMappingRuntime(t)
	web := portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}
	a, b := r.mapped("a", web), r.mapped("b", web)
	r.mustAdd(a)
	if err := r.check(a); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	_, err := r.add(b)
	wantCode(t, err, 105, "8080/tcp belongs to pod default/pod-a")
	if got := devices(t, b.Namespace); len(got) > 0 {
		t.Errorf("after a refused ADD: %v", got)
	}
	udp := r.mapped("udp", portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "udp", HostIP: "::1"})
	r.mustAdd(udp)

	if err := r.node.Daemon().Stop(timeout); err != nil {
		t.Fatal(err)
	}
	start(t, r.node)
	_, err = r.add(b)
	wantCode(t, err, 105, "belongs to pod default/pod-a")
	if err := r.node.Daemon().Kill(); err != nil {
		t.Fatal(err)
	}
	r.mustDel(a)
	start(t, r.node)
	r.mustAdd(b)
	for _, s := range []*sandbox{b, udp} {
		r.mustDel(s)
	}
	if got := left(t, r.node); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// CHECK compares the host ports of an attachment with those that the runtime tells of.
func TestHostPortCheck(t *testing.T) {
	r := newMappingRuntime(t)
	web := portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}
	a := r.mapped("a", web)
	r.mustAdd(a)
	web.HostIP = "127.0.0.1"
	a.conf.CapabilityArgs["portMappings"] = []portMapping{web}
	wantCode(t, r.check(a), 104, "[8080/tcp]", "[127.0.0.1:8080/tcp]")
}

// What cannot be served is refused by its name.
func TestHostPortRefused(t *testing.T) {
	r := newMappingRuntime(t)
	for _, tt := range []struct {
		name    string
		mapping portMapping
		code    uint
		words   string
	}{
		{"SCTP", portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "sctp"}, 2, `portMappings.protocol: "sctp"`},
		{"port", portMapping{HostPort: 70000, ContainerPort: 80, Protocol: "tcp"}, 7, "hostPort: 70000"},
		{"address", portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp", HostIP: "node-1"}, 7, `hostIP: "node-1"`},
	} {
		_, err := r.add(r.mapped(tt.name, tt.mapping))
		wantCode(t, err, tt.code, tt.words)
	}
	if got := left(t, r.node); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// serveName answers each datagram to a pod's port, and each connection, with the pod's name.
func (s *sandbox) serveName(t *testing.T, port string) {
	t.Helper()
	for _, addr := range s.addrs {
		at := net.JoinHostPort(addr.String(), port)
		packets, err := s.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { packets.Close() })
		go func() {
			for b := make([]byte, 100); ; {
				_, from, err := packets.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = packets.WriteTo([]byte(s.Name()), from)
			}
		}()
		conns, err := s.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conns.Close() })
		go func() {
			for {
				conn, err := conns.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte(s.Name()))
				conn.Close()
			}
		}()
	}
}

// whoAnswers returns the name that comes from an address.
func whoAnswers(t *testing.T, from lab.Sockets, network, addr string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, network, addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if network == "udp" {
		if _, err := conn.Write([]byte("who?")); err != nil {
			return "", err
		}
	}
	b := make([]byte, 100)
	n, err := conn.Read(b)
	return string(b[:n]), err
}

// Pods with one port at several addresses and protocols, as in test/e2e/network/hostport.go of Kubernetes, are reached at these, by
// the node and by other pods, and by nobody after DEL.
func TestHostPortServes(t *testing.T) {
	r := newMappingRuntime(t)
	const port = "54323"
	node4, node6 := lab.NodeAddr4(1).Addr().String(), lab.NodeAddr6(1).Addr().String()
	pods := map[string]*sandbox{}
	for id, m := range map[string]portMapping{
		"loop":  {HostIP: "127.0.0.1", Protocol: "tcp"},
		"node":  {HostIP: node4, Protocol: "tcp"},
		"udp":   {HostIP: node4, Protocol: "udp"},
		"all6":  {HostIP: "::", Protocol: "tcp"},
		"lone6": {HostIP: "::1", Protocol: "udp"},
		"udplo": {HostIP: "127.0.0.1", Protocol: "udp"},
		"udp6":  {HostIP: node6, Protocol: "udp"},
	} {
		m.HostPort, m.ContainerPort = 54323, 8080
		pods[id] = r.mapped(id, m)
		r.mustAdd(pods[id])
		pods[id].serveName(t, "8080")
	}
	client := r.sandbox("client")
	r.mustAdd(client)
	node, pod := lab.Sockets{Namespace: r.node.Namespace}, lab.Sockets{Namespace: client.Namespace}
	rows := []struct {
		name          string
		from          lab.Sockets
		network, host string
		want          string
	}{
		{"the node's loopback", node, "tcp", "127.0.0.1", "loop"},
		{"the node's loopback, from its address", lab.Sockets{Namespace: r.node.Namespace, Local: netip.MustParseAddrPort(node4 + ":0")}, "tcp", "127.0.0.1", "loop"},
		{"the node's address, from the node", node, "tcp", node4, "node"},
		{"the node's address, from a pod", pod, "tcp", node4, "node"},
		{"the node's address, from the pod itself", lab.Sockets{Namespace: pods["node"].Namespace}, "tcp", node4, "node"},
		{"UDP from the node", node, "udp", node4, "udp"},
		{"UDP from a pod", pod, "udp", node4, "udp"},
		{"IPv6", node, "tcp", node6, "all6"},
		{"IPv6 from a pod", pod, "tcp", node6, "all6"},
		{"IPv6 loopback", node, "tcp", "::1", "all6"},
		{"UDP, loopback", node, "udp", "127.0.0.1", "udplo"},
		{"UDP, loopback, from the node's address", lab.Sockets{Namespace: r.node.Namespace, Local: netip.MustParseAddrPort(node4 + ":0")}, "udp", "127.0.0.1", "udplo"},
		{"UDP, IPv6", node, "udp", node6, "udp6"},
		{"UDP, IPv6, from the pod itself", lab.Sockets{Namespace: pods["udp6"].Namespace}, "udp", node6, "udp6"},
		{"UDP, IPv6 loopback", node, "udp", "::1", "lone6"},
	}
	for _, when := range []string{"", "restarted, "} {
		for _, tt := range rows {
			t.Run(when+tt.name, func(t *testing.T) {
				eventually(t, tt.want+" answers", func() bool {
					got, err := whoAnswers(t, tt.from, tt.network, net.JoinHostPort(tt.host, port))
					return err == nil && got == tt.want
				})
			})
		}
		if err := r.node.Daemon().Kill(); err != nil {
			t.Fatal(err)
		}
		start(t, r.node)
	}
	for _, s := range pods {
		r.mustDel(s)
	}
	for _, tt := range rows {
		eventually(t, tt.name+": nobody answers", func() bool {
			_, err := whoAnswers(t, tt.from, tt.network, net.JoinHostPort(tt.host, port))
			return err != nil
		})
	}
}
