package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	wire "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s/folder"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// contestant is a server of names, and where its client is.
type contestant struct {
	name   string
	client *lab.Namespace
	addr   string // where it is asked
	server *lab.Process
	closes []func() error
}

// Close ends all of it.
func (c *contestant) Close() error {
	var errs []error
	for i := range c.closes {
		errs = append(errs, c.closes[len(c.closes)-1-i]())
	}
	return errors.Join(errs...)
}

func (c *contestant) onClose(f func() error) { c.closes = append(c.closes, f) }

// upstream is where both ask about other names: a server on the loopback beside them.
const upstream = "127.0.0.1:5353"

// newMiddleway makes a node with one pod, the client.
func newMiddleway(o objects) (*contestant, error) {
	c := &contestant{name: "middleway", addr: "10.96.0.10:53"}
	dir, err := lab.NewDirectory()
	if err != nil {
		return nil, err
	}
	c.onClose(dir.Close)
	state := filepath.Join(dir.Path(), "state")
	if err := writeState(state, o); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	cluster, err := lab.NewCluster(lab.ClusterConfig{Pods: []int{1}, Dir: dir.Path(), Change: func(_ int, n *node.Config) {
		n.Kubernetes.Folder = state
		n.Services.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}
		n.DNS.Upstreams = []node.Upstream{{AddrPort: netip.MustParseAddrPort(upstream)}}
	}})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.onClose(cluster.Close)
	n := cluster.Nodes[0]
	c.client, c.server = n.Pods[0].Namespace, n.Daemon()
	return c, errors.Join(c.serveUpstream(n.Namespace), c.await())
}

func writeState(dir string, o objects) error {
	w, err := folder.NewWriter(dir)
	if err != nil {
		return err
	}
	self := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}, Spec: corev1.NodeSpec{PodCIDRs: []string{lab.PodCIDR4(1).String(), lab.PodCIDR6(1).String()}}}
	errs := []error{w.Put(self)}
	for i := range o.namespaces {
		errs = append(errs, w.Put(&o.namespaces[i]))
	}
	for i := range o.services {
		errs = append(errs, w.Put(&o.services[i]))
	}
	for i := range o.slices {
		errs = append(errs, w.Put(&o.slices[i]))
	}
	return errors.Join(append(errs, w.Complete())...)
}

// corefile is kubeadm's of Kubernetes 1.37, without what has to do with health, metrics and reloading.
const corefile = `.:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        endpoint http://127.0.0.1:8080
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    forward . ` + upstream + ` {
        max_concurrent 1000
    }
    cache 30 {
        disable success cluster.local
        disable denial cluster.local
    }
    loadbalance
}
`

// newCoreDNS starts the program in a namespace that a veth pair joins to the client's.
func newCoreDNS(o objects, program string) (*contestant, error) {
	c := &contestant{name: "coredns", addr: net.JoinHostPort(lab.NodeAddr4(2).Addr().String(), "53")}
	err := c.startCoreDNS(o, program)
	if err == nil {
		err = c.await()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *contestant) startCoreDNS(o objects, program string) error {
	dir, err := lab.NewDirectory()
	if err != nil {
		return err
	}
	c.onClose(dir.Close)
	var ends [2]*lab.Namespace
	for i, name := range []string{"client", "coredns"} {
		if ends[i], err = lab.NewNamespace(name); err != nil {
			return err
		}
		c.onClose(ends[i].Close)
	}
	c.client = ends[0]
	joined, err := lab.NewUnderlay(lab.UnderlayConfig{}, ends[0], ends[1])
	if err != nil {
		return err
	}
	c.onClose(joined.Close)
	l, err := ends[1].Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		return err
	}
	api := &http.Server{Handler: apiServer(o), ReadHeaderTimeout: time.Minute}
	go func() { _ = api.Serve(l) }()
	c.onClose(api.Close)
	if err := c.serveUpstream(ends[1]); err != nil {
		return err
	}
	file := filepath.Join(dir.Path(), "Corefile")
	if err := os.WriteFile(file, []byte(corefile), 0o600); err != nil {
		return err
	}
	c.server = lab.Exec(ends[1], program, "-conf", file)
	if err := c.server.Start(); err != nil {
		return err
	}
	c.onClose(func() error { return c.server.Stop(5 * time.Second) })
	return nil
}

// serveUpstream knows www-0.example.com to www-19.example.com.
func (c *contestant) serveUpstream(ns *lab.Namespace) error {
	conn, err := ns.ListenPacket("udp", upstream)
	if err != nil {
		return err
	}
	soa, err := wire.NewRR("example.com. 3600 IN SOA ns.example.com. admin.example.com. 1 7200 1800 86400 300")
	if err != nil {
		return err
	}
	s := &wire.Server{PacketConn: conn, Handler: wire.HandlerFunc(func(w wire.ResponseWriter, q *wire.Msg) {
		m := new(wire.Msg)
		m.SetReply(q)
		name := q.Question[0].Name
		switch {
		case !strings.HasPrefix(strings.ToLower(name), "www-"):
			m.Rcode, m.Ns = wire.RcodeNameError, []wire.RR{soa}
		case q.Question[0].Qtype == wire.TypeA:
			m.Answer = []wire.RR{&wire.A{Hdr: wire.RR_Header{Name: name, Rrtype: wire.TypeA, Class: wire.ClassINET, Ttl: 300}, A: net.IPv4(203, 0, 113, 5)}}
		default:
			m.Ns = []wire.RR{soa}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	c.onClose(conn.Close)
	return nil
}

// await waits until the server knows the cluster.
func (c *contestant) await() error {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if m, err := c.ask("service-11.team-1.svc.cluster.local. A"); err == nil && len(m.Answer) == 1 {
			return nil
		}
	}
	return fmt.Errorf("%s does not answer within 30 s: %s", c.name, c.server.Tail())
}

// ask asks "NAME TYPE" over UDP.
func (c *contestant) ask(question string) (*wire.Msg, error) {
	name, qtype, _ := strings.Cut(question, " ")
	conn, err := c.client.Dial(context.Background(), "udp", c.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	b, err := new(wire.Msg).SetQuestion(name, wire.StringToType[qtype]).SetEdns0(1232, false).Pack()
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(b); err != nil {
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	b = make([]byte, 4096)
	k, err := conn.Read(b)
	if err != nil {
		return nil, err
	}
	m := new(wire.Msg)
	return m, m.Unpack(b[:k])
}
