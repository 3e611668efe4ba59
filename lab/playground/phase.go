package playground

import corev1 "k8s.io/api/core/v1"

// phase is a pod's phase as kubelet makes it of its containers' states (getPhase in pkg/kubelet/kubelet_pods.go).
func phase(policy corev1.RestartPolicy, containers []ContainerStatus) corev1.PodPhase {
	var waiting, running, stopped, succeeded int
	for _, c := range containers {
		switch {
		case c.State == ContainerRunning:
			running++
		case c.ExitCode == nil: // it never ran
			waiting++
		default: // it has ended, or waits for its next run
			stopped++
			if c.State == ContainerTerminated && *c.ExitCode == 0 {
				succeeded++
			}
		}
	}
	switch {
	case waiting > 0 || len(containers) == 0:
		return corev1.PodPending
	case running > 0 || policy == corev1.RestartPolicyAlways:
		return corev1.PodRunning
	case stopped == succeeded:
		return corev1.PodSucceeded
	case policy == corev1.RestartPolicyNever:
		return corev1.PodFailed
	}
	return corev1.PodRunning // it will be started again
}
