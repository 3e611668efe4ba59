package trace

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/control"
	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/lab/tool"
	"github.com/middleway-net/middleway/node"
)

// Request is what a person wants to know.
type Request struct {
	Namespace, Pod string // who would send
	// Destination is an address, the name of a Service or of a pod, or any name that DNS knows, with a port behind a colon. Without a
	// port it is a Service's first one, else a ping.
	Destination string
	Proto       string // tcp, udp, sctp or icmp; default that of the Service's port, else tcp
	SrcPort     uint16 // default 49152
	IPv6        bool   // names stand for their IPv6 addresses
}

// clusterDomain is the playground's.
const clusterDomain = "cluster.local"

// InCluster follows a packet through the playground in a state directory.
func InCluster(ctx context.Context, dir string, r Request) (*Trace, error) {
	to, err := parseTarget(r.Destination)
	if err != nil {
		return nil, err
	}
	st, err := playground.ReadStatus(ctx, dir)
	if err != nil {
		return nil, err
	}
	services, err := listServices(ctx, dir)
	if err != nil {
		return nil, err
	}
	c := cluster{dir, st, services}
	pod := c.pod(r.Namespace, r.Pod)
	if pod == nil {
		return nil, fmt.Errorf("there is no pod %s/%s; `middleway get pods -A` lists them", r.Namespace, r.Pod)
	}
	at := slices.IndexFunc(st.Nodes, func(n playground.NodeStatus) bool { return n.Name == pod.Node })
	if at < 0 {
		return nil, fmt.Errorf("pod %s/%s is on no node: %s", r.Namespace, r.Pod, pod.Reason())
	}
	runDir := st.Nodes[at].RunDir
	t := &Trace{From: pod.Namespace + "/" + pod.Name, To: r.Destination}
	req, err := c.request(t, r, pod, to)
	if err != nil {
		return nil, err
	}
	if req.From, err = sender(ctx, pod, runDir); err != nil {
		return nil, err
	}
	return t, t.follow(ctx, c.nodes(), runDir, req)
}

// cluster is what is known of a playground.
type cluster struct {
	dir      string
	status   playground.Status
	services []*corev1.Service
}

func listServices(ctx context.Context, dir string) (services []*corev1.Service, err error) {
	objects, err := playground.List(ctx, dir, control.Query{Kind: "services"})
	for _, o := range objects {
		services = append(services, o.(*corev1.Service))
	}
	return services, err
}

func (c *cluster) nodes() (nodes []Node) {
	for _, n := range c.status.Nodes {
		nodes = append(nodes, Node{n.Underlay, n.RunDir})
	}
	return nodes
}

func (c *cluster) pod(namespace, name string) *playground.PodStatus {
	i := slices.IndexFunc(c.status.Pods, func(p playground.PodStatus) bool { return p.Namespace == namespace && p.Name == name })
	if i < 0 {
		return nil
	}
	return &c.status.Pods[i]
}

// sender returns the attachment through which a pod sends.
func sender(ctx context.Context, pod *playground.PodStatus, runDir string) (string, error) {
	if !pod.HostNetwork {
		return pod.Namespace + "/" + pod.Name, nil
	}
	st, err := node.ReadStatus(ctx, runDir)
	if err == nil && st.Host.Device == "" {
		err = fmt.Errorf("pod %s/%s has the network of %s, which is not attached", pod.Namespace, pod.Name, pod.Node)
	}
	return st.Host.Device, err
}

// request describes the first packet.
func (c *cluster) request(t *Trace, r Request, from *playground.PodStatus, to target) (req node.TraceRequest, err error) {
	req = node.TraceRequest{SrcPort: r.SrcPort, IPv6: r.IPv6}
	var service *corev1.Service
	if addr, err := netip.ParseAddr(to.host); err == nil {
		req.Dst = addr
	} else if name, isPod := strings.CutPrefix(to.host, "pod/"); isPod {
		if req.Dst, err = c.podAddr(from.Namespace, name, r.IPv6); err != nil {
			return req, err
		}
	} else if service = serviceNamed(to.host, from.Namespace, clusterDomain, c.services); service == nil {
		if addr, err := c.podAddr(from.Namespace, to.host, r.IPv6); err == nil {
			req.Dst = addr
			t.Notes = append(t.Notes, fmt.Sprintf("no Service has this name: the pod is meant, at %v", addr))
		}
	}
	if !req.Dst.IsValid() {
		if req.Names, err = c.names(from, to.host); err != nil {
			return req, err
		}
	}
	e, err := endOf(to.port, r.Proto, service)
	req.Proto, req.DstPort = e.proto, e.port
	return req, err
}

// podAddr returns a pod's address; its name may be NAMESPACE/NAME.
func (c *cluster) podAddr(namespace, name string, v6 bool) (netip.Addr, error) {
	if ns, n, found := strings.Cut(name, "/"); found {
		namespace, name = ns, n
	}
	pod := c.pod(namespace, name)
	if pod == nil {
		return netip.Addr{}, fmt.Errorf("there is no pod %s/%s; `middleway get pods -A` lists them", namespace, name)
	}
	for _, a := range pod.IPs {
		if a.Is6() == v6 {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("pod %s/%s has no such address: %s", namespace, name, pod.Reason())
}

// names returns what a program in the pod would ask for one after another, by the pod's resolv.conf.
func (c *cluster) names(from *playground.PodStatus, host string) ([]string, error) {
	text, err := os.ReadFile(playground.PodFile(c.dir, from.UID, "resolv.conf"))
	if err != nil {
		return nil, fmt.Errorf("the names that pod %s/%s asks for: %w", from.Namespace, from.Name, err)
	}
	conf := tool.ParseResolvConf(string(text))
	if !slices.ContainsFunc(conf.Servers(), func(s netip.AddrPort) bool { return slices.Contains(lab.ClusterDNS(), s.Addr()) }) {
		return nil, fmt.Errorf("pod %s/%s does not ask the cluster's DNS for names, but %v; trace an address", from.Namespace, from.Name, conf.Servers())
	}
	return conf.Candidates(host), nil
}
