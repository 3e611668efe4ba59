package control

import (
	"context"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/middleway-net/middleway/lab/manifest"
)

// Config describes a cluster to its control plane.
type Config struct {
	// Nodes are the cluster's nodes.
	Nodes []Node
	// ServiceCIDRs are the ranges of ClusterIPs, at most one of each family; the first is of the family that a Service has which does
	// not choose. Required.
	ServiceCIDRs []netip.Prefix
	// DNS are the addresses of kube-system/kube-dns. Default: no such Service.
	DNS []netip.Addr
	// Sink gets every object that daemons read. Default: nobody.
	Sink Sink
	// Fits refuses a pod that no node can run. Default: none is.
	Fits func(*manifest.Pod) error
	// Changed is called, with a lock held, when Instances may have changed. It must not block. Default: nobody is told.
	Changed func()
	// Event is called, with a lock held, for what a person is told: who is namespace/name. Default: nobody is told.
	Event func(who, what string)
}

// Node is a node of the cluster.
type Node struct {
	Name      string
	Addresses []netip.Addr
	PodCIDRs  []netip.Prefix
	Zone      string // "" for none
}

// Plane is a control plane.
type Plane struct {
	config  Config
	started metav1.Time

	mu        sync.Mutex
	state     *state
	watchers  map[*watcher]bool
	desired   map[string]*wanted // by manifest.ID
	addresses *allocator
	instances map[types.UID]*instance
	templates map[types.UID]*manifest.Deployment // by the ReplicaSet that was made of it
	scaled    map[string]int32                   // replicas by request, of Deployments of followed files
	dirty     dirty
	timers    map[name]later // of Deployments that something becomes of later
	endpoints *endpoints
	writer    *writer
	order     int // of the next instance
	closed    bool
}

// New makes a control plane, with the objects that every cluster has.
func New(c Config) *Plane {
	if c.Fits == nil {
		c.Fits = func(*manifest.Pod) error { return nil }
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.Event == nil {
		c.Event = func(string, string) {}
	}
	p := &Plane{
		config: c, started: metav1.NewTime(time.Now()), watchers: map[*watcher]bool{}, desired: map[string]*wanted{}, addresses: newAllocator(c.ServiceCIDRs),
		instances: map[types.UID]*instance{}, templates: map[types.UID]*manifest.Deployment{}, scaled: map[string]int32{}, timers: map[name]later{}, dirty: newDirty(),
		writer: newWriter(c.Sink, func(err error) { c.Event("state", err.Error()) }),
	}
	p.state = newState(p.noteLocked)
	p.endpoints = newEndpoints(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.makeOwnLocked()
	p.settleLocked()
	return p
}

// Run writes objects to the Sink until ctx ends, and then what is left to write. What cannot be written is told, and tried again.
func (p *Plane) Run(ctx context.Context) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.closed = true
		for _, l := range p.timers {
			l.timer.Stop()
		}
	}()
	p.writer.run(ctx)
}

// Written returns when what is in the state by now was handed to the Sink, or ctx has ended.
func (p *Plane) Written(ctx context.Context) error {
	p.mu.Lock()
	version := p.state.version
	p.mu.Unlock()
	return p.writer.wait(ctx, version)
}

// noteLocked tells of a change.
func (p *Plane) noteLocked(k *Kind, before, after Object) {
	for w := range p.watchers {
		w.note(k, before, after)
	}
	p.writer.note(k, before, after, p.state.version)
	p.dirty.note(p, k, before, after)
}

// makeOwnLocked makes the objects that every cluster has. kubernetes is the Service of the API server, of which there is none: it has
// its address, which programs look for in their variables, and no endpoints.
func (p *Plane) makeOwnLocked() {
	for _, n := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem} {
		p.needNamespaceLocked(n)
	}
	for _, n := range p.config.Nodes {
		p.state.put(Nodes, n.object())
	}
	for _, s := range p.ownServices() {
		for _, ip := range s.Spec.ClusterIPs {
			p.addresses.take(netip.MustParseAddr(ip), nameOf(s))
		}
		p.state.put(Services, s)
	}
}

// ownServices are those that no manifest has.
func (p *Plane) ownServices() []*corev1.Service {
	first := p.config.ServiceCIDRs[0].Addr().Next()
	kubernetes := ownService(name{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}, []netip.Addr{first},
		corev1.ServicePort{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: port(6443)})
	kubernetes.Labels = map[string]string{"component": "apiserver", "provider": "kubernetes"}
	if len(p.config.DNS) == 0 {
		return []*corev1.Service{kubernetes}
	}
	dns := ownService(name{Namespace: metav1.NamespaceSystem, Name: "kube-dns"}, p.config.DNS,
		corev1.ServicePort{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: port(53)},
		corev1.ServicePort{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53, TargetPort: port(53)})
	dns.Labels = map[string]string{"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
	return []*corev1.Service{kubernetes, dns}
}

func ownService(n name, addrs []netip.Addr, ports ...corev1.ServicePort) *corev1.Service {
	policy, internal := corev1.IPFamilyPolicySingleStack, corev1.ServiceInternalTrafficPolicyCluster
	if len(addrs) > 1 {
		policy = corev1.IPFamilyPolicyPreferDualStack
	}
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: n.Namespace, Name: n.Name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: addrs[0].String(), IPFamilyPolicy: &policy, Ports: ports,
			SessionAffinity: corev1.ServiceAffinityNone, InternalTrafficPolicy: &internal,
		},
	}
	for _, a := range addrs {
		s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, a.String())
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, manifest.FamilyOf(a))
	}
	return s
}

// needNamespaceLocked makes a namespace, unless it is there.
func (p *Plane) needNamespaceLocked(n string) {
	if p.state.objects[Namespaces][name{Name: n}] != nil {
		return
	}
	p.state.put(Namespaces, namespaceObject(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}}))
}

// namespaceObject fills in what a server does.
func namespaceObject(n *corev1.Namespace) *corev1.Namespace {
	labels := map[string]string{corev1.LabelMetadataName: n.Name}
	for k, v := range n.Labels {
		if k != corev1.LabelMetadataName {
			labels[k] = v
		}
	}
	n.Labels = labels
	n.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
	n.Status.Phase = corev1.NamespaceActive
	return n
}
