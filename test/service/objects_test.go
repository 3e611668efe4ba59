package service

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s/nodes"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// servicePort and targetPort are what each Service of these tests has, for TCP and UDP.
const (
	servicePort = 80
	targetPort  = 8080
)

// family is the address plan of one family.
type family struct {
	name string
	ip   corev1.IPFamily
}

var (
	v4       = family{"IPv4", corev1.IPv4Protocol}
	v6       = family{"IPv6", corev1.IPv6Protocol}
	families = []family{v4, v6}
)

func (f family) of(a4, a6 netip.Addr) netip.Addr {
	if f == v4 {
		return a4
	}
	return a6
}

func (f family) pod(p *lab.Pod) netip.Addr { return f.of(p.Addr4, p.Addr6) }
func (f family) node(n int) netip.Addr     { return f.of(lab.NodeAddr4(n).Addr(), lab.NodeAddr6(n).Addr()) }

func (f family) podCIDR(n int) netip.Prefix {
	if f == v4 {
		return lab.PodCIDR4(n)
	}
	return lab.PodCIDR6(n)
}

func (f family) mw0(n int) netip.Addr     { return host(f.podCIDR(n), 0) }
func (f family) gateway(n int) netip.Addr { return host(f.podCIDR(n), 1) }

// vip returns the ClusterIP of a number up to 9: 10.96.0.5, fd00:10:96::5.
func (f family) vip(number int) netip.Addr { return host(f.serviceCIDR(), number) }

func (f family) serviceCIDR() netip.Prefix {
	if f == v4 {
		return serviceCIDRs[0]
	}
	return serviceCIDRs[1]
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

// nodeObject is a node of the plan as kubelet, controller manager and its daemon have made it.
func nodeObject(number int) *corev1.Node {
	addr := v4.node(number)
	n := &corev1.Node{ObjectMeta: meta("", fmt.Sprintf("node-%d", number))}
	n.Annotations = nodes.Announcement{Address: addr, VNI: vxlan.DefaultVNI, MAC: node.DefaultMAC(addr)}.Annotations(nil)
	for _, f := range families {
		n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, f.podCIDR(number).Masked().String())
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: f.node(number).String()})
	}
	n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	return n
}

// service returns a Service of both families with the ClusterIPs of a number, and port 80 of TCP and UDP.
func service(name string, number int) *corev1.Service {
	policy := corev1.IPFamilyPolicyRequireDualStack
	s := &corev1.Service{ObjectMeta: meta("default", name), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, IPFamilyPolicy: &policy}}
	for _, f := range families {
		s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, f.vip(number).String())
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, f.ip)
	}
	s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	for _, p := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: portName(p), Protocol: p, Port: servicePort})
	}
	return s
}

func portName(p corev1.Protocol) string {
	return map[corev1.Protocol]string{corev1.ProtocolTCP: "web", corev1.ProtocolUDP: "question"}[p]
}

// endpoint is a member of slices.
type endpoint struct {
	addrs     [2]netip.Addr // IPv4, IPv6
	node      string
	condition condition
}

// condition is what an endpoint says of itself.
type condition struct{ ready, serving, terminating bool }

var (
	ready    = condition{ready: true, serving: true}
	unready  = condition{}
	draining = condition{serving: true, terminating: true}
)

// onPod returns the endpoint of a pod of a node, onHost that of a program in the node's own network.
func onPod(node int, p *lab.Pod) endpoint {
	return endpoint{[2]netip.Addr{p.Addr4, p.Addr6}, fmt.Sprintf("node-%d", node), ready}
}

func onHost(node int) endpoint {
	return endpoint{[2]netip.Addr{v4.node(node), v6.node(node)}, fmt.Sprintf("node-%d", node), ready}
}

func (e endpoint) but(c condition) endpoint {
	e.condition = c
	return e
}

// usable returns where new connections go, in order.
func usable(f family, all []endpoint) (backends []netip.AddrPort) {
	for _, c := range []condition{ready, draining} {
		for _, e := range all {
			if e.condition == c {
				backends = append(backends, netip.AddrPortFrom(f.of(e.addrs[0], e.addrs[1]), targetPort))
			}
		}
		if len(backends) > 0 {
			break
		}
	}
	slices.SortFunc(backends, netip.AddrPort.Compare)
	return backends
}

// slicesOf returns a Service's slices, one of each family, in which all its ports lead to port 8080.
func slicesOf(s *corev1.Service, of ...endpoint) []*discoveryv1.EndpointSlice {
	return []*discoveryv1.EndpointSlice{sliceOf(s, "v4", v4, of...), sliceOf(s, "v6", v6, of...)}
}

// sliceOf returns one slice of a Service, whose name ends in suffix.
func sliceOf(s *corev1.Service, suffix string, f family, of ...endpoint) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta(s.Namespace, s.Name+"-"+suffix), AddressType: discoveryv1.AddressType(f.ip)}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: s.Name}
	for _, p := range s.Spec.Ports {
		port := int32(targetPort)
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &port})
	}
	for _, e := range of {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{f.of(e.addrs[0], e.addrs[1]).String()}, NodeName: &e.node,
			Conditions: discoveryv1.EndpointConditions{Ready: &e.condition.ready, Serving: &e.condition.serving, Terminating: &e.condition.terminating},
		})
	}
	return slice
}

// host returns the address with a number in a range.
func host(r netip.Prefix, number int) netip.Addr {
	a := r.Masked().Addr()
	for range number {
		a = a.Next()
	}
	return a
}
