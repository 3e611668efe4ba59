package control

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
)

// podsOf returns the pods of a ReplicaSet, those that are asked to go apart.
func (p *Plane) podsOf(rs *appsv1.ReplicaSet) (active, ending []*corev1.Pod) {
	for _, pod := range list[*corev1.Pod](p.state, Pods, rs.Namespace) {
		switch {
		case !metav1.IsControlledBy(pod, rs):
		case pod.DeletionTimestamp != nil:
			ending = append(ending, pod)
		default:
			active = append(active, pod)
		}
	}
	return active, ending
}

// syncReplicaSetLocked makes or ends pods until there are as many as wished for, and counts them.
func (p *Plane) syncReplicaSetLocked(rs *appsv1.ReplicaSet) {
	active, _ := p.podsOf(rs)
	missing := int(*rs.Spec.Replicas) - len(active)
	for range missing {
		p.createReplicaLocked(rs)
	}
	if missing < 0 {
		slices.SortFunc(active, firstToGo)
		for _, pod := range active[:-missing] {
			p.deletePodLocked(pod, "deleted, as its Deployment wants fewer of these", nil)
		}
	}
	p.countReplicasLocked(get[*appsv1.ReplicaSet](p.state, ReplicaSets, nameOf(rs)))
}

// createReplicaLocked makes a pod of a ReplicaSet, with a name as Kubernetes gives it.
func (p *Plane) createReplicaLocked(rs *appsv1.ReplicaSet) {
	template := p.templates[rs.UID]
	n := name{Namespace: rs.Namespace}
	for n.Name == "" || p.state.objects[Pods][n] != nil {
		n.Name = rs.Name + "-" + rand.String(5)
	}
	m := template.Instance(n.Name)
	m.Labels = rs.Spec.Template.Labels
	p.createPodLocked(m, metav1.NewControllerRef(rs, ReplicaSets.GroupVersionKind))
}

// firstToGo orders pods by which of them is missed least (ActivePodsWithRanks in pkg/controller).
func firstToGo(a, b *corev1.Pod) int {
	order := func(is bool) int {
		if is {
			return 0
		}
		return 1
	}
	phase := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}
	return cmp.Or(
		cmp.Compare(order(a.Spec.NodeName == ""), order(b.Spec.NodeName == "")),
		cmp.Compare(phase[a.Status.Phase], phase[b.Status.Phase]),
		cmp.Compare(order(!isReady(a)), order(!isReady(b))),
		readySince(b).Compare(readySince(a)), // the youngest first
		cmp.Compare(restarts(b), restarts(a)),
		b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
	)
}

func isReady(pod *corev1.Pod) bool { return !readySince(pod).IsZero() }

// readySince returns since when a pod is ready; zero if it is not.
func readySince(pod *corev1.Pod) time.Time {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

func restarts(pod *corev1.Pod) (n int32) {
	for _, c := range pod.Status.ContainerStatuses {
		n = max(n, c.RestartCount)
	}
	return n
}

// countReplicasLocked sets a ReplicaSet's status.
func (p *Plane) countReplicasLocked(rs *appsv1.ReplicaSet) {
	active, ending := p.podsOf(rs)
	terminating := int32(len(ending))
	status := appsv1.ReplicaSetStatus{
		Replicas: int32(len(active)), FullyLabeledReplicas: int32(len(active)), TerminatingReplicas: &terminating, ObservedGeneration: rs.Generation,
	}
	calm := time.Duration(rs.Spec.MinReadySeconds) * time.Second
	for _, pod := range active {
		since := readySince(pod)
		if since.IsZero() {
			continue
		}
		status.ReadyReplicas++
		if wait := time.Until(since.Add(calm)); calm == 0 || wait <= 0 {
			status.AvailableReplicas++
		} else {
			p.laterLocked(name{Namespace: rs.Namespace, Name: metav1.GetControllerOf(rs).Name}, wait)
		}
	}
	o := copyOf(rs)
	o.Status = status
	p.state.put(ReplicaSets, o)
}

// later is a look at a Deployment that is to come.
type later struct {
	at    time.Time
	timer *time.Timer
}

// laterLocked looks at a Deployment again when some time has passed, unless that comes sooner anyway.
func (p *Plane) laterLocked(n name, wait time.Duration) {
	at := time.Now().Add(wait)
	if l, ok := p.timers[n]; ok {
		if !l.at.After(at) {
			return
		}
		l.timer.Stop()
	}
	p.timers[n] = later{at, time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.timers, n)
		if !p.closed {
			p.dirty.deployments[n] = true
			p.settleLocked()
		}
	})}
}
