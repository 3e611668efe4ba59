package manifest

import (
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is an object as its manifest has it, checked, with Kubernetes' defaults filled in: a *Pod, *Deployment, *Service,
// *EndpointSlice or *Namespace.
type Object interface {
	metav1.Object
	runtime.Object
	// Errorf returns an error about a field of the object, for example spec.ports[0].port.
	Errorf(field, format string, args ...any) error
	place() *Place
	// check finds the first thing for which Kubernetes would refuse the object, or for which it cannot be here.
	check() error
	setDefaults()
}

// Pod is a pod.
type Pod struct {
	corev1.Pod
	Place

	mu sync.RWMutex // over labels and annotations, which may change while the pod runs
}

// Deployment is a Deployment of apps/v1.
type Deployment struct {
	appsv1.Deployment
	Place
}

// Service is a Service of v1. Addresses and families that it leaves open are open still.
type Service struct {
	corev1.Service
	Place
}

// EndpointSlice is an EndpointSlice of discovery.k8s.io/v1, as a person writes one for a Service without selector.
type EndpointSlice struct {
	discoveryv1.EndpointSlice
	Place
}

// Namespace is a Namespace of v1.
type Namespace struct {
	corev1.Namespace
	Place
}

// Key returns the pod's namespace/name.
func (p *Pod) Key() string { return p.Namespace + "/" + p.Name }

// ID names an object among those of all kinds: Pod default/web.
func ID(o Object) string {
	id := o.GetObjectKind().GroupVersionKind().Kind + " "
	if o.GetNamespace() != "" {
		id += o.GetNamespace() + "/"
	}
	return id + o.GetName()
}

// word is what a person calls an object of a kind.
func word(kind string) string {
	if kind == "Pod" || kind == "Namespace" {
		return strings.ToLower(kind)
	}
	return kind
}

// FileOf returns the file in which an object stands, and its line.
func FileOf(o Object) (file string, line int) { return o.place().File, o.place().line }

// PodsOf returns the pods among objects.
func PodsOf(objects []Object) []*Pod {
	var pods []*Pod
	for _, o := range objects {
		if p, ok := o.(*Pod); ok {
			pods = append(pods, p)
		}
	}
	return pods
}
