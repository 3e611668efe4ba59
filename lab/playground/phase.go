package playground

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// markInitializing gives what waits for init containers their reason.
func (s *PodStatus) markInitializing() {
	if len(s.InitContainers) == 0 || s.initialized() {
		return
	}
	for _, list := range [][]ContainerStatus{s.InitContainers, s.Containers} {
		for i := range list {
			if list[i].Reason == reasonCreating {
				list[i].Reason = reasonInitializing
			}
		}
	}
}

// initialized reports whether every init container has ended well, or goes on as it should; once a container has begun, they have.
func (s *PodStatus) initialized() bool {
	if slices.ContainsFunc(s.Containers, func(c ContainerStatus) bool { return c.State == ContainerRunning || c.ExitCode != nil }) {
		return true
	}
	for _, c := range s.InitContainers {
		if c.Sidecar && !c.StartedUp || !c.Sidecar && !(c.State == ContainerTerminated && *c.ExitCode == 0) {
			return false
		}
	}
	return true
}

// phase is a pod's phase as kubelet makes it of its containers' states (getPhase in pkg/kubelet/kubelet_pods.go).
func (s *PodStatus) phase(policy corev1.RestartPolicy) corev1.PodPhase {
	var waiting, running, stopped, succeeded, again int
	for _, c := range s.Containers {
		switch {
		case c.State == ContainerRunning:
			running++
		case c.ExitCode == nil: // it never ran
			waiting++
		case c.State == ContainerWaiting: // for its next run
			stopped++
			again++
		default:
			stopped++
			if *c.ExitCode == 0 {
				succeeded++
			}
		}
	}
	ran := running+stopped > 0
	for _, c := range s.InitContainers {
		switch {
		case c.Sidecar && c.State == ContainerRunning:
			running++
			if !c.StartedUp && !ran {
				waiting++
			}
		case c.Sidecar && c.ExitCode == nil:
			waiting++
		case c.Sidecar || c.State == ContainerTerminated && *c.ExitCode == 0:
		case c.State == ContainerTerminated:
			return corev1.PodFailed // it will not run again
		default:
			waiting++
		}
	}
	switch {
	case waiting > 0 || len(s.Containers) == 0:
		return corev1.PodPending
	case running > 0 || again > 0 || policy == corev1.RestartPolicyAlways:
		return corev1.PodRunning
	case stopped == succeeded:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// word is what kubectl has in its column STATUS (printPod in pkg/printers/internalversion/printers.go).
func (s *PodStatus) word() string {
	inits := s.InitContainers
	if s.initialized() {
		inits = nil
	}
	for i, c := range inits {
		switch {
		case c.State == ContainerTerminated && *c.ExitCode == 0:
		case c.Sidecar && c.StartedUp:
		case c.State == ContainerTerminated, c.State == ContainerWaiting && c.Reason != reasonInitializing && c.Reason != "":
			return "Init:" + c.Reason
		default:
			return fmt.Sprintf("Init:%d/%d", i, len(s.InitContainers))
		}
	}
	word, running, ready := string(s.Phase), false, true
	for i := len(s.Containers) - 1; i >= 0; i-- {
		c := s.Containers[i]
		if c.Reason != "" {
			word = c.Reason
		} else if c.Ready {
			running = true
		}
		ready = ready && c.Ready
	}
	if word == reasonCompleted && running {
		if word = "NotReady"; ready {
			word = string(corev1.PodRunning)
		}
	}
	return word
}

// ReadyContainers returns how many of the containers and sidecars are ready, and of how many.
func (s *PodStatus) ReadyContainers() (ready, of int) {
	count := func(c ContainerStatus) {
		of++
		if c.Ready {
			ready++
		}
	}
	for _, c := range s.InitContainers {
		if c.Sidecar {
			count(c)
		}
	}
	for _, c := range s.Containers {
		count(c)
	}
	return ready, of
}

// Restarts is how often the pod's containers and sidecars were started again; of a pod that is not initialized, its init containers.
func (s *PodStatus) Restarts() (n int) {
	initialized := s.initialized()
	for _, c := range s.InitContainers {
		if c.Sidecar || !initialized {
			n += c.Restarts
		}
	}
	for _, c := range s.Containers {
		n += c.Restarts
	}
	return n
}

// Reason says in a line why the pod does not run as it should; "" if it does.
func (s *PodStatus) Reason() string {
	if s.Message != "" {
		return s.Message
	}
	for _, list := range [][]ContainerStatus{s.InitContainers, s.Containers} {
		for _, c := range list {
			if c.Message != "" {
				return c.Name + ": " + c.Message
			}
		}
	}
	return ""
}
