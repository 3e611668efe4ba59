package control

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is an object of Kubernetes' API, apiVersion and kind filled in: a pointer to a type of k8s.io/api. What comes from this
// package is to be read only.
type Object interface {
	metav1.Object
	runtime.Object
}

// Kind is a kind of objects, with the names that kubectl has for it.
type Kind struct {
	schema.GroupVersionKind
	Plural     string   // pods
	Short      []string // po
	Namespaced bool

	make func() Object
}

// Singular is kubectl's name for one of the kind: pod.
func (k *Kind) Singular() string { return strings.ToLower(k.Kind) }

// Resource is the kind's name in messages of an API server: pods, deployments.apps.
func (k *Kind) Resource() schema.GroupResource {
	return schema.GroupResource{Group: k.Group, Resource: k.Plural}
}

// The kinds that the control plane has.
var (
	Namespaces     = core("Namespace", "namespaces", false, func() Object { return &corev1.Namespace{} }, "ns")
	Nodes          = core("Node", "nodes", false, func() Object { return &corev1.Node{} }, "no")
	Pods           = core("Pod", "pods", true, func() Object { return &corev1.Pod{} }, "po")
	Services       = core("Service", "services", true, func() Object { return &corev1.Service{} }, "svc")
	EndpointSlices = &Kind{discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), "endpointslices", nil, true, func() Object { return &discoveryv1.EndpointSlice{} }}
	Deployments    = &Kind{appsv1.SchemeGroupVersion.WithKind("Deployment"), "deployments", []string{"deploy"}, true, func() Object { return &appsv1.Deployment{} }}
	ReplicaSets    = &Kind{appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), "replicasets", []string{"rs"}, true, func() Object { return &appsv1.ReplicaSet{} }}
)

// Kinds are all of them, in the order in which they are shown and written: what others refer to comes first.
var Kinds = []*Kind{Namespaces, Nodes, Services, EndpointSlices, Deployments, ReplicaSets, Pods}

func core(kind, plural string, namespaced bool, makes func() Object, short ...string) *Kind {
	return &Kind{corev1.SchemeGroupVersion.WithKind(kind), plural, short, namespaced, makes}
}

// KindNamed returns the kind that a person calls pods, pod, po, Pod, deployments.apps or deployments.v1.apps; nil for none.
func KindNamed(name string) *Kind {
	name, rest, dotted := strings.Cut(strings.ToLower(name), ".")
	for _, k := range Kinds {
		if name != k.Plural && name != k.Singular() && !slices.Contains(k.Short, name) {
			continue
		}
		if !dotted || rest == k.Group || rest == k.Version+"."+k.Group {
			return k
		}
	}
	return nil
}

// KindOf returns an object's kind; nil for one that the control plane does not have.
func KindOf(o Object) *Kind {
	gvk := o.GetObjectKind().GroupVersionKind()
	for _, k := range Kinds {
		if k.GroupVersionKind == gvk {
			return k
		}
	}
	return nil
}

// Decode reads an object as List and Watch have sent it.
func Decode(b []byte) (Object, error) {
	var meta metav1.TypeMeta
	if err := json.Unmarshal(b, &meta); err != nil {
		return nil, fmt.Errorf("decode object: %w", err)
	}
	gvk := meta.GroupVersionKind()
	i := slices.IndexFunc(Kinds, func(k *Kind) bool { return k.GroupVersionKind == gvk })
	if i < 0 {
		return nil, fmt.Errorf("decode object: %s is no kind of this control plane", gvk)
	}
	o := Kinds[i].make()
	if err := json.Unmarshal(b, o); err != nil {
		return nil, fmt.Errorf("decode %s: %w", gvk.Kind, err)
	}
	return o, nil
}
