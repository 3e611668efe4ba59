// Package node is the first process of a node of a test cluster: it makes the node's file system, starts what runs there
// and starts it again when it ends, collects orphans as every first process must, and takes orders over a unix socket. All of the
// node ends with it.
package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/middleway-net/middleway/test/kube/sandbox"
)

// A Spec says what a node is. It is a file, which the first process reads.
type Spec struct {
	Name   string         `json:"name"`
	Cgroup sandbox.Cgroup `json:"cgroup"`
	// Dir is the folder of all that the node keeps; /var/lib/kubelet and such are in it.
	Dir string `json:"dir"`
	// Logs is the folder of one file for each component, COMPONENT.log.
	Logs string `json:"logs"`
	// Files are written inside the node, by their absolute names.
	Files map[string]string `json:"files"`
	// Path is the node's PATH.
	Path       string      `json:"path"`
	Components []Component `json:"components"`
	// Images are OCI archives that are brought into the container runtime's store once it serves at Runtime, a unix socket.
	Images  []string `json:"images"`
	Runtime string   `json:"runtime"`
}

// A Component is a program that runs until the node ends, or until it is told to stop.
type Component struct {
	Name string   `json:"name"`
	Args []string `json:"args"` // with the program, by its path
	Env  []string `json:"env,omitempty"`
	// After is where another has to serve before this one is started, as "tcp:127.0.0.1:6443" or "unix:/run/name.sock". Empty: it waits
	// for nobody.
	After string `json:"after,omitempty"`
}

// A Process is a component as it runs.
type Process struct {
	Name     string `json:"name"`
	PID      int    `json:"pid"` // inside the node; 0: it does not run
	Restarts int    `json:"restarts"`
	Stopped  bool   `json:"stopped,omitempty"` // on order
}

// A State is how far a node is.
type State struct {
	Processes []Process `json:"processes"`
	Images    bool      `json:"images"` // all are in the store
	Problem   string    `json:"problem,omitempty"`
}

// Log is the file of what a component prints.
func (s Spec) Log(component string) string { return filepath.Join(s.Logs, component+".log") }

// Socket is where the first process takes orders.
func Socket(dir string) string { return filepath.Join(dir, "init.sock") }

// Write writes the spec and returns its file.
func (s Spec) Write() (string, error) {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(s.Dir, "spec.json")
	return file, os.WriteFile(file, text, 0o600)
}

// Read reads what Write wrote.
func Read(file string) (Spec, error) {
	var s Spec
	text, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// Tail is the last n lines of a log, each after a tab, for an error that names the file.
func Tail(file string, n int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "\t" + err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return "\t" + strings.Join(lines[max(0, len(lines)-n):], "\n\t")
}

// waitFor asks done until it says yes or the limit is over.
func waitFor(limit time.Duration, done func() bool) bool {
	for end := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}
