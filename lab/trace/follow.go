package trace

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

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

// Cluster is where a packet is followed. What it has not got it says in an error that tells a person how to see what there is.
type Cluster interface {
	Pod(ctx context.Context, namespace, name string) (*Pod, error)
	// Service returns nil if there is none of this name.
	Service(ctx context.Context, namespace, name string) (*corev1.Service, error)
	// Daemon returns who asks the daemon of a node, which its peers know by this name, "" if they know none, and this address. An invalid
	// address is not known.
	Daemon(ctx context.Context, name string, addr netip.Addr) (*node.Client, error)
}

// Pod is one that sends packets or gets them.
type Pod struct {
	Namespace, Name, Node string // Node is "" as long as it is on none
	IPs                   []netip.Addr
	HostNetwork           bool
	// Reason says why it has no node or no address.
	Reason string
	// ResolvConf returns what its /etc/resolv.conf says, where its node answers DNS as told.
	ResolvConf func(node.DNSStatus) (tool.ResolvConf, error)
}

func (p *Pod) String() string { return p.Namespace + "/" + p.Name }

// Follow follows a packet through a cluster.
func Follow(ctx context.Context, c Cluster, r Request) (*Trace, error) {
	to, err := parseTarget(r.Destination)
	if err != nil {
		return nil, err
	}
	pod, err := c.Pod(ctx, r.Namespace, r.Pod)
	if err != nil {
		return nil, err
	}
	if pod.Node == "" {
		return nil, fmt.Errorf("pod %v is on no node: %s", pod, pod.Reason)
	}
	daemon, err := c.Daemon(ctx, pod.Node, netip.Addr{})
	if err != nil {
		return nil, err
	}
	f := follower{Request: r, at: c, pod: pod, daemon: daemon, trace: &Trace{From: pod.String(), To: r.Destination}}
	req, err := f.request(ctx, to)
	if err != nil {
		return nil, err
	}
	if req.From, err = f.sender(ctx); err != nil {
		return nil, err
	}
	return f.trace, f.trace.follow(ctx, c, daemon, req)
}

// follower is a trace about to begin.
type follower struct {
	Request
	at     Cluster
	pod    *Pod
	daemon *node.Client
	status *node.Status // of the daemon; nil until it was asked for
	trace  *Trace
}

// ask returns the status of the sender's daemon.
func (f *follower) ask(ctx context.Context) (*node.Status, error) {
	if f.status != nil {
		return f.status, nil
	}
	st, err := f.daemon.Status(ctx)
	if err != nil {
		return nil, err
	}
	f.status = &st
	return f.status, nil
}

// sender returns the attachment through which the pod sends.
func (f *follower) sender(ctx context.Context) (string, error) {
	if !f.pod.HostNetwork {
		return f.pod.String(), nil
	}
	st, err := f.ask(ctx)
	if err != nil {
		return "", err
	}
	if st.Host.Device == "" {
		return "", fmt.Errorf("pod %v has the network of %s, which is not attached", f.pod, f.pod.Node)
	}
	return st.Host.Device, nil
}

// request describes the first packet.
func (f *follower) request(ctx context.Context, to target) (req node.TraceRequest, err error) {
	req = node.TraceRequest{SrcPort: f.SrcPort, IPv6: f.IPv6}
	service, err := f.destination(ctx, to, &req)
	if err != nil {
		return req, err
	}
	e, err := endOf(to.port, f.Proto, service)
	req.Proto, req.DstPort = e.proto, e.port
	return req, err
}

// destination finds where the packet goes, or the names that lead there, and the Service that is meant, if it is one.
func (f *follower) destination(ctx context.Context, to target, req *node.TraceRequest) (service *corev1.Service, err error) {
	if addr, err := netip.ParseAddr(to.host); err == nil {
		req.Dst = addr
		return nil, nil
	}
	if name, isPod := strings.CutPrefix(to.host, "pod/"); isPod {
		req.Dst, err = f.podAddr(ctx, name)
		return nil, err
	}
	st, err := f.ask(ctx)
	if err != nil {
		return nil, err
	}
	name := serviceName(to.host, f.pod.Namespace, domainOf(st))
	if name.name != "" {
		if service, err = f.at.Service(ctx, name.namespace, name.name); err != nil {
			return nil, err
		}
	}
	if service == nil {
		if addr, err := f.podAddr(ctx, to.host); err == nil {
			req.Dst = addr
			f.trace.Notes = append(f.trace.Notes, fmt.Sprintf("no Service has this name: the pod is meant, at %v", addr))
			return nil, nil
		}
	}
	if st.DNS == nil {
		req.Dst, err = f.withoutDNS(service)
		return service, err
	}
	req.Names, err = f.names(*st.DNS, to.host)
	return service, err
}

// domainOf returns the cluster's domain; what it mostly is where the node answers no DNS.
func domainOf(st *node.Status) string {
	if st.DNS == nil {
		return "cluster.local"
	}
	return st.DNS.Domain
}

// withoutDNS returns a Service's address where the pod's node does not answer DNS.
func (f *follower) withoutDNS(service *corev1.Service) (netip.Addr, error) {
	if service == nil {
		return netip.Addr{}, fmt.Errorf("%s answers no DNS (dns.off), so names cannot be followed there; trace an address, a Service or a pod", f.pod.Node)
	}
	for _, ip := range service.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil && a.Is6() == f.IPv6 {
			f.trace.Notes = append(f.trace.Notes, fmt.Sprintf("%s answers no DNS (dns.off): the Service's cluster IP is meant, %v", f.pod.Node, a))
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("Service %s/%s has no such cluster IP, and %s answers no DNS (dns.off); trace one of its pods", service.Namespace, service.Name, f.pod.Node)
}

// podAddr returns a pod's address; its name may be NAMESPACE/NAME.
func (f *follower) podAddr(ctx context.Context, name string) (netip.Addr, error) {
	namespace := f.pod.Namespace
	if ns, n, found := strings.Cut(name, "/"); found {
		namespace, name = ns, n
	}
	if name == "" || namespace == "" || strings.ContainsAny(name, "/") {
		return netip.Addr{}, errors.New("want a pod as NAME or NAMESPACE/NAME")
	}
	pod, err := f.at.Pod(ctx, namespace, name)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range pod.IPs {
		if a.Is6() == f.IPv6 {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("pod %v has no such address: %s", pod, pod.Reason)
}

// names returns what a program in the pod would ask for one after another, by the pod's resolv.conf.
func (f *follower) names(dns node.DNSStatus, host string) ([]string, error) {
	conf, err := f.pod.ResolvConf(dns)
	if err != nil {
		return nil, fmt.Errorf("the names that pod %v asks for: %w", f.pod, err)
	}
	if !slices.ContainsFunc(conf.Servers(), func(s netip.AddrPort) bool { return slices.Contains(dns.Addresses, s.Addr()) }) {
		return nil, fmt.Errorf("pod %v does not ask the cluster's DNS for names, but %v; trace an address", f.pod, conf.Servers())
	}
	return conf.Candidates(host), nil
}
