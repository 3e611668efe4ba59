package playground

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// What kubelet calls the phase, kubectl the status, and what kubectl has in its columns READY and RESTARTS.
func TestPhase(t *testing.T) {
	ended := func(state ContainerState, code int, reason string) ContainerStatus {
		return ContainerStatus{State: state, ExitCode: &code, Reason: reason, Restarts: 1}
	}
	side := func(c ContainerStatus) ContainerStatus { c.Sidecar = true; return c }
	var (
		fresh   = ContainerStatus{State: ContainerWaiting, Reason: reasonCreating}
		runs    = ContainerStatus{State: ContainerRunning, StartedUp: true, Ready: true}
		unready = ContainerStatus{State: ContainerRunning, StartedUp: true}
		rising  = ContainerStatus{State: ContainerRunning}
		done    = ended(ContainerTerminated, 0, reasonCompleted)
		failed  = ended(ContainerTerminated, 1, reasonError)
		broken  = ended(ContainerTerminated, 128, reasonStartError)
		retries = ended(ContainerWaiting, 1, reasonBackOff)
	)
	type list = []ContainerStatus
	const always, onFailure, never = corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever
	for _, tt := range []struct {
		name   string
		policy corev1.RestartPolicy
		inits  list
		rest   list
		phase  corev1.PodPhase
		want   string // status, ready, restarts
	}{
		{"before the first start", always, nil, list{fresh}, "Pending", "ContainerCreating 0/1 0"},
		{"one of two started", never, nil, list{runs, fresh}, "Pending", "ContainerCreating 1/2 0"},
		{"runs", always, nil, list{runs, runs}, "Running", "Running 2/2 0"},
		{"is not ready", always, nil, list{runs, unready}, "Running", "Running 1/2 0"},
		{"one has failed, one runs", never, nil, list{failed, runs}, "Running", "Error 1/2 1"},
		{"one is done, one runs", never, nil, list{done, runs}, "Running", "NotReady 1/2 1"},
		{"waits for its next start", always, nil, list{retries}, "Running", "CrashLoopBackOff 0/1 1"},
		{"waits for its next start, on failure", onFailure, nil, list{retries, done}, "Running", "CrashLoopBackOff 0/2 2"},
		{"all succeeded", onFailure, nil, list{done, done}, "Succeeded", "Completed 0/2 2"},
		{"all succeeded, never", never, nil, list{done}, "Succeeded", "Completed 0/1 1"},
		{"one failed", never, nil, list{done, failed}, "Failed", "Completed 0/2 2"},
		{"could not start", never, nil, list{broken}, "Failed", "StartError 0/1 1"},
		{"always goes on", always, nil, list{done}, "Running", "Completed 0/1 1"},
		{"first init container", always, list{rising, fresh}, list{fresh}, "Pending", "Init:0/2 0/1 0"},
		{"init container that runs", always, list{runs}, list{fresh}, "Pending", "Init:0/1 0/1 0"},
		{"second init container", always, list{done, rising}, list{fresh}, "Pending", "Init:1/2 0/1 1"},
		{"between init containers", always, list{done, fresh}, list{fresh}, "Pending", "Init:1/2 0/1 1"},
		{"init container fails", always, list{retries, fresh}, list{fresh}, "Pending", "Init:CrashLoopBackOff 0/1 1"},
		{"init container has failed", never, list{failed, fresh}, list{fresh}, "Failed", "Init:Error 0/1 1"},
		{"initialized", always, list{done, done}, list{fresh}, "Pending", "ContainerCreating 0/1 0"},
		{"runs after init containers", always, list{done, done}, list{runs}, "Running", "Running 1/1 0"},
		{"sidecar comes up", always, list{side(rising)}, list{fresh}, "Pending", "Init:0/1 0/2 0"},
		{"sidecar is up", always, list{side(runs), rising}, list{fresh}, "Pending", "Init:1/2 1/2 0"},
		{"with a sidecar", always, list{side(runs)}, list{runs}, "Running", "Running 2/2 0"},
		{"sidecar starts again", always, list{side(retries)}, list{runs}, "Running", "Running 1/2 1"},
		{"sidecar comes up again", always, list{side(rising)}, list{runs}, "Running", "Running 1/2 0"},
		{"sidecar ends last", never, list{side(runs)}, list{done}, "Running", "Completed 1/2 1"},
		{"all done, sidecar was ended", never, list{side(failed)}, list{done}, "Succeeded", "Completed 0/2 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := PodStatus{InitContainers: tt.inits, Containers: tt.rest}
			s.markInitializing()
			s.Phase = s.phase(tt.policy)
			ready, of := s.ReadyContainers()
			if got := fmt.Sprintf("%s %d/%d %d", s.word(), ready, of, s.Restarts()); s.Phase != tt.phase || got != tt.want {
				t.Errorf("got %s, %s, want %s, %s", s.Phase, got, tt.phase, tt.want)
			}
		})
	}
}
