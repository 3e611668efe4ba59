package control

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/middleway-net/middleway/lab/manifest"
)

// Instance is a pod that is to run, or to end.
type Instance struct {
	UID types.UID
	Pod *manifest.Pod
	// Deleting: it was asked to go; why says who did.
	Deleting bool
	Why      string
	// Grace is what it has to end, in seconds, in place of its own; nil for its own.
	Grace *int64
}

// instance is one with its place among the others.
type instance struct {
	Instance
	name   name
	number int
}

// Instances returns the pods that are to run or to end, in the order of their manifests.
func (p *Plane) Instances() []Instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	sorted := slices.SortedFunc(maps.Values(p.instances), func(a, b *instance) int {
		return cmp.Or(cmp.Compare(p.orderOf(a), p.orderOf(b)), cmp.Compare(a.number, b.number))
	})
	var all []Instance
	for _, i := range sorted {
		all = append(all, i.Instance)
	}
	return all
}

// orderOf returns where the manifest of an instance stands; behind all others, if it is gone.
func (p *Plane) orderOf(i *instance) int {
	id := manifest.ID(i.Pod)
	if pod := get[*corev1.Pod](p.state, Pods, i.name); pod != nil {
		if rs := p.replicaSetOf(pod); rs != nil && metav1.GetControllerOf(rs) != nil {
			id = Deployments.Kind + " " + rs.Namespace + "/" + metav1.GetControllerOf(rs).Name
		}
	}
	if w := p.desired[id]; w != nil {
		return w.order
	}
	return len(p.desired) + 1
}

// createPodLocked makes a pod of a manifest, which nothing else uses from then on.
func (p *Plane) createPodLocked(m *manifest.Pod, owner *metav1.OwnerReference) {
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, Labels: m.Labels, Annotations: m.Annotations}}
	if owner != nil {
		o.OwnerReferences = []metav1.OwnerReference{*owner}
		o.GenerateName = owner.Name + "-"
	}
	o.Spec = *m.Spec.DeepCopy()
	setServerDefaults(&o.Spec)
	o.Status = corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort}
	created, _ := p.state.put(Pods, o)
	p.order++
	p.instances[created.GetUID()] = &instance{Instance: Instance{UID: created.GetUID(), Pod: m}, name: nameOf(created), number: p.order}
	p.config.Changed()
}

// DefaultGrace is what a pod has to end where it says nothing else, in seconds: a person waits for it.
const DefaultGrace = 10

// setServerDefaults fills in what an API server does, as far as somebody looks at it.
func setServerDefaults(s *corev1.PodSpec) {
	if s.TerminationGracePeriodSeconds == nil {
		s.TerminationGracePeriodSeconds = new(int64(DefaultGrace))
	}
	if s.EnableServiceLinks == nil {
		s.EnableServiceLinks = new(true)
	}
	s.SchedulerName = cmp.Or(s.SchedulerName, corev1.DefaultSchedulerName)
	s.ServiceAccountName = cmp.Or(s.ServiceAccountName, "default")
}

// deletePodLocked asks a pod to go. It stays in the state until Gone.
func (p *Plane) deletePodLocked(pod *corev1.Pod, why string, grace *int64) {
	i := p.instances[pod.UID]
	if grace != nil && i != nil && (i.Grace == nil || *grace < *i.Grace) {
		i.Grace = grace
		p.config.Changed()
	}
	if pod.DeletionTimestamp != nil {
		return
	}
	if i != nil {
		i.Deleting, i.Why = true, why
		p.config.Changed()
	}
	o := copyOf(pod)
	seconds := *pod.Spec.TerminationGracePeriodSeconds
	if grace != nil {
		seconds = *grace
	}
	at := metav1.NewTime(time.Now().Add(time.Duration(seconds) * time.Second))
	o.DeletionTimestamp, o.DeletionGracePeriodSeconds = &at, &seconds
	p.state.put(Pods, o)
}

// syncPodLocked makes a pod that stands in a manifest by itself what that says: a changed spec wants another pod, labels and annotations
// do not.
func (p *Plane) syncPodLocked(n name) {
	w := p.desired[Pods.Kind+" "+n.String()]
	pod := get[*corev1.Pod](p.state, Pods, n)
	switch {
	case pod != nil && metav1.GetControllerOf(pod) != nil, pod != nil && pod.DeletionTimestamp != nil:
	case pod == nil && w != nil:
		p.createPodLocked(w.object.(*manifest.Pod), nil)
	case pod != nil && w == nil:
		p.deletePodLocked(pod, "deleted, as its manifest is gone", nil)
	case pod != nil:
		p.changePodLocked(pod, w.object.(*manifest.Pod))
	}
}

func (p *Plane) changePodLocked(pod *corev1.Pod, m *manifest.Pod) {
	i := p.instances[pod.UID]
	if i == nil || i.Pod == m {
		return
	}
	if at := i.Pod.Differs(m); at != "" {
		p.deletePodLocked(pod, "replaced, as "+at+" has changed, which is not done in place", nil)
		return
	}
	if i.Pod.Relabel(m) {
		o := copyOf(pod)
		o.Labels, o.Annotations = m.Labels, m.Annotations
		p.state.put(Pods, o)
		p.config.Event(nameOf(pod).String(), "labels or annotations changed, in place")
	}
}

// Bind tells on which node a pod is.
func (p *Plane) Bind(uid types.UID, node string) {
	p.update(uid, func(o *corev1.Pod) {
		o.Spec.NodeName = node
		setCondition(&o.Status.Conditions, corev1.PodScheduled, true, "")
	})
}

// SetStatus tells what a pod is like. Of its conditions, the time of their last change is kept.
func (p *Plane) SetStatus(uid types.UID, s corev1.PodStatus) {
	p.update(uid, func(o *corev1.Pod) {
		conditions := o.Status.Conditions
		o.Status = s
		o.Status.Conditions = conditions
		for _, c := range s.Conditions {
			setCondition(&o.Status.Conditions, c.Type, c.Status == corev1.ConditionTrue, c.Reason)
		}
	})
}

// setCondition sets one of a pod's conditions.
func setCondition(all *[]corev1.PodCondition, t corev1.PodConditionType, is bool, reason string) {
	c := corev1.PodCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, LastTransitionTime: metav1.Now()}
	if is {
		c.Status = corev1.ConditionTrue
	}
	i := slices.IndexFunc(*all, func(had corev1.PodCondition) bool { return had.Type == t })
	switch {
	case i < 0:
		*all = append(*all, c)
	case (*all)[i].Status == c.Status:
		(*all)[i].Reason = reason
	default:
		(*all)[i] = c
	}
}

// update changes a pod, if it is there still.
func (p *Plane) update(uid types.UID, change func(*corev1.Pod)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.instances[uid]
	if i == nil {
		return
	}
	o := copyOf(get[*corev1.Pod](p.state, Pods, i.name))
	change(o)
	p.state.put(Pods, o)
	p.settleLocked()
}

// Gone tells that nothing is left of a pod that was asked to go.
func (p *Plane) Gone(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.instances[uid]
	if i == nil {
		return
	}
	delete(p.instances, uid)
	p.state.remove(Pods, i.name)
	p.settleLocked()
}

// Endpoint reports whether a pod is one of a Service's endpoints, whose clients are to hear of its end before it comes.
func (p *Plane) Endpoint(uid types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.instances[uid]
	if i == nil {
		return false
	}
	pod := get[*corev1.Pod](p.state, Pods, i.name)
	for _, s := range list[*corev1.Service](p.state, Services, i.name.Namespace) {
		if selects(s, pod) {
			return true
		}
	}
	return false
}
