package playground

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// running is a cluster of one node, and what it has said.
type running struct {
	*testing.T
	*Cluster
	log *log
}

// log is a writer that may be read at any time.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// run brings up a cluster of one node with manifests, for this test. Afterwards nothing of it is left.
func run(t *testing.T, manifests ...string) running {
	t.Helper()
	r := running{T: t, log: &log{}}
	dir := filepath.Join(t.TempDir(), "up")
	if len(dir) > maxPath {
		t.Fatalf("%s is too long", dir)
	}
	mounts := machineFile("/proc/self/mountinfo")
	c, err := New(t.Context(), Config{Nodes: 1, Pods: parse(t, strings.Join(manifests, "\n---\n")), Dir: dir, Out: r.log})
	if err != nil {
		t.Fatal(err)
	}
	r.Cluster = c
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Error("the state directory is left")
		}
		if after := machineFile("/proc/self/mountinfo"); after != mounts {
			t.Errorf("mounts: got\n%s\nwant\n%s", after, mounts)
		}
	})
	return r
}

// spec makes a pod of the lines of its spec.
func spec(name string, lines ...string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  %s\n", name, strings.ReplaceAll(strings.Join(lines, "\n"), "\n", "\n  "))
}

func (r running) pod(name string) PodStatus { return r.Pod("default", name).Status() }

// eventually waits until a pod is as it should be.
func (r running) eventually(what, name string, ok func(PodStatus) bool) PodStatus {
	r.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := r.pod(name)
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			r.Fatalf("not within 30 s: %s; got %+v\n%s", what, s, r.log)
		}
	}
}

// sh runs a script in a pod, as a probe would, and returns what it prints.
func (r running) sh(name, script string) string {
	r.Helper()
	c, err := r.Pod("default", name).container("")
	if err != nil {
		r.Fatal(err)
	}
	own, err := c.running()
	if err != nil {
		r.Fatal(err)
	}
	p := c.beside(own, []string{"sh", "-c", script})
	if err := p.Start(); err != nil {
		r.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		r.Errorf("%s: %v\n%s", script, err, p.Tail())
	}
	return p.Tail()
}

const sleeps = `containers: [{name: main, command: [sleep, "1000"]}]`

// A pod has its own names, and files that say what kubelet's would; so does what is executed in it.
func TestPodFiles(t *testing.T) {
	machine := map[string]string{}
	for _, path := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} {
		machine[path] = machineFile(path)
	}
	r := run(t, spec("web", "hostname: front", "hostAliases: [{ip: 192.0.2.7, hostnames: [db]}]", sleeps),
		spec("host", "hostNetwork: true", sleeps))
	ip := r.pod("web").IPs[0]
	for _, tt := range []struct{ pod, script, want string }{
		{"web", "uname -n; cat /etc/hostname; echo $HOSTNAME", "front\nfront\nfront\n"},
		{"host", "uname -n; cat /etc/hostname; echo $HOSTNAME", "node-1\nnode-1\nnode-1\n"},
		{"web", "cat /etc/resolv.conf | grep nameserver", "nameserver 10.96.0.10\n"},
		{"web", "grep -c '^search default.svc.cluster.local svc.cluster.local cluster.local' /etc/resolv.conf", "1\n"},
		{"web", "grep -E 'front|db' /etc/hosts", fmt.Sprintf("%v\tfront\n", ip) + otherAddrs(r.pod("web").IPs[1:], "front") + "192.0.2.7\tdb\n"},
		{"host", "tail -n +2 /etc/hosts", machine["/etc/hosts"]},
	} {
		if got := r.sh(tt.pod, tt.script); got != tt.want {
			t.Errorf("%s, %s: got %q, want %q", tt.pod, tt.script, got, tt.want)
		}
	}
	r.sh("web", "echo own >> /etc/hosts; echo own > /etc/resolv.conf")
	if got := r.sh("host", "cat /etc/hosts"); strings.Contains(got, "own\n") {
		t.Errorf("another pod sees the change: %q", got)
	}
	for path, want := range machine {
		if got := machineFile(path); got != want {
			t.Errorf("the machine's %s: got %q, want %q", path, got, want)
		}
	}
}

func otherAddrs(addrs []netip.Addr, name string) (lines string) {
	for _, a := range addrs {
		lines += a.String() + "\t" + name + "\n"
	}
	return lines
}

// Init containers prepare, in volumes, what the containers find, one after another; volumes are the pod's.
func TestInitContainers(t *testing.T) {
	r := run(t, spec("web", `volumes: [{name: data, emptyDir: {}}]
initContainers:
- {name: one, command: [sh, -c, 'echo one > /middleway-data/log; printf "#!/bin/sh\necho prepared; exec sleep 1000\n" > /middleway-data/run; chmod +x /middleway-data/run'], volumeMounts: [{name: data, mountPath: /middleway-data}]}
- {name: two, command: [sh, -c, 'echo two >> /middleway-other/deep/log'], volumeMounts: [{name: data, mountPath: /middleway-other/deep}]}
containers:
- name: main
  command: [/srv/middleway-data/run]
  workingDir: /srv/middleway-data
  volumeMounts: [{name: data, mountPath: /srv/middleway-data, readOnly: true}, {name: data, mountPath: /srv/sub, subPath: a/b}]
`), spec("other", `volumes: [{name: data, emptyDir: {}}]
containers: [{name: main, command: [sleep, "1000"], volumeMounts: [{name: data, mountPath: /srv/middleway-data}]}]`))
	s := r.eventually("it runs", "web", func(s PodStatus) bool { return s.Status == "Running" })
	if got := r.sh("web", "pwd; cat log; cat /srv/middleway-data/log; touch x 2>/dev/null || echo no; ls /srv/sub"); got != "/srv/middleway-data\none\ntwo\none\ntwo\nno\n" {
		t.Errorf("got %q", got)
	}
	if got := r.sh("other", "ls /srv/middleway-data"); got != "" {
		t.Errorf("another pod's volume: got %q", got)
	}
	for _, c := range s.InitContainers {
		if c.State != ContainerTerminated || c.Reason != "Completed" || *c.ExitCode != 0 || c.Finished.Before(c.Started) || c.Started.IsZero() {
			t.Errorf("got %+v", c)
		}
	}
	if !s.InitContainers[1].Started.After(s.InitContainers[0].Finished) || !s.Containers[0].Started.After(s.InitContainers[1].Finished) {
		t.Errorf("they ran at the same time: %+v", s)
	}
}

// What becomes of a pod whose init container fails is what restartPolicy says.
func TestInitContainerFails(t *testing.T) {
	failing := func(policy string) string {
		return spec(strings.ToLower(policy), "restartPolicy: "+policy, `initContainers: [{name: prepare, command: [sh, -c, 'echo why; exit 3']}, {name: late, command: ["true"]}]`, sleeps)
	}
	r := run(t, failing("Never"), failing("OnFailure"), failing("Always"),
		spec("waits", `initContainers: [{name: prepare, command: [sh, -c, 'until test -e /srv/middleway/go; do sleep 0.05; done'], volumeMounts: [{name: v, mountPath: /srv/middleway}]}]`,
			"volumes: [{name: v, emptyDir: {}}]", sleeps))
	s := r.eventually("it has failed", "never", func(s PodStatus) bool { return s.Phase == "Failed" })
	if s.Status != "Init:Error" || s.Reason() != "prepare: exit code 3: why" || s.Containers[0].Reason != "PodInitializing" || s.Restarts() != 0 {
		t.Errorf("got %+v", s)
	}
	for _, name := range []string{"onfailure", "always"} {
		s := r.eventually(name+" tries again", name, func(s PodStatus) bool { return s.Restarts() > 1 && s.Status == "Init:CrashLoopBackOff" })
		if last := s.InitContainers[0].LastState; s.Phase != "Pending" || last.ExitCode != 3 || last.Reason != "Error" || last.Message != "exit code 3: why" {
			t.Errorf("got %+v, %+v", s, last)
		}
	}
	if s := r.pod("waits"); s.Status != "Init:0/1" || s.Phase != "Pending" || s.Containers[0].State != ContainerWaiting {
		t.Errorf("got %+v", s)
	}
	c := r.Pod("default", "waits").inits[0]
	own, err := c.running()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.exec(t.Context(), own, []string{"touch", "/srv/middleway/go"}); err != nil {
		t.Error(err)
	}
	r.eventually("it goes on", "waits", func(s PodStatus) bool { return s.Status == "Running" })
}

// A sidecar is up before the next one begins, starts again whatever restartPolicy says, and ends after the containers.
func TestSidecar(t *testing.T) {
	const mounts = "volumeMounts: [{name: v, mountPath: /srv/middleway}]"
	r := run(t, spec("job", "restartPolicy: Never", "volumes: [{name: v, emptyDir: {}}]",
		`initContainers:
- name: side
  restartPolicy: Always
  command: [sh, -c, 'trap "echo end of side; exit 0" TERM; test -e /srv/middleway/crashed || { touch /srv/middleway/crashed; exit 7; }; echo up > /srv/middleway/up; while :; do sleep 0.05; done']
  startupProbe: {exec: {command: [test, -e, /srv/middleway/up]}, periodSeconds: 1}
  `+mounts+`
containers:
- {name: main, command: [sh, -c, 'cat /srv/middleway/up; until test -e /srv/middleway/go; do sleep 0.05; done'], `+mounts+`}
`))
	s := r.eventually("it is ready", "job", func(s PodStatus) bool { ready, _ := s.ReadyContainers(); return ready == 2 })
	if _, of := s.ReadyContainers(); of != 2 || s.Status != "Running" || s.Restarts() != 1 || s.InitContainers[0].LastState.ExitCode != 7 {
		t.Errorf("got %+v", s)
	}
	r.sh("job", "touch /srv/middleway/go")
	s = r.eventually("it is done", "job", func(s PodStatus) bool {
		return s.Phase == "Succeeded" && s.InitContainers[0].State == ContainerTerminated
	})
	if *s.InitContainers[0].ExitCode != 0 || s.Status != "Completed" || s.InitContainers[0].Finished.Before(s.Containers[0].Finished) {
		t.Errorf("got %+v", s)
	}
}

// A pod's end is SIGTERM to the containers, and to sidecars after them; who ignores it is killed with all that it has started.
func TestPodEnds(t *testing.T) {
	r := run(t, spec("web", "terminationGracePeriodSeconds: 1",
		`initContainers: [{name: side, restartPolicy: Always, command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 0.05; done']}]`,
		`containers:
- {name: forks, command: [sh, -c, '(setsid sh -c "trap : TERM; while :; do sleep 1; done" &) ; trap "" TERM; trap : USR1; while :; do sleep 0.05; done']}
- {name: polite, command: [sh, -c, 'trap "exit 4" TERM; while :; do sleep 0.05; done'], lifecycle: {preStop: {exec: {command: [sh, -c, 'echo hook > /srv/middleway/hook']}}}, volumeMounts: [{name: v, mountPath: /srv/middleway}]}`,
		"volumes: [{name: v, emptyDir: {}}]"), spec("stays", sleeps))
	p := r.Pod("default", "web")
	r.eventually("it runs", "web", func(s PodStatus) bool { return s.Status == "Running" })
	pid := p.containers[0].process.PID()
	volume := p.join(volumesDir, "v", "hook")
	files := p.join()
	r.eventually("it can be asked to end", "web", func(PodStatus) bool { return p.containers[1].process.Catches(15) && p.inits[0].process.Catches(15) })
	r.Cluster.mu.Lock()
	r.Cluster.pods = slices.DeleteFunc(slices.Clone(r.Cluster.pods), func(other *Pod) bool { return other == p })
	r.Cluster.mu.Unlock()
	r.reconciler.mu.Lock()
	r.reconciler.busy[types.UID(p.uid)] = true // this test takes it down, and nobody starts it again
	r.reconciler.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- p.close(nil) }()
	hooked, seen := false, ""
	for done := false; !done; time.Sleep(time.Millisecond) {
		if b, _ := os.ReadFile(volume); string(b) == "hook\n" {
			hooked = true
		}
		if s := p.Status().Status; !strings.HasSuffix(seen, s) {
			seen += " " + s
		}
		select {
		case err := <-ended:
			done = true
			if err != nil {
				t.Error(err)
			}
		default:
		}
	}
	if !hooked {
		t.Error("the preStop hook did not run")
	}
	if !strings.Contains(seen, "Terminating") {
		t.Errorf("its status was%s while it ended, want Terminating", seen)
	}
	s := p.Status()
	if *s.Containers[0].ExitCode != 137 || *s.Containers[1].ExitCode != 4 || *s.InitContainers[0].ExitCode != 0 {
		t.Errorf("exit codes: got %d, %d, %d, want 137, 4, 0", *s.Containers[0].ExitCode, *s.Containers[1].ExitCode, *s.InitContainers[0].ExitCode)
	}
	if s.InitContainers[0].Finished.Before(s.Containers[1].Finished) {
		t.Error("the sidecar ended before the container")
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
		t.Error("the process is left")
	}
	if _, err := os.Stat(files); err == nil {
		t.Error("the pod's files are left")
	}
	if s := r.pod("stays"); s.Status != "Running" {
		t.Errorf("the other pod: got %+v", s)
	}
}

// What cannot start says why, as a kubelet would: StartError and exit code 128.
func TestStartError(t *testing.T) {
	file, err := os.Executable() // any that every machine has
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, spec("program", "restartPolicy: Never", `containers: [{name: main, command: [no-such-program]}]`),
		spec("directory", "restartPolicy: Never", `containers: [{name: main, command: ["true"], workingDir: /no/such}]`),
		spec("volume", "restartPolicy: Never", "volumes: [{name: v, emptyDir: {}}]", fmt.Sprintf(`containers: [{name: main, command: ["true"], volumeMounts: [{name: v, mountPath: %s}]}]`, file)))
	for name, want := range map[string]string{
		"program": "there is no program no-such-program on this machine", "directory": "working directory /no/such: no such file",
		"volume": "mount on " + file + ": there is a file on this machine, where a directory is wanted",
	} {
		s := r.eventually("it has failed", name, func(s PodStatus) bool { return s.Phase == "Failed" })
		if s.Status != "StartError" || *s.Containers[0].ExitCode != 128 || !strings.Contains(s.Reason(), want) {
			t.Errorf("%s: got %s, %d, %s", name, s.Status, *s.Containers[0].ExitCode, s.Reason())
		}
	}
}

// Each end of a run is kept: how the present state came about, and the one before.
func TestLastState(t *testing.T) {
	before := time.Now()
	r := run(t, spec("loop", `containers: [{name: main, command: [sh, -c, 'sleep 0.1; echo why; exit 5']}]`))
	s := r.eventually("it waits", "loop", func(s PodStatus) bool { return s.Status == "CrashLoopBackOff" && s.Restarts() > 0 })
	c := s.Containers[0]
	if last := c.LastState; last == nil || last.ExitCode != 5 || last.Reason != "Error" || last.Message != "exit code 5: why" || last.Started.Before(before) || last.Finished.Before(last.Started) {
		t.Errorf("got %+v, %+v", c, last)
	}
	if s.Phase != "Running" || c.State != ContainerWaiting || c.Ready || c.PID != 0 {
		t.Errorf("got %+v", s)
	}
	s = r.eventually("it runs again", "loop", func(s PodStatus) bool { return s.Containers[0].State == ContainerRunning })
	if c := s.Containers[0]; c.LastState == nil || c.LastState.ExitCode != 5 || c.Reason != "" || c.Started.Before(c.LastState.Finished) {
		t.Errorf("got %+v", c)
	}
}
