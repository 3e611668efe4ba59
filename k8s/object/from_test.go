package object

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestFromService(t *testing.T) {
	tests := []struct {
		name string
		in   corev1.Service
		want Service // but for its name
		told []string
	}{
		{
			name: "both families, and what a type has besides",
			in: corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"middleway.net/scheduler": "maglev"}},
				Spec: corev1.ServiceSpec{
					Type: corev1.ServiceTypeNodePort, ClusterIP: "10.96.0.20", ClusterIPs: []string{"10.96.0.20", "fd00:10:96::20"},
					Ports:                 []corev1.ServicePort{{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, NodePort: 30053}, {Name: "http", Port: 80}, {Name: "diameter", Protocol: corev1.ProtocolSCTP, Port: 3868}},
					SessionAffinity:       corev1.ServiceAffinityClientIP,
					InternalTrafficPolicy: new(corev1.ServiceInternalTrafficPolicyLocal), ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
					ExternalIPs: []string{"203.0.113.99", "2001:db8::99", "203.0.113.99"},
				},
			},
			want: Service{
				ClusterIPs: addrs("10.96.0.20", "fd00:10:96::20"), ExternalIPs: addrs("203.0.113.99", "2001:db8::99"),
				Ports:    []ServicePort{{"dns", UDP, 53, 30053}, {"http", TCP, 80, 0}, {"diameter", SCTP, 3868, 0}},
				Affinity: 3 * time.Hour, InternalLocal: true, ExternalLocal: true, Scheduler: "maglev",
			},
		},
		{name: "clusterIP alone", in: spec(corev1.ServiceSpec{ClusterIP: "10.96.0.20"}), want: Service{ClusterIPs: addrs("10.96.0.20")}},
		{name: "headless", in: spec(corev1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}}), want: Service{Headless: true}},
		{name: "no address yet", in: spec(corev1.ServiceSpec{ClusterIPs: []string{""}}), want: Service{}},
		{
			name: "ExternalName, once a ClusterIP", in: spec(corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com", ClusterIP: "10.96.0.20"}),
			want: Service{ExternalName: "example.com"},
		},
		{name: "another proxy's", in: labelled("service.kubernetes.io/service-proxy-name", "mesh"), want: Service{NotProxied: true}},
		{name: "label without value", in: labelled("service.kubernetes.io/service-proxy-name", ""), want: Service{NotProxied: true}},
		{name: "label headless", in: labelled("service.kubernetes.io/headless", ""), want: Service{NotProxied: true}},
		{
			name: "affinity of a minute", in: spec(corev1.ServiceSpec{SessionAffinity: "ClientIP", SessionAffinityConfig: affinityOf(60)}),
			want: Service{Affinity: time.Minute},
		},
		{
			name: "affinity of a week", in: spec(corev1.ServiceSpec{SessionAffinity: "ClientIP", SessionAffinityConfig: affinityOf(604800)}),
			want: Service{Affinity: 3 * time.Hour},
			told: []string{"spec.sessionAffinityConfig.clientIP.timeoutSeconds: 604800 is not within 1 and 86400; it is 10800"},
		},
		{name: "another affinity", in: spec(corev1.ServiceSpec{SessionAffinity: "Cookie"}), told: []string{`spec.sessionAffinity: "Cookie" is none of`}},
		{
			name: "another scheduler", in: corev1.Service{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"middleway.net/scheduler": "Random"}}},
			told: []string{`metadata.annotations[middleway.net/scheduler]: "Random" is none of random, round-robin, least-connections and maglev`},
		},
		{
			name: "addresses", in: spec(corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.20", "10.96.0.21", "::ffff:10.96.0.22", "fe80::1%eth0", "127.0.0.1", "web"}}),
			want: Service{ClusterIPs: addrs("10.96.0.20")},
			told: []string{
				"spec.clusterIPs[1]: 10.96.0.21 is a second address of its family",
				"spec.clusterIPs[2]: ::ffff:10.96.0.22 is an IPv4 address in IPv6 form, and is left out; write 10.96.0.22",
				"spec.clusterIPs[3]: fe80::1%eth0 is no address", "spec.clusterIPs[4]: 127.0.0.1 is no address", `spec.clusterIPs[5]: "web" is no IP address`,
			},
		},
		{
			name: "external addresses", in: spec(corev1.ServiceSpec{ExternalIPs: []string{"203.0.113.99", "127.0.0.1", "0.0.0.0", "fe80::1", "::ffff:203.0.113.9", "", "203.0.113.98"}}),
			want: Service{ExternalIPs: addrs("203.0.113.99", "203.0.113.98")},
			told: []string{
				"spec.externalIPs[1]: 127.0.0.1 is no address", "spec.externalIPs[2]: 0.0.0.0 is no address", "spec.externalIPs[3]: fe80::1 is no address",
				"spec.externalIPs[4]: ::ffff:203.0.113.9 is an IPv4 address in IPv6 form, and is left out; write 203.0.113.9", `spec.externalIPs[5]: "" is no IP address`,
			},
		},
		{
			name: "external addresses of an ExternalName", in: spec(corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com", ExternalIPs: []string{"203.0.113.99"}}),
			want: Service{ExternalName: "example.com"},
		},
		{
			name: "a port for load balancers", in: spec(corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 32000}),
			want: Service{ExternalLocal: true, HealthPort: 32000},
		},
		{
			name: "one that is left of another policy", in: spec(corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster, HealthCheckNodePort: 32000}),
			want: Service{},
		},
		{
			name: "one that is left of another type", in: spec(corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 32000}),
			want: Service{ExternalLocal: true},
		},
		{
			name: "one that is no port", in: spec(corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, HealthCheckNodePort: 70000}),
			want: Service{ExternalLocal: true}, told: []string{"spec.healthCheckNodePort: 70000 is not within 1 and 65535"},
		},
		{
			name: "ports", in: spec(corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 0}, {Port: 65536}, {Port: 80, Protocol: "ICMP"}, {Port: 80, NodePort: -1}, {Port: 443}}}),
			want: Service{Ports: []ServicePort{{"", TCP, 443, 0}}},
			told: []string{"spec.ports[0].port: 0 is not", "spec.ports[1].port: 65536 is not", `spec.ports[2].protocol: "ICMP" is none`, "spec.ports[3].nodePort: -1 is not"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Namespace, tt.in.Name = "default", "web"
			tt.want.Key = Key{"default", "web"}
			got, err := FromService(&tt.in)
			compare(t, &tt.want, got, err, "service default/web: ", tt.told)
		})
	}
}

func TestFromEndpointSlice(t *testing.T) {
	yes, no := true, false
	port := func(name *string, number *int32, proto *corev1.Protocol) discoveryv1.EndpointPort {
		return discoveryv1.EndpointPort{Name: name, Port: number, Protocol: proto}
	}
	tests := []struct {
		name string
		in   discoveryv1.EndpointSlice
		want EndpointSlice // but for its name
		told []string
	}{
		{
			name: "conditions that are not told",
			in: discoveryv1.EndpointSlice{
				AddressType: discoveryv1.AddressTypeIPv4,
				ObjectMeta:  metav1.ObjectMeta{Labels: map[string]string{"kubernetes.io/service-name": "web"}},
				Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.2", "10.244.1.3"}}},
			},
			want: EndpointSlice{Service: "web", Endpoints: []Endpoint{{Addr: addrs("10.244.1.2")[0], Ready: true, Serving: true}}},
		},
		{
			name: "all that an endpoint tells",
			in: discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv6, Endpoints: []discoveryv1.Endpoint{{
				Addresses: []string{"fd00:10:244:1::2"}, Hostname: new("web-0"), NodeName: new("n1"),
				Conditions: discoveryv1.EndpointConditions{Ready: &no, Serving: &no, Terminating: &yes},
				Hints:      &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}, ForNodes: []discoveryv1.ForNode{{Name: "n1"}}},
			}}},
			want: EndpointSlice{Endpoints: []Endpoint{{
				Addr: addrs("fd00:10:244:1::2")[0], Hostname: "web-0", Node: "n1", Terminating: true,
				Hints: &Hints{Zones: []string{"a"}, Nodes: []string{"n1"}},
			}}},
		},
		{
			name: "ports without name or number are for all ports, not for Services",
			in: discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{
				port(nil, new(int32(80)), nil), port(new("http"), nil, nil), port(new("http"), new(int32(0)), nil),
				port(new(""), new(int32(8080)), nil), port(new("dns"), new(int32(53)), new(corev1.ProtocolUDP)),
			}},
			want: EndpointSlice{Ports: []EndpointPort{{"", TCP, 8080}, {"dns", UDP, 53}}},
		},
		{
			name: "malformed ports",
			in: discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{
				port(new("a"), new(int32(-1)), nil), port(new("b"), new(int32(1<<20)), nil), port(new("c"), new(int32(1)), new(corev1.Protocol("GRE"))),
			}},
			told: []string{"ports[0].port: -1 is not", "ports[1].port: 1048576 is not", `ports[2].protocol: "GRE" is none`},
		},
		{
			name: "malformed addresses",
			in: discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{
				{Addresses: []string{"fd00:10:244:1::2"}}, {}, {Addresses: []string{"10.244.1"}}, {Addresses: []string{"::ffff:10.244.1.2"}}, {Addresses: []string{"10.244.1.5"}},
			}},
			want: EndpointSlice{Endpoints: []Endpoint{{Addr: addrs("10.244.1.5")[0], Ready: true, Serving: true}}},
			told: []string{
				"endpoints[0].addresses[0]: fd00:10:244:1::2 is no IPv4 address", "endpoints[1].addresses: there is none",
				`endpoints[2].addresses[0]: "10.244.1" is no IP address`, "endpoints[3].addresses[0]: ::ffff:10.244.1.2 is an IPv4 address in IPv6 form",
			},
		},
		{name: "names", in: discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeFQDN, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"example.com"}}}}},
		{
			name: "an unknown type of addresses", in: discoveryv1.EndpointSlice{AddressType: "MAC", Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.2"}}}},
			told: []string{`addressType: "MAC" is none`},
		},
		{
			name: "of a headless Service", in: discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"service.kubernetes.io/headless": ""}}},
			want: EndpointSlice{NotProxied: true},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Namespace, tt.in.Name = "default", "web-x"
			tt.want.Key = Key{"default", "web-x"}
			got, err := FromEndpointSlice(&tt.in)
			compare(t, &tt.want, got, err, "endpointslice default/web-x: ", tt.told)
		})
	}
}

func TestFromNode(t *testing.T) {
	tests := []struct {
		name string
		in   corev1.Node
		want Node // but for its name
		told []string
	}{
		{
			name: "all that is read",
			in: corev1.Node{
				ObjectMeta: metav1.ObjectMeta{
					Labels:      map[string]string{"topology.kubernetes.io/zone": "a", "beta.kubernetes.io/arch": "amd64"},
					Annotations: map[string]string{"flannel.alpha.coreos.com/backend-type": "vxlan", "middleway.net/trains": "true", "node.alpha.kubernetes.io/ttl": "0"},
				},
				Spec: corev1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24", "fd00:10:244:1::/64"}},
				Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
					{Type: corev1.NodeExternalIP, Address: "203.0.113.11"}, {Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeInternalIP, Address: "192.168.254.11"},
				}},
			},
			want: Node{
				PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")},
				Addresses: addrs("192.168.254.11", "203.0.113.11"), Zone: "a",
				Annotations: map[string]string{"flannel.alpha.coreos.com/backend-type": "vxlan", "middleway.net/trains": "true"},
			},
		},
		{name: "podCIDR alone", in: corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.244.1.0/24"}}, want: Node{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}},
		{name: "being deleted", in: corev1.Node{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: new(metav1.Now())}}, want: Node{Leaving: true}},
		{
			name: "about to be deleted by the autoscaler",
			in:   corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "other"}, {Key: "ToBeDeletedByClusterAutoscaler", Effect: corev1.TaintEffectNoSchedule}}}},
			want: Node{Leaving: true},
		},
		{name: "unschedulable", in: corev1.Node{Spec: corev1.NodeSpec{Unschedulable: true, Taints: []corev1.Taint{{Key: "node.kubernetes.io/unschedulable"}}}}, want: Node{}},
		{
			name: "malformed",
			in: corev1.Node{
				Spec:   corev1.NodeSpec{PodCIDRs: []string{"10.244.1.1/24", "10.244.1.0", "::ffff:10.244.1.0/120"}},
				Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "n1.example"}}},
			},
			told: []string{
				"spec.podCIDRs[0]: 10.244.1.1/24 is an address within a range, and is left out; the range is 10.244.1.0/24", `spec.podCIDRs[1]: "10.244.1.0" is no range`,
				`spec.podCIDRs[2]: "::ffff:10.244.1.0/120" is no range`, `status.addresses[0].address: "n1.example" is no IP address`,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Name, tt.want.Name = "n1", "n1"
			got, err := FromNode(&tt.in)
			compare(t, &tt.want, got, err, "node n1: ", tt.told)
		})
	}
}

func TestFromPod(t *testing.T) {
	tests := []struct {
		name string
		in   corev1.Pod
		want Pod // but for its name
		told []string
	}{
		{
			name: "running",
			in: corev1.Pod{Spec: corev1.PodSpec{NodeName: "n1", HostNetwork: true}, Status: corev1.PodStatus{
				Phase: corev1.PodRunning, PodIP: "10.244.1.2", PodIPs: []corev1.PodIP{{IP: "10.244.1.2"}, {IP: "fd00:10:244:1::2"}},
			}},
			want: Pod{Addrs: addrs("10.244.1.2", "fd00:10:244:1::2"), Node: "n1", HostNetwork: true},
		},
		{name: "not scheduled", in: corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodPending}}},
		{name: "podIP alone", in: corev1.Pod{Status: corev1.PodStatus{PodIP: "10.244.1.2"}}, want: Pod{Addrs: addrs("10.244.1.2")}},
		{name: "succeeded", in: corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}, want: Pod{Ended: true}},
		{name: "failed", in: corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodFailed}}, want: Pod{Ended: true}},
		{name: "malformed", in: corev1.Pod{Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.244.1.256"}}}}, told: []string{`status.podIPs[0].ip: "10.244.1.256" is no IP address`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.Namespace, tt.in.Name = "default", "web-1"
			tt.want.Key = Key{"default", "web-1"}
			got, err := FromPod(&tt.in)
			compare(t, &tt.want, got, err, "pod default/web-1: ", tt.told)
		})
	}
}

func TestFrom(t *testing.T) {
	for kind, api := range map[Kind]any{
		Nodes: &corev1.Node{}, Namespaces: &corev1.Namespace{}, Pods: &corev1.Pod{}, Services: &corev1.Service{},
		EndpointSlices: &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4},
	} {
		o, err := From(api)
		if err != nil || o.Kind() != kind {
			t.Errorf("From(%T) = %v, %v, want an object of %v", api, o, err, kind)
		}
	}
	if o, err := From(&corev1.Secret{}); o != nil || err == nil {
		t.Errorf("From(Secret) = %v, %v, want an error alone", o, err)
	}
}

func compare(t *testing.T, want, got any, err error, about string, told []string) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var lines []string
	if err != nil {
		lines = strings.Split(err.Error(), "\n")
	}
	if len(lines) != len(told) {
		t.Fatalf("told %q, want %d sentences", lines, len(told))
	}
	for i, want := range told {
		if !strings.HasPrefix(lines[i], about+want) {
			t.Errorf("told %q, want %q", lines[i], about+want)
		}
	}
}

func addrs(all ...string) (list []netip.Addr) {
	for _, a := range all {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

func spec(s corev1.ServiceSpec) corev1.Service { return corev1.Service{Spec: s} }

func labelled(label, value string) corev1.Service {
	return corev1.Service{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{label: value}}}
}

func affinityOf(seconds int32) *corev1.SessionAffinityConfig {
	return &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
}
