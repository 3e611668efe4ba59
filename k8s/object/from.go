package object

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// From strips an API object of one of the Kinds: a *corev1.Node, Namespace, Pod or Service, or a *discoveryv1.EndpointSlice. What
// of it is malformed is left out; the error says what that is, one sentence each, and the object is there nevertheless. Only for
// another type there is none.
func From(api any) (Object, error) {
	switch o := api.(type) {
	case *corev1.Node:
		return FromNode(o)
	case *corev1.Namespace:
		return FromNamespace(o), nil
	case *corev1.Pod:
		return FromPod(o)
	case *corev1.Service:
		return FromService(o)
	case *discoveryv1.EndpointSlice:
		return FromEndpointSlice(o)
	}
	return nil, fmt.Errorf("%T is no object that a node reads", api)
}

// FromNamespace strips a Namespace.
func FromNamespace(in *corev1.Namespace) *Namespace { return &Namespace{Name: in.Name} }

// FromNode strips a Node. The error is that of From.
func FromNode(in *corev1.Node) (*Node, error) {
	p := problems{about: "node " + in.Name}
	n := &Node{Name: shared(in.Name), Zone: shared(in.Labels[corev1.LabelTopologyZone]), Leaving: leaving(in)}
	for i, s := range in.Spec.PodCIDRs {
		n.PodCIDRs = p.prefix(n.PodCIDRs, fmt.Sprintf("spec.podCIDRs[%d]", i), s)
	}
	if len(in.Spec.PodCIDRs) == 0 && in.Spec.PodCIDR != "" {
		n.PodCIDRs = p.prefix(n.PodCIDRs, "spec.podCIDR", in.Spec.PodCIDR)
	}
	for _, t := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for i, a := range in.Status.Addresses {
			if a.Type == t {
				n.Addresses = p.addr(n.Addresses, fmt.Sprintf("status.addresses[%d].address", i), a.Address)
			}
		}
	}
	for k, v := range in.Annotations {
		if strings.HasPrefix(k, "flannel.alpha.coreos.com/") || strings.HasPrefix(k, "middleway.net/") {
			if n.Annotations == nil {
				n.Annotations = map[string]string{}
			}
			n.Annotations[k] = v
		}
	}
	return n, p.err()
}

// taintToBeDeleted is the cluster autoscaler's, of a node that it is about to delete.
const taintToBeDeleted = "ToBeDeletedByClusterAutoscaler"

func leaving(in *corev1.Node) bool {
	return in.DeletionTimestamp != nil || slices.ContainsFunc(in.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintToBeDeleted })
}

// FromPod strips a Pod. The error is that of From.
func FromPod(in *corev1.Pod) (*Pod, error) {
	p := problems{about: "pod " + in.Namespace + "/" + in.Name}
	pod := &Pod{
		Key:         Key{shared(in.Namespace), in.Name},
		Node:        shared(in.Spec.NodeName),
		HostNetwork: in.Spec.HostNetwork,
		Ended:       in.Status.Phase == corev1.PodSucceeded || in.Status.Phase == corev1.PodFailed,
	}
	for i, ip := range in.Status.PodIPs {
		pod.Addrs = p.addr(pod.Addrs, fmt.Sprintf("status.podIPs[%d].ip", i), ip.IP)
	}
	if len(in.Status.PodIPs) == 0 && in.Status.PodIP != "" {
		pod.Addrs = p.addr(pod.Addrs, "status.podIP", in.Status.PodIP)
	}
	return pod, p.err()
}

// problems gathers what is wrong with an object.
type problems struct {
	about string // for example "service default/web"
	all   []error
}

// add notes what is wrong with a field, and what becomes of it.
func (p *problems) add(field, format string, args ...any) {
	p.all = append(p.all, fmt.Errorf("%s: %s: %s", p.about, field, fmt.Sprintf(format, args...)))
}

func (p *problems) err() error { return errors.Join(p.all...) }

// addr appends the address s of a field to list; one that nothing can be sent to is left out.
func (p *problems) addr(list []netip.Addr, field, s string) []netip.Addr {
	if ip, ok := p.parseAddr(field, s); ok && !slices.Contains(list, ip) {
		list = append(list, ip)
	}
	return list
}

func (p *problems) parseAddr(field, s string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		p.add(field, "%q is no IP address, and is left out", s)
	case ip.Is4In6():
		p.add(field, "%s is an IPv4 address in IPv6 form, and is left out; write %v", s, ip.Unmap())
	case ip.Zone() != "" || !ip.IsGlobalUnicast():
		p.add(field, "%s is no address that a packet can be sent to across nodes, and is left out", s)
	default:
		return ip, true
	}
	return netip.Addr{}, false
}

// prefix appends the range s of a field to list; a malformed one is left out.
func (p *problems) prefix(list []netip.Prefix, field, s string) []netip.Prefix {
	cidr, err := netip.ParsePrefix(s)
	switch {
	case err != nil || cidr.Addr().Is4In6():
		p.add(field, "%q is no range of addresses, and is left out", s)
	case cidr != cidr.Masked():
		p.add(field, "%s is an address within a range, and is left out; the range is %v", s, cidr.Masked())
	default:
		return append(list, cidr)
	}
	return list
}
