package proxy

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s/nodes"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

const (
	// servicePort and targetPort are what each Service of these tests has, for TCP and UDP.
	servicePort = 80
	targetPort  = 8080
	// firstNodePort is that of Service 0.
	firstNodePort = 30080
	// outsidePort is where the host outside serves pods.
	outsidePort = 8080
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

// outside returns an address of the host outside, by its number.
func (f family) outside(h int) netip.Addr { return f.of(lab.ExternalAddr4(h), lab.ExternalAddr6(h)) }

func (f family) loopback() netip.Addr {
	return f.of(netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
}

func (f family) podCIDR(n int) netip.Prefix {
	if f == v4 {
		return lab.PodCIDR4(n)
	}
	return lab.PodCIDR6(n)
}

func (f family) gateway(n int) netip.Addr { return host(f.podCIDR(n), 1) }

// vip returns the ClusterIP of a number.
func (f family) vip(number int) netip.Addr {
	if f == v4 {
		return host(lab.ServiceCIDRs()[0], 20+number)
	}
	return host(lab.ServiceCIDRs()[1], 20+number)
}

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "default", Name: name}
}

// nodeObject is a node of the plan as kubelet, controller manager and its daemon have made it.
func nodeObject(number int) *corev1.Node {
	addr := v4.node(number)
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", number)}}
	n.Annotations = nodes.Announcement{Address: addr, VNI: vxlan.DefaultVNI, MAC: node.DefaultMAC(addr)}.Annotations(nil)
	for _, f := range families {
		n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, f.podCIDR(number).Masked().String())
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: f.node(number).String()})
	}
	n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	return n
}

// service returns a Service of both families with the ClusterIPs and the node port of a number, for TCP and UDP.
func service(name string, number int) *corev1.Service {
	policy := corev1.IPFamilyPolicyRequireDualStack
	s := &corev1.Service{ObjectMeta: meta(name), Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeNodePort, IPFamilyPolicy: &policy, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
	}}
	for _, f := range families {
		s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, f.vip(number).String())
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, f.ip)
	}
	s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	for _, p := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{
			Name: strings.ToLower(string(p)), Protocol: p, Port: servicePort, NodePort: int32(nodePort(number)),
		})
	}
	return s
}

// nodePort returns the node port of the Service of a number.
func nodePort(number int) uint16 { return uint16(firstNodePort + number) }

// endpoint is a pod that serves.
type endpoint struct {
	addrs [2]netip.Addr // IPv4, IPv6
	node  string
}

// onPod returns the endpoint of a pod of a node.
func onPod(node int, p *lab.Pod) endpoint {
	return endpoint{[2]netip.Addr{p.Addr4, p.Addr6}, fmt.Sprintf("node-%d", node)}
}

// sliceOf returns a Service's slice of a family, in which all its ports lead to port 8080.
func sliceOf(s *corev1.Service, f family, of ...endpoint) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{ObjectMeta: meta(s.Name + "-" + strings.ToLower(f.name)), AddressType: discoveryv1.AddressType(f.ip)}
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: s.Name}
	for _, p := range s.Spec.Ports {
		port := int32(targetPort)
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &port})
	}
	for _, e := range of {
		ready := true
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{f.of(e.addrs[0], e.addrs[1]).String()}, NodeName: &e.node, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
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
