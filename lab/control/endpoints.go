package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/endpointslice"
	"k8s.io/endpointslice/topologycache"
	endpointsliceutil "k8s.io/endpointslice/util"
	"k8s.io/klog/v2"
)

// endpoints makes the EndpointSlices of Services with a selector, by Kubernetes' own code.
type endpoints struct {
	plane      *Plane
	reconciler *endpointslice.Reconciler
	topology   *topologycache.TopologyCache
	logger     klog.Logger
}

// What Kubernetes' controller has by default (pkg/controller/endpointslice).
const (
	maxPerSlice      = 100
	endpointsManager = "endpointslice-controller.k8s.io"
)

func newEndpoints(p *Plane) *endpoints {
	e := &endpoints{plane: p, topology: topologycache.NewTopologyCache(), logger: klog.Background().V(5)}
	nodes := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	var all []*corev1.Node
	for _, n := range p.config.Nodes {
		o := n.object()
		all = append(all, o)
		_ = nodes.Add(o) // the key of a node is its name, which never fails
	}
	e.topology.SetNodes(e.logger, all)
	e.reconciler = endpointslice.NewReconciler(&clientset{plane: p}, corelisters.NewNodeLister(nodes), maxPerSlice,
		endpointsliceutil.NewEndpointSliceTracker(), e.topology, &topologyEvents{p, map[name]string{}}, endpointsManager,
		endpointslice.WithPreferSameTrafficDistributionEnabled(true))
	return e
}

// syncLocked makes the slices of a Service what its pods are by now.
func (e *endpoints) syncLocked(at name) {
	p := e.plane
	s := get[*corev1.Service](p.state, Services, at)
	if s == nil || len(s.Spec.Selector) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName {
		e.reconciler.DeleteService(at.Namespace, at.Name)
		e.dropLocked(at, s)
		return
	}
	var pods []*corev1.Pod
	for _, pod := range list[*corev1.Pod](p.state, Pods, at.Namespace) {
		if selects(s, pod) {
			pods = append(pods, pod)
		}
	}
	var slices []*discoveryv1.EndpointSlice
	for _, slice := range list[*discoveryv1.EndpointSlice](p.state, EndpointSlices, at.Namespace) {
		if slice.Labels[discoveryv1.LabelServiceName] == at.Name && e.reconciler.ManagedByController(slice) {
			slices = append(slices, copyOf(slice)) // the reconciler sorts ports in place
		}
	}
	if err := e.reconciler.Reconcile(e.logger, s, pods, slices, time.Now()); err != nil {
		p.config.Event(at.String(), "endpoints: "+err.Error())
	}
}

// dropLocked removes the slices of a Service that has no selector any more.
func (e *endpoints) dropLocked(at name, s *corev1.Service) {
	for _, slice := range list[*discoveryv1.EndpointSlice](e.plane.state, EndpointSlices, at.Namespace) {
		owner := metav1.GetControllerOf(slice)
		if owner != nil && owner.Name == at.Name && e.reconciler.ManagedByController(slice) && (s == nil || owner.UID == s.UID) {
			e.plane.state.remove(EndpointSlices, nameOf(slice))
		}
	}
}

// clientset is the part of one that the reconciler uses, over the state, whose lock its caller has.
type clientset struct {
	kubernetes.Interface
	plane *Plane
}

func (c *clientset) DiscoveryV1() discoveryclient.DiscoveryV1Interface {
	return &discoveryClient{plane: c.plane}
}

type discoveryClient struct {
	discoveryclient.DiscoveryV1Interface
	plane *Plane
}

func (c *discoveryClient) EndpointSlices(namespace string) discoveryclient.EndpointSliceInterface {
	return &sliceClient{plane: c.plane, namespace: namespace}
}

type sliceClient struct {
	discoveryclient.EndpointSliceInterface
	plane     *Plane
	namespace string
}

func (c *sliceClient) Create(_ context.Context, slice *discoveryv1.EndpointSlice, _ metav1.CreateOptions) (*discoveryv1.EndpointSlice, error) {
	o := copyOf(slice)
	o.Namespace = c.namespace
	for o.Name == "" || c.plane.state.objects[EndpointSlices][nameOf(o)] != nil {
		o.Name = o.GenerateName + rand.String(5)
	}
	return c.put(o)
}

func (c *sliceClient) Update(_ context.Context, slice *discoveryv1.EndpointSlice, _ metav1.UpdateOptions) (*discoveryv1.EndpointSlice, error) {
	return c.put(copyOf(slice))
}

func (c *sliceClient) put(o *discoveryv1.EndpointSlice) (*discoveryv1.EndpointSlice, error) {
	stored, _ := c.plane.state.put(EndpointSlices, o)
	slice, ok := stored.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil, errors.New("the state holds another kind under this name")
	}
	return slice, nil
}

func (c *sliceClient) Delete(_ context.Context, n string, _ metav1.DeleteOptions) error {
	c.plane.state.remove(EndpointSlices, name{Namespace: c.namespace, Name: n})
	return nil
}

// topologyEvents tells a person why endpoints have no hints.
type topologyEvents struct {
	plane *Plane
	told  map[name]string // what was told of a Service last
}

var _ record.EventRecorder = (*topologyEvents)(nil)

func (t *topologyEvents) Event(o runtime.Object, kind, reason, message string) {
	s, ok := o.(*corev1.Service)
	if ok && kind == corev1.EventTypeWarning && t.told[nameOf(s)] != message {
		t.told[nameOf(s)] = message
		t.plane.config.Event(nameOf(s).String(), reason+": "+message)
	}
}

func (t *topologyEvents) Eventf(o runtime.Object, kind, reason, format string, args ...any) {
	t.Event(o, kind, reason, fmt.Sprintf(format, args...))
}

func (t *topologyEvents) AnnotatedEventf(o runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	t.Eventf(o, kind, reason, format, args...)
}
