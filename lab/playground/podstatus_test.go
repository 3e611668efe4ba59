package playground

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// describe names what is in a pod's status: phase, the conditions that are true, the reasons of the others, and the containers.
func describe(s corev1.PodStatus) string {
	var words []string
	words = append(words, string(s.Phase))
	for _, c := range s.Conditions {
		switch {
		case c.Status == corev1.ConditionTrue:
			words = append(words, string(c.Type))
		case c.Reason != "":
			words = append(words, "!"+string(c.Type)+":"+c.Reason)
		}
	}
	for _, c := range append(s.InitContainerStatuses, s.ContainerStatuses...) {
		word := c.Name + ":"
		switch {
		case c.State.Running != nil:
			word += "running"
		case c.State.Waiting != nil:
			word += c.State.Waiting.Reason
		case c.State.Terminated != nil:
			word += fmt.Sprintf("%s(%d)", c.State.Terminated.Reason, c.State.Terminated.ExitCode)
		}
		if c.Ready {
			word += ",ready"
		}
		if t := c.LastTerminationState.Terminated; t != nil {
			word += fmt.Sprintf(",last %s(%d)", t.Reason, t.ExitCode)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// What kubelet would have written of a pod.
func TestAPIStatus(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	zero, five := 0, 5
	running := ContainerStatus{Name: "a", State: ContainerRunning, StartedUp: true, Ready: true, Started: at}
	unready := ContainerStatus{Name: "b", State: ContainerRunning, StartedUp: true, Started: at}
	waiting := ContainerStatus{Name: "b", State: ContainerWaiting, Reason: reasonCreating}
	backOff := ContainerStatus{Name: "b", State: ContainerWaiting, Reason: reasonBackOff, ExitCode: &five, Restarts: 2, LastState: &Termination{ExitCode: 5, Reason: reasonError}}
	ended := func(name string, code *int, reason string) ContainerStatus {
		return ContainerStatus{Name: name, State: ContainerTerminated, Reason: reason, ExitCode: code, Started: at, Finished: at}
	}
	initRuns := ContainerStatus{Name: "i", State: ContainerRunning, Started: at}
	sidecarRuns := ContainerStatus{Name: "i", Sidecar: true, State: ContainerRunning, StartedUp: true, Ready: true, Started: at}
	for _, tt := range []struct {
		name              string
		inits, containers []ContainerStatus
		policy            corev1.RestartPolicy
		want              string
	}{
		{"not started", nil, []ContainerStatus{waiting}, "", "Pending PodReadyToStartContainers Initialized !Ready:ContainersNotReady !ContainersReady:ContainersNotReady b:ContainerCreating"},
		{"runs", nil, []ContainerStatus{running}, "", "Running PodReadyToStartContainers Initialized Ready ContainersReady a:running,ready"},
		{"one is not ready", nil, []ContainerStatus{running, unready}, "", "Running PodReadyToStartContainers Initialized !Ready:ContainersNotReady !ContainersReady:ContainersNotReady a:running,ready b:running"},
		{"crashes", nil, []ContainerStatus{backOff}, "", "Running PodReadyToStartContainers Initialized !Ready:ContainersNotReady !ContainersReady:ContainersNotReady b:CrashLoopBackOff,last Error(5)"},
		{"initializes", []ContainerStatus{initRuns}, []ContainerStatus{waiting}, "",
			"Pending PodReadyToStartContainers !Initialized:ContainersNotInitialized !Ready:ContainersNotReady !ContainersReady:ContainersNotReady i:running b:PodInitializing"},
		{"initialized", []ContainerStatus{ended("i", &zero, reasonCompleted)}, []ContainerStatus{running}, "", "Running PodReadyToStartContainers Initialized Ready ContainersReady i:Completed(0),ready a:running,ready"},
		{"with a sidecar", []ContainerStatus{sidecarRuns}, []ContainerStatus{running}, "", "Running PodReadyToStartContainers Initialized Ready ContainersReady i:running,ready a:running,ready"},
		{"done", nil, []ContainerStatus{ended("a", &zero, reasonCompleted)}, corev1.RestartPolicyNever, "Succeeded Initialized !Ready:PodCompleted !ContainersReady:PodCompleted a:Completed(0)"},
		{"failed", nil, []ContainerStatus{ended("a", &five, reasonError)}, corev1.RestartPolicyNever, "Failed Initialized !Ready:ContainersNotReady !ContainersReady:ContainersNotReady a:Error(5)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &Node{Node: &lab.Node{Config: node.Config{NodeAddresses: []netip.Addr{netip.MustParseAddr("192.168.254.11")}}}}
			p := &Pod{node: n}
			for _, s := range tt.inits {
				r := initial
				if s.Sidecar {
					r = sidecar
				}
				p.inits = append(p.inits, &container{spec: &corev1.Container{Name: s.Name}, role: r})
			}
			for _, s := range tt.containers {
				p.containers = append(p.containers, &container{spec: &corev1.Container{Name: s.Name, Image: "nginx"}})
			}
			s := PodStatus{IPs: []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00:10:244:1::2")}, Started: at, InitContainers: tt.inits, Containers: tt.containers}
			s.markInitializing()
			s.Phase = s.phase(tt.policy)
			got := p.api(&s)
			if describe(got) != tt.want {
				t.Errorf("got  %s\nwant %s", describe(got), tt.want)
			}
			if got.PodIP != "10.244.1.2" || len(got.PodIPs) != 2 || got.HostIP != "192.168.254.11" || !got.StartTime.Time.Equal(at) || got.ContainerStatuses[0].Image != "nginx" {
				t.Errorf("got %+v", got)
			}
		})
	}
}
