package kubectl

import (
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/lab/control"
)

var podColumns = []column{
	{name: "NAME"}, {name: "READY"}, {name: "STATUS"}, {name: "RESTARTS"}, {name: "AGE"},
	{"IP", true}, {"NODE", true}, {"NOMINATED NODE", true}, {"READINESS GATES", true},
}

func podCells(o control.Object, at clock) []string {
	p := o.(*corev1.Pod)
	s := summarize(p)
	ip := ""
	if len(p.Status.PodIPs) > 0 {
		ip = p.Status.PodIPs[0].IP
	}
	return []string{
		p.Name, fmt.Sprintf("%d/%d", s.ready, s.of), s.word, s.restarts.text(at), at.age(p.CreationTimestamp),
		orNone(ip), orNone(p.Spec.NodeName), orNone(p.Status.NominatedNodeName), readinessGates(p),
	}
}

func readinessGates(p *corev1.Pod) string {
	if len(p.Spec.ReadinessGates) == 0 {
		return "<none>"
	}
	met := 0
	for _, g := range p.Spec.ReadinessGates {
		if conditionTrue(p, g.ConditionType) {
			met++
		}
	}
	return fmt.Sprintf("%d/%d", met, len(p.Spec.ReadinessGates))
}

func conditionTrue(p *corev1.Pod, t corev1.PodConditionType) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == t && c.Status == corev1.ConditionTrue })
}

// restarts are how often containers were started again, and when the last one of them had ended.
type restarts struct {
	n    int
	last metav1.Time
}

func (r *restarts) add(s corev1.ContainerStatus) {
	r.n += int(s.RestartCount)
	if t := s.LastTerminationState.Terminated; t != nil && r.last.Before(&t.FinishedAt) {
		r.last = t.FinishedAt
	}
}

func (r *restarts) text(at clock) string {
	if r.n == 0 || r.last.IsZero() {
		return strconv.Itoa(r.n)
	}
	return fmt.Sprintf("%d (%s ago)", r.n, at.age(r.last))
}

// podSummary is what a pod's containers come to (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/).
type podSummary struct {
	ready, of int
	word      string // the column STATUS
	restarts  restarts
}

func summarize(p *corev1.Pod) podSummary {
	s := podSummary{of: len(p.Spec.Containers), word: string(p.Status.Phase)}
	if p.Status.Reason != "" {
		s.word = p.Status.Reason
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			s.word = c.Reason
		}
	}
	sidecars := map[string]bool{}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars[c.Name] = true
			s.of++
		}
	}
	if initializing := s.initialize(p, sidecars); !initializing || conditionTrue(p, corev1.PodInitialized) {
		s.run(p, sidecars)
	}
	ended := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	switch {
	case p.DeletionTimestamp == nil:
	case p.Status.Reason == "NodeLost":
		s.word = "Unknown"
	case !ended:
		s.word = "Terminating"
	}
	return s
}

// initialize looks at the init containers in their order, and reports whether one of them is still waited for.
func (s *podSummary) initialize(p *corev1.Pod, sidecars map[string]bool) bool {
	for i, c := range p.Status.InitContainerStatuses {
		s.restarts.add(c)
		ended, waiting := c.State.Terminated, c.State.Waiting
		switch {
		case ended != nil && ended.ExitCode == 0:
			continue
		case sidecars[c.Name] && c.Started != nil && *c.Started:
			if c.Ready {
				s.ready++
			}
			continue
		case ended != nil:
			s.word = "Init:" + endWord(ended)
		case waiting != nil && waiting.Reason != "" && waiting.Reason != "PodInitializing":
			s.word = "Init:" + waiting.Reason
		default:
			s.word = fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
		return true
	}
	return false
}

// run looks at the containers of a pod that is initialized. The first one that has something to say gives the word.
func (s *podSummary) run(p *corev1.Pod, sidecars map[string]bool) {
	s.restarts = restarts{}
	for _, c := range p.Status.InitContainerStatuses {
		if sidecars[c.Name] {
			s.restarts.add(c)
		}
	}
	running, failure := false, ""
	for _, c := range slices.Backward(p.Status.ContainerStatuses) {
		s.restarts.add(c)
		ended, waiting := c.State.Terminated, c.State.Waiting
		switch {
		case waiting != nil && waiting.Reason != "":
			s.word = waiting.Reason
		case ended != nil:
			s.word = endWord(ended)
			if ended.ExitCode != 0 {
				failure = s.word
			}
		case c.Ready && c.State.Running != nil:
			running = true
			s.ready++
		}
	}
	switch {
	case s.word != "Completed":
	case running && conditionTrue(p, corev1.PodReady):
		s.word = "Running"
	case failure != "":
		s.word = failure
	case running:
		s.word = "NotReady"
	}
}

// endWord says how a container has ended.
func endWord(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}
