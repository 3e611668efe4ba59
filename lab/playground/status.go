package playground

import (
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// State is a cluster's.
type State string

// What a cluster does.
const (
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
)

// ContainerState is a container's, in Kubernetes' words.
type ContainerState string

// What a container does.
const (
	ContainerWaiting    ContainerState = "waiting" // for its first start, or the next one
	ContainerRunning    ContainerState = "running"
	ContainerTerminated ContainerState = "terminated" // for good
)

// Status is what `middleway status -o json` prints.
type Status struct {
	State    State        `json:"state"`
	Dir      string       `json:"dir"` // the state directory
	PID      int          `json:"pid"` // of the process to which SIGTERM means `middleway down`; 0 if there is none
	Started  time.Time    `json:"started"`
	Underlay string       `json:"underlay"` // what joins the nodes, in words
	Nodes    []NodeStatus `json:"nodes"`
	Pods     []PodStatus  `json:"pods"`

	Manifests []ManifestStatus `json:"manifests,omitempty"` // those that have a mistake
}

// NodeStatus is a node's.
type NodeStatus struct {
	Name      string         `json:"name"`
	Addresses []netip.Addr   `json:"addresses"`
	Underlay  netip.Addr     `json:"underlay"` // its address for the tunnel
	PodCIDRs  []netip.Prefix `json:"podCIDRs"`
	MTU       int            `json:"mtu"` // of the pods, bytes; 0 before the daemon has answered once
	Ready     bool           `json:"ready"`
	PID       int            `json:"pid"`              // of the daemon
	Restarts  int            `json:"restarts"`         // of the daemon
	Started   time.Time      `json:"started,omitzero"` // the daemon
	RunDir    string         `json:"runDir"`           // for `middleway status --run-dir`
	Message   string         `json:"message,omitempty"`
}

// PodStatus is a pod's.
type PodStatus struct {
	Namespace   string          `json:"namespace"`
	Name        string          `json:"name"`
	UID         string          `json:"uid"`
	Node        string          `json:"node"`
	HostNetwork bool            `json:"hostNetwork,omitempty"`
	IPs         []netip.Addr    `json:"ips"`
	Phase       corev1.PodPhase `json:"phase"`
	Status      string          `json:"status"`           // in a word, as kubectl has it: Running, Init:0/2, CrashLoopBackOff, …
	Started     time.Time       `json:"started,omitzero"` // when its containers were started first
	Message     string          `json:"message,omitempty"`
	// InitContainers are in the order in which they run.
	InitContainers []ContainerStatus `json:"initContainers,omitempty"`
	Containers     []ContainerStatus `json:"containers"`
}

// ContainerStatus is a container's.
type ContainerStatus struct {
	Name      string         `json:"name"`
	Sidecar   bool           `json:"sidecar,omitempty"` // an init container that goes on beside the others
	State     ContainerState `json:"state"`
	Reason    string         `json:"reason,omitempty"`    // why it does not run, in Kubernetes' word: CrashLoopBackOff, Completed, Error, …
	StartedUp bool           `json:"startedUp,omitempty"` // its postStart hook and its startupProbe are done
	Ready     bool           `json:"ready"`
	ExitCode  *int           `json:"exitCode,omitempty"` // of the last run that has ended
	Restarts  int            `json:"restarts"`
	PID       int            `json:"pid,omitempty"`
	Started   time.Time      `json:"started,omitzero"`    // the present run, or the one that was the last
	Finished  time.Time      `json:"finished,omitzero"`   // of a container that is terminated
	LastState *Termination   `json:"lastState,omitempty"` // how the run before the present one ended, or the last one of a container that waits
	Output    string         `json:"output"`              // the file of what it printed last
	Message   string         `json:"message,omitempty"`   // why it does not run, or is not ready
}

// Termination tells how a run of a container ended.
type Termination struct {
	ExitCode int       `json:"exitCode"`
	Reason   string    `json:"reason"` // Completed, Error, or StartError with exit code 128
	Message  string    `json:"message"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
}

// statusWait bounds the answer of a daemon.
const statusWait = 2 * time.Second

// Status asks all daemons, at the same time, and tells what the cluster is like now.
func (c *Cluster) Status() Status {
	c.mu.Lock()
	s := Status{
		State: c.state, Dir: c.dir.path, PID: c.config.Owner, Started: c.started,
		Nodes: make([]NodeStatus, len(c.nodes)), Pods: []PodStatus{}, Manifests: c.manifestsLocked(),
	}
	nodes, pods := c.nodes, c.pods
	if c.lab != nil {
		s.Underlay = describeUnderlay(c.lab)
	}
	c.mu.Unlock()
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { s.Nodes[i] = n.Status() })
	}
	wg.Wait()
	for _, p := range pods {
		s.Pods = append(s.Pods, p.Status())
	}
	return s
}
