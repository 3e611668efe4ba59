package control

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// dirty are the objects at which a controller is to look.
type dirty struct {
	deployments, services, pods map[name]bool
	namespaces                  map[string]bool
}

func newDirty() dirty {
	return dirty{map[name]bool{}, map[name]bool{}, map[name]bool{}, map[string]bool{}}
}

// note marks what a change concerns.
func (d *dirty) note(p *Plane, k *Kind, before, after Object) {
	o := after
	if after == nil {
		o = before
		d.namespaces[o.GetNamespace()] = true
	}
	switch k {
	case Deployments:
		d.deployments[nameOf(o)] = true
	case ReplicaSets:
		d.noteOwner(o)
	case Services:
		d.services[nameOf(o)] = true
	case Pods:
		d.pods[nameOf(o)] = true
		if rs := p.replicaSetOf(o.(*corev1.Pod)); rs != nil {
			d.noteOwner(rs)
		}
		for _, s := range list[*corev1.Service](p.state, Services, o.GetNamespace()) {
			if before != nil && selects(s, before) || after != nil && selects(s, after) {
				d.services[nameOf(s)] = true
			}
		}
	}
}

// noteOwner marks the Deployment of a ReplicaSet.
func (d *dirty) noteOwner(o Object) {
	if owner := metav1.GetControllerOf(o); owner != nil && owner.Kind == Deployments.Kind {
		d.deployments[name{Namespace: o.GetNamespace(), Name: owner.Name}] = true
	}
}

// selects reports whether a Service chooses an object by its labels. One without a selector chooses nothing.
func selects(s *corev1.Service, o Object) bool {
	return len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(o.GetLabels()))
}

// settleLocked lets the controllers work until nothing is left to do. Deployments come before pods, and pods before Services, so that
// endpoints are made of what has been decided about pods.
func (p *Plane) settleLocked() {
	for {
		if n, ok := pop(p.dirty.deployments); ok {
			p.syncDeploymentLocked(n)
		} else if n, ok := pop(p.dirty.pods); ok {
			p.syncPodLocked(n)
		} else if n, ok := pop(p.dirty.services); ok {
			p.endpoints.syncLocked(n)
		} else if n, ok := pop(p.dirty.namespaces); ok {
			p.dropNamespaceLocked(n)
		} else {
			return
		}
	}
}

// pop takes something out of a set.
func pop[T comparable](set map[T]bool) (T, bool) {
	for v := range set {
		delete(set, v)
		return v, true
	}
	var none T
	return none, false
}

// replicaSetOf returns a pod's ReplicaSet, or nil.
func (p *Plane) replicaSetOf(pod *corev1.Pod) *appsv1.ReplicaSet {
	owner := metav1.GetControllerOf(pod)
	if owner == nil || owner.Kind != ReplicaSets.Kind {
		return nil
	}
	rs := get[*appsv1.ReplicaSet](p.state, ReplicaSets, name{Namespace: pod.Namespace, Name: owner.Name})
	if rs == nil || rs.UID != owner.UID {
		return nil
	}
	return rs
}
