package up

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/lab/playground"
)

// troubled are pods in which something goes wrong, or is not left behind willingly.
const troubled = `
apiVersion: v1
kind: Pod
metadata: {name: crashes}
spec:
  containers: [{name: main, command: [sh, -c, 'echo no such table; exit 5']}]
---
apiVersion: v1
kind: Pod
metadata: {name: ill}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    command: [sh, -c, 'trap : TERM; while :; do sleep 0.1; done']
    livenessProbe: {httpGet: {port: 8080}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: forks}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
  - name: side
    restartPolicy: Always
    command: [sh, -c, 'trap : TERM; while :; do sleep 0.1; done']
  containers:
  - name: main
    command: [sh, -c, 'mkdir /middleway-v/closed; touch /middleway-v/closed/x; chmod 0 /middleway-v/closed; (setsid sh -c "trap : TERM HUP; (setsid sleep 4712 &); while :; do sleep 1; done" &); trap : TERM; while :; do sleep 0.1; done']
    volumeMounts: [{name: v, mountPath: /middleway-v}]
---
apiVersion: v1
kind: Pod
metadata: {name: prepares}
spec:
  initContainers: [{name: prepare, command: [sleep, "4713"]}]
  containers: [{name: main, command: [sleep, "1000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: well}
spec:
  hostname: front
  initContainers: [{name: prepare, command: ["true"]}]
  containers:
  - name: main
    command: [middleway, tool, serve, --listen, ":8080"]
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
    lifecycle: {preStop: {sleep: {seconds: 1}}}
`

// Phase and status are those that a kubelet would give, and whichever way the cluster ends, nothing of its pods is left.
func TestPodsInTrouble(t *testing.T) {
	for name, end := range map[string]func(p *playgroundAt){
		"down":   func(*playgroundAt) {},
		"killed": func(p *playgroundAt) { p.kill(p.status().PID) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlayground(t)
			p.up(troubled, "--nodes", "1")
			for name, want := range map[string]string{
				"crashes": "Running CrashLoopBackOff 0/1", "forks": "Running Running 2/2", "prepares": "Pending Init:0/1 0/1", "well": "Running Running 1/1",
			} {
				p.eventually(name+" is "+want, func() bool { return told(p.pod(name)) == want })
			}
			p.eventually("the ill one starts again", func() bool { s := p.pod("ill"); return s.Restarts() > 0 })
			last := p.pod("ill").Containers[0].LastState
			if last == nil || last.ExitCode != 137 || last.Reason != "Error" || !strings.HasPrefix(last.Message, "exit code 137: liveness probe failed: ") {
				t.Errorf("got %+v", last)
			}
			p.eventually("status shows how it crashes", func() bool { // between two runs
				return strings.Contains(p.must("status"), "default/crashes   0/1    CrashLoopBackOff  node-1")
			})
			if out := p.must("exec", "well", "--", "sh", "-c", "uname -n; tail -n 1 /etc/hosts | cut -f 2"); out != "front\nfront\n" {
				t.Errorf("got %q", out)
			}
			before := descendants(p.status().PID)
			for _, number := range []string{"4712", "4713"} {
				if !runs(before, number) {
					t.Errorf("sleep %s does not run: %v", number, before)
				}
			}
			end(p)
			p.must("down")
			p.gone(before)
			if _, err := os.Stat(p.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the state directory: %v", err)
			}
		})
	}
}

// descendants returns a process with all that it and its children have started.
func descendants(ancestor int) map[int]string {
	children := map[int][]int{}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range all {
		pid, _ := strconv.Atoi(filepath.Base(path))
		children[parent(pid)] = append(children[parent(pid)], pid)
	}
	found := map[int]string{}
	for next := []int{ancestor}; len(next) > 0; next = next[1:] {
		found[next[0]], _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", next[0]))
		next = append(next, children[next[0]]...)
	}
	return found
}

// told is a pod's phase and status, and what is ready of it.
func told(s playground.PodStatus) string {
	ready, of := s.ReadyContainers()
	return fmt.Sprintf("%s %s %d/%d", s.Phase, s.Status, ready, of)
}

// runs reports whether one of some processes has an argument.
func runs(processes map[int]string, argument string) bool {
	for pid := range processes {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(line), "\x00"+argument+"\x00") {
			return true
		}
	}
	return false
}
