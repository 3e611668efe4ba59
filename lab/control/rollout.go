package control

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// bounds returns how many pods there may be beside the wished ones, and how many of these may be missing
// (ResolveFenceposts in pkg/controller/deployment/util): of both 0, one may be missing.
func bounds(d *appsv1.Deployment) (surge, unavailable int32) {
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return 0, 0
	}
	n := int(*d.Spec.Replicas)
	s, _ := intstr.GetScaledValueFromIntOrPercent(d.Spec.Strategy.RollingUpdate.MaxSurge, n, true) // checked
	u, _ := intstr.GetScaledValueFromIntOrPercent(d.Spec.Strategy.RollingUpdate.MaxUnavailable, n, false)
	if s == 0 && u == 0 {
		u = 1
	}
	return int32(s), int32(min(u, n))
}

func wishedOf(sets []*appsv1.ReplicaSet) (n int32) {
	for _, rs := range sets {
		n += *rs.Spec.Replicas
	}
	return n
}

func availableOf(sets []*appsv1.ReplicaSet) (n int32) {
	for _, rs := range sets {
		n += rs.Status.AvailableReplicas
	}
	return n
}

// rollLocked takes a rolling update one step on (pkg/controller/deployment/rolling.go).
func (p *Plane) rollLocked(r *rollout) {
	surge, unavailable := bounds(r.Deployment)
	want := *r.Spec.Replicas
	switch present := *r.present.Spec.Replicas; {
	case present > want:
		p.scaleLocked(r.present, want)
		return
	case present < want:
		room := want + surge - wishedOf(r.all())
		if grown := present + min(room, want-present); room > 0 && p.scaleLocked(r.present, grown) {
			return
		}
	}
	least := want - unavailable
	spare := wishedOf(r.all()) - least - (*r.present.Spec.Replicas - r.present.Status.AvailableReplicas)
	if spare <= 0 {
		return
	}
	// Those first that serve nobody.
	for i, rs := range r.old {
		sick := *rs.Spec.Replicas - rs.Status.AvailableReplicas
		if n := min(spare, sick); n > 0 {
			p.scaleLocked(rs, *rs.Spec.Replicas-n)
			spare -= n
			r.old[i] = get[*appsv1.ReplicaSet](p.state, ReplicaSets, nameOf(rs))
		}
	}
	excess := availableOf(r.all()) - least
	for _, rs := range r.old {
		if n := min(excess, *rs.Spec.Replicas); n > 0 {
			p.scaleLocked(rs, *rs.Spec.Replicas-n)
			excess -= n
		}
	}
}

// recreateLocked ends all pods of earlier templates before it makes new ones (pkg/controller/deployment/recreate.go).
func (p *Plane) recreateLocked(r *rollout) {
	left := 0
	for _, rs := range r.old {
		active, ending := p.podsOf(rs)
		left += len(active) + len(ending)
		p.scaleLocked(rs, 0)
	}
	if left == 0 {
		p.scaleLocked(r.present, *r.Spec.Replicas)
	}
}

// setDeploymentStatusLocked counts a Deployment's pods, and tells how its roll-out goes.
func (p *Plane) setDeploymentStatusLocked(n name) {
	d := get[*appsv1.Deployment](p.state, Deployments, n)
	r := p.rolloutOf(d)
	s := appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Conditions: slices.Clone(d.Status.Conditions), TerminatingReplicas: new(int32)}
	for _, rs := range r.all() {
		s.Replicas += rs.Status.Replicas
		s.ReadyReplicas += rs.Status.ReadyReplicas
		s.AvailableReplicas += rs.Status.AvailableReplicas
		if t := rs.Status.TerminatingReplicas; t != nil {
			*s.TerminatingReplicas += *t
		}
	}
	if r.present != nil {
		s.UpdatedReplicas = r.present.Status.Replicas
	}
	s.UnavailableReplicas = max(0, wishedOf(r.all())-s.AvailableReplicas)
	_, unavailable := bounds(d)
	if s.AvailableReplicas >= *d.Spec.Replicas-unavailable {
		setDeploymentCondition(&s, appsv1.DeploymentAvailable, true, "MinimumReplicasAvailable", "Deployment has minimum availability.")
	} else {
		setDeploymentCondition(&s, appsv1.DeploymentAvailable, false, "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
	}
	p.setProgressLocked(r, &s)
	o := copyOf(d)
	o.Status = s
	p.state.put(Deployments, o)
}

// progressReasons are those of the condition Progressing (pkg/controller/deployment/util).
const (
	reasonComplete = "NewReplicaSetAvailable"
	reasonUpdated  = "ReplicaSetUpdated"
	reasonTimedOut = "ProgressDeadlineExceeded"
	reasonPaused   = "DeploymentPaused"
)

// setProgressLocked sets the condition Progressing: what has not moved for progressDeadlineSeconds has failed.
func (p *Plane) setProgressLocked(r *rollout, s *appsv1.DeploymentStatus) {
	d := r.Deployment
	before := conditionOf(&d.Status, appsv1.DeploymentProgressing)
	if d.Spec.Paused {
		setDeploymentCondition(s, appsv1.DeploymentProgressing, true, reasonPaused, "Deployment is paused")
		return
	}
	want := *d.Spec.Replicas
	complete := s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want
	moved := s.UpdatedReplicas > d.Status.UpdatedReplicas || s.ReadyReplicas > d.Status.ReadyReplicas || s.AvailableReplicas > d.Status.AvailableReplicas ||
		s.Replicas-s.UpdatedReplicas < d.Status.Replicas-d.Status.UpdatedReplicas
	deadline := time.Duration(*d.Spec.ProgressDeadlineSeconds) * time.Second
	switch {
	case complete:
		setDeploymentCondition(s, appsv1.DeploymentProgressing, true, reasonComplete, fmt.Sprintf("ReplicaSet %q has successfully progressed.", r.present.Name))
	case before != nil && before.Reason == reasonComplete && s.Replicas == s.UpdatedReplicas && d.Status.ObservedGeneration == d.Generation:
		// A pod that fails after the roll-out is no part of it.
	case before == nil || moved || d.Status.ObservedGeneration != d.Generation:
		setDeploymentCondition(s, appsv1.DeploymentProgressing, true, reasonUpdated, fmt.Sprintf("ReplicaSet %q is progressing.", r.present.Name))
		conditionOf(s, appsv1.DeploymentProgressing).LastUpdateTime = metav1.Now()
		p.laterLocked(nameOf(d), deadline)
	case before.Status != corev1.ConditionTrue:
	case time.Since(before.LastUpdateTime.Time) < deadline:
		p.laterLocked(nameOf(d), time.Until(before.LastUpdateTime.Add(deadline)))
	default:
		setDeploymentCondition(s, appsv1.DeploymentProgressing, false, reasonTimedOut, fmt.Sprintf("ReplicaSet %q has timed out progressing.", r.present.Name))
		p.config.Event(nameOf(d).String(), fmt.Sprintf("the roll-out has not moved for %v", deadline))
	}
}

func conditionOf(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	i := slices.IndexFunc(s.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t })
	if i < 0 {
		return nil
	}
	return &s.Conditions[i]
}

// setDeploymentCondition sets a condition. One that is the same but for its message is not newer.
func setDeploymentCondition(s *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType, is bool, reason, message string) {
	now := metav1.Now()
	c := appsv1.DeploymentCondition{Type: t, Status: corev1.ConditionFalse, Reason: reason, Message: message, LastUpdateTime: now, LastTransitionTime: now}
	if is {
		c.Status = corev1.ConditionTrue
	}
	had := conditionOf(s, t)
	if had == nil {
		s.Conditions = append(s.Conditions, c)
		return
	}
	if had.Status == c.Status && had.Reason == c.Reason {
		return
	}
	if had.Status == c.Status {
		c.LastTransitionTime = had.LastTransitionTime
	}
	*had = c
}
