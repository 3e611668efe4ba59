package bench

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/middleway-net/middleway/lab"
)

// clusterIP returns the address of Service i, in a part of the range that has none for the DNS Service.
func clusterIP(i int) netip.Addr {
	a := lab.ServiceCIDRs()[0].Addr().As4()
	a[2], a[3] = byte(16+i>>8), byte(i)
	return netip.AddrFrom4(a)
}

func nodeObject(n int) *corev1.Node {
	cidr := lab.PodCIDR4(n).String()
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", n)},
		Spec:       corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}},
	}
}

func serviceObject(i int) *corev1.Service {
	ip := clusterIP(i).String()
	port := func(name string, p corev1.Protocol) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Protocol: p, Port: servicePort, TargetPort: intstr.FromInt32(doorPort)}
	}
	o := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("web-%05d", i)},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Selector: map[string]string{"app": fmt.Sprintf("web-%05d", i)}, Ports: []corev1.ServicePort{port("stream", corev1.ProtocolTCP)},
		},
	}
	if i == 0 {
		o.Spec.Ports = append(o.Spec.Ports, port("datagram", corev1.ProtocolUDP))
	}
	return o
}

// slice returns the EndpointSlice of Service i.
func (s *ServicePair) slice(i int, ready func(endpoint int) bool) *discoveryv1.EndpointSlice {
	port := func(name string, p corev1.Protocol) discoveryv1.EndpointPort {
		n := int32(doorPort)
		return discoveryv1.EndpointPort{Name: &name, Protocol: &p, Port: &n}
	}
	service := fmt.Sprintf("web-%05d", i)
	o := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: service + "-x7k2p", Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{port("stream", corev1.ProtocolTCP)},
	}
	if i == 0 {
		o.Ports = append(o.Ports, port("datagram", corev1.ProtocolUDP))
	}
	for k := range endpoints {
		is, on := ready(k), fmt.Sprint("node-", 1+k%2)
		o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{s.endpointAddr(i, k).String()}, NodeName: &on,
			Conditions: discoveryv1.EndpointConditions{Ready: &is, Serving: &is},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: fmt.Sprintf("%s-6d4cf56db6-%05d", service, k)},
		})
	}
	return o
}

// endpointAddr returns the address of a Service's endpoint: a pod's for the first Service, nobody's in 10.128.0.0/9 for others.
func (s *ServicePair) endpointAddr(i, k int) netip.Addr {
	if i == 0 {
		return s.pods[k].Addr()
	}
	n := i*endpoints + k
	return netip.AddrFrom4([4]byte{10, 128 + byte(n>>16), byte(n >> 8), byte(n)})
}
