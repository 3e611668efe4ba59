package control

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/dump"

	"github.com/middleway-net/middleway/lab/manifest"
)

// revisionAnnotation counts the templates that a Deployment has had (pkg/controller/deployment/util).
const revisionAnnotation = "deployment.kubernetes.io/revision"

// rollout is a Deployment with its ReplicaSets: that of the present template, and those of earlier ones, the oldest first.
type rollout struct {
	*appsv1.Deployment
	present *appsv1.ReplicaSet // nil if there is none yet
	old     []*appsv1.ReplicaSet
}

func (r *rollout) all() []*appsv1.ReplicaSet {
	if r.present == nil {
		return r.old
	}
	return append(slices.Clone(r.old), r.present)
}

func (p *Plane) rolloutOf(d *appsv1.Deployment) *rollout {
	r := &rollout{Deployment: d}
	for _, rs := range list[*appsv1.ReplicaSet](p.state, ReplicaSets, d.Namespace) {
		switch {
		case !metav1.IsControlledBy(rs, d):
		case r.present == nil && sameTemplate(&rs.Spec.Template, &d.Spec.Template):
			r.present = rs
		default:
			r.old = append(r.old, rs)
		}
	}
	slices.SortFunc(r.old, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revision(a), revision(b)) })
	return r
}

// sameTemplate compares templates but for the label that tells ReplicaSets apart.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	delete(a.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(b.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return apiequality.Semantic.DeepEqual(a, b)
}

func revision(o Object) int {
	n, _ := strconv.Atoi(o.GetAnnotations()[revisionAnnotation]) // 0 for none
	return n
}

// syncDeploymentLocked takes a Deployment one step on; what it changes makes it be called again.
func (p *Plane) syncDeploymentLocked(n name) {
	d := get[*appsv1.Deployment](p.state, Deployments, n)
	if d == nil {
		return
	}
	for _, rs := range p.rolloutOf(d).all() {
		p.syncReplicaSetLocked(rs)
	}
	if r := p.rolloutOf(d); r.present == nil && !d.Spec.Paused {
		p.createReplicaSetLocked(r)
	}
	r := p.rolloutOf(d)
	p.noteRevisionLocked(r)
	switch {
	case d.Spec.Paused || len(r.old) == 0 || r.busy() == 1 && r.present != nil && *r.present.Spec.Replicas > 0:
		p.scaleActiveLocked(r)
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		p.recreateLocked(r)
	default:
		p.rollLocked(r)
	}
	p.setDeploymentStatusLocked(n)
	p.forgetRevisionsLocked(n)
}

// busy is how many ReplicaSets have pods, or want some.
func (r *rollout) busy() (n int) {
	for _, rs := range r.all() {
		if *rs.Spec.Replicas > 0 || rs.Status.Replicas > 0 {
			n++
		}
	}
	return n
}

// createReplicaSetLocked makes the ReplicaSet of the present template, without pods at first.
func (p *Plane) createReplicaSetLocked(r *rollout) {
	d := r.Deployment
	hash, n := "", nameOf(d)
	for collisions := int32(0); ; collisions++ {
		hash = templateHash(&d.Spec.Template, collisions)
		n.Name = d.Name + "-" + hash
		if p.state.objects[ReplicaSets][n] == nil {
			break
		}
	}
	rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{
		Namespace: n.Namespace, Name: n.Name, Labels: withEntry(d.Spec.Template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, Deployments.GroupVersionKind)},
	}}
	rs.Spec = appsv1.ReplicaSetSpec{
		Replicas: new(int32(0)), MinReadySeconds: d.Spec.MinReadySeconds, Selector: d.Spec.Selector.DeepCopy(), Template: *d.Spec.Template.DeepCopy(),
	}
	rs.Spec.Selector.MatchLabels = withEntry(rs.Spec.Selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	rs.Spec.Template.Labels = rs.Labels
	created, _ := p.state.put(ReplicaSets, rs)
	p.templates[created.GetUID()] = p.desired[Deployments.Kind+" "+nameOf(d).String()].object.(*manifest.Deployment)
}

// templateHash is the part of a name that Kubernetes makes of a template (ComputeHash in pkg/controller).
func templateHash(t *corev1.PodTemplateSpec, collisions int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(*t))
	if collisions > 0 {
		var b [8]byte
		binary.LittleEndian.PutUint32(b[:], uint32(collisions))
		h.Write(b[:])
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// noteRevisionLocked numbers the present template, also one that a Deployment returns to.
func (p *Plane) noteRevisionLocked(r *rollout) {
	if r.present == nil {
		return
	}
	last := 0
	for _, rs := range r.old {
		last = max(last, revision(rs))
	}
	if revision(r.present) <= last {
		rs := copyOf(r.present)
		rs.Annotations = withEntry(rs.Annotations, revisionAnnotation, strconv.Itoa(last+1))
		o, _ := p.state.put(ReplicaSets, rs)
		r.present = o.(*appsv1.ReplicaSet)
	}
	if number := r.present.Annotations[revisionAnnotation]; r.Annotations[revisionAnnotation] != number {
		d := copyOf(r.Deployment)
		d.Annotations = withEntry(d.Annotations, revisionAnnotation, number)
		o, _ := p.state.put(Deployments, d)
		r.Deployment = o.(*appsv1.Deployment)
	}
}

// scaleLocked sets how many pods a ReplicaSet wants, and reports whether those were others.
func (p *Plane) scaleLocked(rs *appsv1.ReplicaSet, replicas int32) bool {
	if *rs.Spec.Replicas == replicas {
		return false
	}
	o := copyOf(rs)
	o.Spec.Replicas = &replicas
	p.state.put(ReplicaSets, o)
	return true
}

// scaleActiveLocked makes the only ReplicaSet with pods as large as the Deployment; of one that is paused in the middle of a roll-out
// it leaves the sizes as they are.
func (p *Plane) scaleActiveLocked(r *rollout) {
	target := r.present
	for _, rs := range r.all() {
		if *rs.Spec.Replicas > 0 && r.busy() == 1 {
			target = rs
		}
	}
	if target != nil && r.busy() <= 1 {
		p.scaleLocked(target, *r.Spec.Replicas)
	}
}

// removeDeploymentLocked removes a Deployment with its ReplicaSets, and asks its pods to go.
func (p *Plane) removeDeploymentLocked(n name) {
	d := get[*appsv1.Deployment](p.state, Deployments, n)
	if d == nil {
		return
	}
	for _, rs := range p.rolloutOf(d).all() {
		active, _ := p.podsOf(rs)
		p.removeReplicaSetLocked(rs)
		for _, pod := range active {
			p.deletePodLocked(pod, "deleted, as its Deployment is gone", nil)
		}
	}
	if l, ok := p.timers[n]; ok {
		l.timer.Stop()
		delete(p.timers, n)
	}
	p.state.remove(Deployments, n)
}

func (p *Plane) removeReplicaSetLocked(rs *appsv1.ReplicaSet) {
	delete(p.templates, rs.UID)
	p.state.remove(ReplicaSets, nameOf(rs))
}

// forgetRevisionsLocked removes ReplicaSets of old templates beyond revisionHistoryLimit, once they have no pods.
func (p *Plane) forgetRevisionsLocked(n name) {
	r := p.rolloutOf(get[*appsv1.Deployment](p.state, Deployments, n))
	if r.busy() > 1 {
		return
	}
	idle := slices.DeleteFunc(slices.Clone(r.old), func(rs *appsv1.ReplicaSet) bool {
		active, ending := p.podsOf(rs)
		return *rs.Spec.Replicas > 0 || len(active)+len(ending) > 0
	})
	for _, rs := range idle[:max(0, len(idle)-int(*r.Spec.RevisionHistoryLimit))] {
		p.removeReplicaSetLocked(rs)
	}
}
