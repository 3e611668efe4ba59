package playground

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// report tells the control plane what the pod is like now.
func (p *Pod) report() {
	p.reporting.Lock() // what is told last was seen last
	defer p.reporting.Unlock()
	s := p.Status()
	p.cluster.control.SetStatus(types.UID(p.uid), p.api(&s))
}

// api returns the pod's status as its kubelet would have written it (generateAPIPodStatus in pkg/kubelet/kubelet_pods.go).
func (p *Pod) api(s *PodStatus) corev1.PodStatus {
	o := corev1.PodStatus{Phase: s.Phase, Message: s.Message, QOSClass: corev1.PodQOSBestEffort}
	for _, a := range p.node.Addresses() {
		o.HostIPs = append(o.HostIPs, corev1.HostIP{IP: a.String()})
	}
	o.HostIP = o.HostIPs[0].IP
	for _, a := range s.IPs {
		o.PodIPs = append(o.PodIPs, corev1.PodIP{IP: a.String()})
	}
	if len(o.PodIPs) > 0 {
		o.PodIP = o.PodIPs[0].IP
	}
	if !s.Started.IsZero() {
		at := metav1.NewTime(s.Started)
		o.StartTime = &at
	}
	for i := range s.InitContainers {
		o.InitContainerStatuses = append(o.InitContainerStatuses, s.InitContainers[i].api(p.inits[i]))
	}
	for i := range s.Containers {
		o.ContainerStatuses = append(o.ContainerStatuses, s.Containers[i].api(p.containers[i]))
	}
	ready, of := s.ReadyContainers()
	ended := s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodFailed
	allReady := ready == of && s.initialized() && !ended && !s.Started.IsZero()
	because := func(is bool, reason string) string {
		switch {
		case is:
			return ""
		case s.Phase == corev1.PodSucceeded:
			return "PodCompleted"
		}
		return reason
	}
	for _, c := range []struct {
		name   corev1.PodConditionType
		is     bool
		reason string
	}{
		{corev1.PodReadyToStartContainers, len(s.IPs) > 0 && !ended, ""},
		{corev1.PodInitialized, s.initialized(), because(s.initialized(), "ContainersNotInitialized")},
		{corev1.PodReady, allReady, because(allReady, "ContainersNotReady")},
		{corev1.ContainersReady, allReady, because(allReady, "ContainersNotReady")},
	} {
		status := corev1.ConditionFalse
		if c.is {
			status = corev1.ConditionTrue
		}
		o.Conditions = append(o.Conditions, corev1.PodCondition{Type: c.name, Status: status, Reason: c.reason})
	}
	return o
}

// api returns a container's status in the API's words.
func (s *ContainerStatus) api(c *container) corev1.ContainerStatus {
	started := s.StartedUp
	o := corev1.ContainerStatus{Name: s.Name, Image: c.spec.Image, Ready: s.Ready, RestartCount: int32(s.Restarts), Started: &started}
	switch s.State {
	case ContainerRunning:
		o.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(s.Started)}
	case ContainerTerminated:
		o.State.Terminated = terminated(s.Reason, s.ExitCode, s.Message, s.Started, s.Finished)
		o.Ready = c.role == initial && *s.ExitCode == 0
	default:
		o.State.Waiting = &corev1.ContainerStateWaiting{Reason: s.Reason, Message: s.Message}
	}
	if l := s.LastState; l != nil {
		o.LastTerminationState.Terminated = terminated(l.Reason, &l.ExitCode, l.Message, l.Started, l.Finished)
	}
	return o
}

func terminated(reason string, code *int, message string, started, finished time.Time) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{Reason: reason, Message: message, StartedAt: metav1.NewTime(started), FinishedAt: metav1.NewTime(finished)}
	if code != nil {
		t.ExitCode = int32(*code)
	}
	return t
}
