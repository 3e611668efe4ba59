// Package doctor finds out what this machine has of what middleway uses, and which ways of running work on it. It stands beside
// a packet's way and tries what would be done on it: by the functions of stack/tun, tunnel/udp, cni/link and lab themselves,
// never by the kernel's version or a list of modules.
//
//	Examine                    the caller's process
//	 ├─ here                   a process in the caller's namespaces: sockets, files, limits
//	 ├─ inside                 a process in fresh namespaces, those of lab.Enter and of pods: devices, mounts
//	 ├─ holder                 a process in the namespaces of lab.Enter, which has a file open
//	 │   └─ opener             opens it by /proc/PID/fd/N, as a cluster's daemons and plugins do
//	 └─ ordinary               only for root: starts a process as an ordinary user
//	     └─ user               that process
//	         └─ inside         the same in that user's own user namespace
//
// All of them are this program in a role (lab.RoleCommand), and the kernel kills them with their parent, so that nothing is
// left behind, however the examination ends. What is tried may make the kernel load a module of its own, as using it would.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Report is what Examine has found out.
type Report struct {
	Kernel   string    `json:"kernel"`   // for example "Linux 6.12.57"
	Machine  string    `json:"machine"`  // for example "x86_64"
	UID      int       `json:"uid"`      // of the user for whom it was found out
	Capable  bool      `json:"capable"`  // the user has CAP_NET_ADMIN and CAP_SYS_ADMIN, as root has
	Confined []string  `json:"confined"` // what may refuse this process something: a seccomp filter, an AppArmor profile
	Findings []Finding `json:"findings"`
	Ways     []Way     `json:"ways"`
	TookMs   float64   `json:"tookMs"`

	entered bool // the user is root of a user namespace alone, as behind lab.Enter
}

// rootless reports whether the user is an ordinary one.
func (r *Report) rootless() bool { return !r.Capable || r.entered }

// Finding is one thing that was tried.
type Finding struct {
	// Name is the same on all machines and in all versions, for example "tun-open".
	Name string `json:"name"`
	// Group is what it belongs to, for example "TUN devices".
	Group string `json:"group"`
	// Title says in a few words what was tried.
	Title string `json:"title"`
	State State  `json:"state"`
	// Detail is what was seen, or why it is missing or unknown; it may be empty where it works.
	Detail string `json:"detail,omitempty"`
	// Without says what middleway does without it, unless it works.
	Without string `json:"without,omitempty"`
	// Remedy is one command or setting that changes it, if it is missing.
	Remedy string `json:"remedy,omitempty"`
}

// State tells whether something is there.
type State int

// The states. What is unknown could not be tried, or did not answer in time.
const (
	Unknown State = iota
	Works
	Missing
)

var stateNames = []string{Unknown: "unknown", Works: "works", Missing: "missing"}

// String returns the state's name in reports: unknown, works or missing.
func (s State) String() string { return stateNames[s] }

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the state's name.
func (s *State) UnmarshalText(b []byte) error {
	i := slices.Index(stateNames, string(b))
	if i < 0 {
		return fmt.Errorf("%q is no state: want unknown, works or missing", b)
	}
	*s = State(i)
	return nil
}

// Way is a way of running middleway, or of joining nodes.
type Way struct {
	// Name is the same on all machines and in all versions, for example "playground-rootless".
	Name string `json:"name"`
	// Title says in a few words what it is.
	Title string `json:"title"`
	Works bool   `json:"works"`
	// Runs tells that it is a way of running, and not a part of one.
	Runs bool `json:"runs"`
	// Why says why it does not work, or what to know if it does; it may be empty then.
	Why string `json:"why,omitempty"`
	// Lacks are the names of the findings for which it does not work.
	Lacks []string `json:"lacks"`
}

// patience bounds an examination. Each trial in it has less (trialPatience), so that this much passes only where a process of
// the examination does not even start.
const patience = 12 * time.Second

// Examine tries everything. progress is called for each finding as it comes, in no order, from one goroutine; it may be nil. It
// returns within some seconds, however the machine behaves, and at once when ctx ends: what has not answered by then is
// Unknown. The program must have called lab.RunRole.
func Examine(ctx context.Context, progress func(Finding)) *Report {
	start := time.Now()
	r := newReport()
	x := &examination{report: r, progress: progress, outcomes: map[string]outcome{}}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	x.run(ctx)
	r.Findings = x.findings()
	r.Ways = ways(r)
	r.TookMs = float64(time.Since(start).Microseconds()) / 1000
	return r
}

// Works reports whether at least one way of running works.
func (r *Report) Works() bool {
	return slices.ContainsFunc(r.Ways, func(w Way) bool { return w.Runs && w.Works })
}

// Finding returns the finding with a name; false if nothing of that name was tried.
func (r *Report) Finding(name string) (Finding, bool) {
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Name == name })
	if i < 0 {
		return Finding{}, false
	}
	return r.Findings[i], true
}
