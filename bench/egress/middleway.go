package egress

import (
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/middleway-net/middleway/bench"
	"github.com/middleway-net/middleway/k8s/folder"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// middleway is ours: a node's daemon as shipped, with one pod.
type middleway struct{}

func (middleway) Name() string { return "middleway" }

func (middleway) Join(mtu int) (*bench.Pair, error) {
	return join(func(w *way) error { return w.cluster(mtu, nil) })
}

// nodePort is ours from the outside: the same, and a Service with NodePorts.
type nodePort struct{}

func (nodePort) Name() string { return "middleway" }

func (nodePort) Join(mtu int) (*bench.Pair, error) {
	return joinInward(podAddr.Addr(), func(w *way) error {
		dir, err := lab.NewDirectory()
		if err != nil {
			return err
		}
		w.OnClose(dir.Close)
		state := filepath.Join(dir.Path(), "state")
		if err := writeState(state); err != nil {
			return err
		}
		return w.cluster(mtu, func(c *node.Config) {
			c.Kubernetes.Folder, c.Services.CIDRs = state, lab.ServiceCIDRs()[:1]
			c.NodePorts.Addresses = []node.FrontRange{{Prefix: nodeAddr.Masked()}}
		})
	})
}

// overhead is what VXLAN adds to a packet over IPv4, in bytes; maxMTU is what it leaves of an IPv4 packet, the greatest MTU that a node takes.
const (
	overhead = 50
	maxMTU   = 65535 - overhead
)

// cluster makes a cluster of one node with one pod, which has podAddr.
func (w *way) cluster(mtu int, change func(*node.Config)) error {
	mtu = min(mtu, maxMTU)
	cl, err := lab.NewCluster(lab.ClusterConfig{
		Pods:     []int{1},
		Underlay: lab.UnderlayConfig{MTU: mtu + overhead}, // there is nobody there, but it must have room
		Change: func(_ int, c *node.Config) {
			if c.MTU = mtu; change != nil {
				change(c)
			}
		},
	})
	if err != nil {
		return err
	}
	w.OnClose(cl.Close)
	n := cl.Nodes[0]
	w.From, w.Daemons = n.Pods[0].Namespace, append(w.Daemons, n.Daemon())
	return w.link(n.Namespace)
}

// writeState writes a cluster of one node and a Service of one pod.
func writeState(dir string) error {
	f, err := folder.NewWriter(dir)
	if err != nil {
		return err
	}
	cidr := lab.PodCIDR4(1).String()
	self := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}}}
	service, slice := serviceObjects()
	for _, err := range []error{f.Put(self), f.Put(service), f.Put(slice)} {
		if err != nil {
			return err
		}
	}
	return f.Complete()
}

func serviceObjects() (*corev1.Service, *discoveryv1.EndpointSlice) {
	const name, clusterIP = "web", "10.96.16.0"
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: clusterIP, ClusterIPs: []string{clusterIP}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
	}
	ready, on := true, "node-1"
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name + "-x7k2p", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{podAddr.Addr().String()}, NodeName: &on, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready},
		}},
	}
	for _, p := range nodePorts {
		proto, target := corev1.ProtocolTCP, int32(p.target)
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: p.name, Protocol: proto, Port: target, TargetPort: intstr.FromInt32(target), NodePort: int32(p.from)})
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &p.name, Protocol: &proto, Port: &target})
	}
	return service, slice
}
