package up

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/middleway-net/middleway/lab/doctor"
	"github.com/middleway-net/middleway/lab/playground"
)

// The defaults: two nodes, two pods each, which reach each other by their own addresses; afterwards nothing is left.
func TestDefaults(t *testing.T) {
	p := newPlayground(t)
	out := p.must("up", "-d")
	for _, want := range []string{"node-1", "192.168.254.12", "default/pod-2-2", "`middleway down --dir " + p.dir + "`"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if strings.Contains(out, "Ctrl-C") {
		t.Errorf("nobody can press Ctrl-C, but it says\n%s", out)
	}
	st := p.status()
	if len(st.Nodes) != 2 || len(st.Pods) != 4 || st.State != "running" {
		t.Fatalf("got %+v", st)
	}
	for i, n := range st.Nodes {
		if !n.Ready || n.MTU == 0 || n.Name != fmt.Sprintf("node-%d", i+1) || len(n.Addresses) == 0 || len(n.PodCIDRs) == 0 {
			t.Errorf("node: got %+v", n)
		}
		if out := p.must("status", "-o", "json"); !strings.Contains(out, n.RunDir) {
			t.Errorf("%s is missing in\n%s", n.RunDir, out)
		}
		one := exec.Command(program, "status", "--run-dir", n.RunDir)
		if out, err := one.CombinedOutput(); err != nil || !strings.Contains(string(out), "node      "+n.Name) {
			t.Errorf("status of %s: %v %s", n.Name, err, out)
		}
	}
	for _, pod := range st.Pods {
		if pod.Phase != "Running" || len(pod.IPs) != len(st.Nodes[0].PodCIDRs) {
			t.Errorf("pod: got %+v", pod)
		}
		for _, ip := range pod.IPs {
			server := fmt.Sprintf("%v:8080", ip)
			if ip.Is6() {
				server = fmt.Sprintf("[%v]:8080", ip)
			}
			p.eventually("an answer of "+server, func() bool {
				out, code := p.middleway("exec", "pod-1-1", "--", "middleway", "tool", "get", server)
				return code == 0 && strings.Contains(out, "saw ")
			})
		}
	}
	if out := p.must("status"); !strings.Contains(out, "default/pod-1-1  1/1    Running") {
		t.Errorf("status: got\n%s", out)
	}
	before := p.processes()
	if len(before) < 8 {
		t.Errorf("got %v, want two of the cluster, two daemons and four pods", before)
	}
	if out := p.must("down"); out != "took down the cluster in "+p.dir+"\n" {
		t.Errorf("down: got %q", out)
	}
	p.gone(before)
	if out := p.must("down"); !strings.Contains(out, "no cluster runs in "+p.dir) {
		t.Errorf("a second down: got %q", out)
	}
	for _, verb := range []string{"status", "exec"} {
		args := []string{verb}
		if verb == "exec" {
			args = append(args, "web", "--", "true")
		}
		if out, code := p.middleway(args...); code != 1 || !strings.Contains(out, "`middleway up --dir "+p.dir+"` starts one") {
			t.Errorf("%s without a cluster: got %d %q", verb, code, out)
		}
	}
}

func TestManifests(t *testing.T) {
	p := newPlayground(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.yaml": pods("{nodeName: node-2} sleeper: sleep 1000", "spread-1: sleep 1000", "spread-2: sleep 1000") +
			"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\n",
		"b.yml": pods("{restartPolicy: Never} done: exit 0", "{restartPolicy: Never} failed: echo why it failed; exit 3",
			"{restartPolicy: OnFailure} again: exit 1", "looping: exit 0", "{hostNetwork: true, nodeName: node-1} host: sleep 1000"),
		"c.json": `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"env","namespace":"other"},
			"spec":{"nodeName":"node-3","hostPID":true,"containers":[
			{"name":"a","command":["sleep","1000"],"workingDir":"/etc","env":[{"name":"IP","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}},{"name":"URL","value":"http://$(IP)"}]},
			{"name":"b","command":["sh","-c"],"args":["sleep $(LONG)"],"env":[{"name":"LONG","value":"1000"}]}]}}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := p.must("up", "-d", "--nodes", "3", "-f", dir)
	for _, want := range []string{"kind ConfigMap is left out", "spec.hostPID is not honoured"} {
		if strings.Count(out, want) != 1 {
			t.Errorf("warning %q: got it %d times in\n%s", want, strings.Count(out, want), out)
		}
	}
	for name, want := range map[string]string{
		"sleeper": "Running node-2", "spread-1": "Running node-1", "spread-2": "Running node-2", "done": "Succeeded", "failed": "Failed",
		"again": "Running", "looping": "Running", "host": "Running node-1", "env": "Running node-3",
	} {
		phase, node, _ := strings.Cut(want, " ")
		p.eventually(name+" is "+want, func() bool { return string(p.pod(name).Phase) == phase })
		if got := p.pod(name); node != "" && got.Node != node {
			t.Errorf("%s is on %s, want %s", name, got.Node, node)
		}
	}
	if got := p.pod("failed"); got.Reason() != "main: exit code 3: why it failed" || *got.Containers[0].ExitCode != 3 {
		t.Errorf("failed: got %+v", got)
	}
	if b, err := os.ReadFile(p.pod("failed").Containers[0].Output); err != nil || !strings.HasSuffix(string(b), " stdout F why it failed\n") {
		t.Errorf("output of failed: got %v, %q", err, b)
	}
	p.eventually("the next start is announced", func() bool {
		s := p.pod("again")
		return strings.HasPrefix(s.Reason(), "main: exit code 1, starts again in ")
	})
	p.eventually("restarts are told", func() bool {
		log, _ := os.ReadFile(filepath.Join(p.dir, "up.log"))
		return strings.Contains(string(log), "default/again: container main starts again (exit code 1)\n")
	})
	p.eventually("restarts", func() bool { s := p.pod("looping"); return s.Restarts() > 1 })
	p.eventually("restarts on failure", func() bool { s := p.pod("again"); return s.Restarts() > 1 })
	if got := p.pod("done"); got.Restarts() != 0 {
		t.Errorf("done: started again %d times", got.Restarts())
	}
	if got, want := p.pod("host").IPs, p.status().Nodes[0].Addresses; len(got) == 0 || got[0] != want[0] {
		t.Errorf("hostNetwork: got %v, want %v", got, want)
	}
	env := p.pod("env")
	if got, want := p.must("exec", "-n", "other", "env", "--", "sh", "-c", "pwd; echo $URL"), fmt.Sprintf("/etc\nhttp://%v\n", env.IPs[0]); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if out, code := p.middleway("exec", "env", "--", "true"); code != 1 || !strings.Contains(out, "-n other has one") {
		t.Errorf("got %d %q", code, out)
	}
	if out := p.must("exec", "-n", "other", "env", "-c", "b", "--", "pwd"); out != "/\n" {
		t.Errorf("container b: got %q", out)
	}
	if out, code := p.middleway("exec", "-n", "other", "env", "-c", "d", "--", "pwd"); code != 1 || !strings.Contains(out, "it has a, b") {
		t.Errorf("got %d %q", code, out)
	}
	if out, code := p.middleway("exec", "done", "--", "true"); code != 1 || !strings.Contains(out, "does not run") {
		t.Errorf("got %d %q", code, out)
	}
	before := p.processes()
	p.must("down")
	p.gone(before)
}

func TestSecondUp(t *testing.T) {
	p := newPlayground(t)
	p.must("up", "-d", "--nodes", "1")
	before := p.status()
	for _, args := range [][]string{{"up"}, {"up", "-d"}} {
		out, code := p.middleway(args...)
		if code != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "a cluster runs in "+p.dir+" already; `middleway down --dir "+p.dir+"`") {
			t.Errorf("%v: got %d %q", args, code, out)
		}
	}
	if after := p.status(); after.PID != before.PID || after.Pods[0].UID != before.Pods[0].UID {
		t.Errorf("got %+v, want %+v", after, before)
	}
}

// Of several at once one wins, and keeps its files; the others say who has the directory.
func TestUpAtOnce(t *testing.T) {
	p := newPlayground(t)
	const tries = 4
	outs, codes := make([]string, tries), make([]int, tries)
	var wg sync.WaitGroup
	for i := range tries {
		wg.Go(func() { outs[i], codes[i] = p.middleway("up", "-d", "--nodes", "1") })
	}
	wg.Wait()
	won := 0
	for i, out := range outs {
		switch {
		case codes[i] == 0:
			won++
		case strings.Count(out, "\n") != 1 || !strings.Contains(out, "a cluster runs in "+p.dir+" already; `middleway down --dir "+p.dir+"`"):
			t.Errorf("got %d %q", codes[i], out)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d came up, want 1: %q", won, tries, outs)
	}
	log, err := os.ReadFile(filepath.Join(p.dir, "up.log"))
	if err != nil || !strings.Contains(string(log), "1 node, 2 pods") {
		t.Errorf("the log: got %v, %q", err, log)
	}
}

// A start that is interrupted says so, leaves nothing, and ends with the exit code of Ctrl-C.
func TestInterruptedStart(t *testing.T) {
	for _, detach := range []string{"-d=false", "-d"} {
		t.Run(detach, func(t *testing.T) {
			p := newPlayground(t)
			cmd := p.command("up", detach, "--nodes", "30")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			p.must2(cmd.Start())
			p.eventually("it starts", func() bool { _, err := os.Stat(filepath.Join(p.dir, "up.sock")); return err == nil })
			p.must2(cmd.Process.Signal(syscall.SIGINT))
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.HasSuffix(out.String(), "middleway: interrupted while it started; nothing is left of it\n") {
				t.Errorf("got %d\n%s", code, out.String())
			}
			if _, err := os.Stat(p.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the state directory: %v, want it gone", err)
			}
		})
	}
}

// In the foreground a signal takes everything down, and the exit code is 0.
func TestForeground(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			p := newPlayground(t)
			cmd := p.command("up", "--nodes", "1")
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			p.must2(cmd.Start())
			p.eventually("up", func() bool {
				out, code := p.middleway("status")
				return code == 0 && strings.Contains(out, ", running, ")
			})
			before := p.processes()
			p.must2(cmd.Process.Signal(sig))
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v\n%s", err, out.String())
			}
			if text := out.String(); !strings.Contains(text, "Ctrl-C or `middleway down --dir "+p.dir+"`") || !strings.HasSuffix(text, "\ntaken down; nothing is left\n") {
				t.Errorf("got\n%s", text)
			}
			p.gone(before)
		})
	}
}

// The nodes meet on a network of the kernel, on the lab's own switch, which is what a kernel without veth has in its place, and on
// the machine's loopback, where an ordinary user has nothing but sockets.
func TestUnderlays(t *testing.T) {
	all := map[string]string{"kernel": "the kernel's veth", "userspace": "a switch in userspace", "machine": "the machine's loopback"}
	if veth, _ := examine(t, exec.Command(program, "doctor", "-o", "json")).Finding("veth"); veth.State == doctor.Missing {
		all["kernel"] = all["userspace"]
	}
	for underlay, words := range all {
		t.Run(underlay, func(t *testing.T) {
			p := newPlayground(t)
			p.must("up", "-d", "--underlay", underlay)
			st := p.status()
			if st.Underlay != words {
				t.Errorf("got %q, want %q", st.Underlay, words)
			}
			server := fmt.Sprintf("%v:8080", st.Pods[2].IPs[0])
			p.eventually("an answer of "+server, func() bool {
				_, code := p.middleway("exec", "pod-1-1", "--", "middleway", "tool", "get", "--timeout", "2s", server)
				return code == 0
			})
			for _, n := range st.Nodes {
				mustSendFrom(t, n, underlay == "machine")
			}
			before := p.processes()
			p.must("down")
			p.gone(before)
		})
	}
}

// mustSendFrom checks that a daemon's tunnel is in the machine's network namespace, in which this test is, or else in its node's.
func mustSendFrom(t *testing.T, n playground.NodeStatus, machine bool) {
	t.Helper()
	for path, want := range map[string]bool{"/proc/net/udp": machine, fmt.Sprintf("/proc/%d/net/udp", n.PID): !machine} {
		if got := tunnelIn(t, path, n.Underlay); got != want {
			t.Errorf("%s, of %s: a UDP socket of %v: %v, want %v", path, n.Name, n.Underlay, got, want)
		}
	}
}

// tunnelIn reports whether a namespace, whose table of UDP sockets is given, has one that is bound to an address and the tunnel's port.
func tunnelIn(t *testing.T, path string, a netip.Addr) bool {
	t.Helper()
	table, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b := a.As4()
	return strings.Contains(string(table), fmt.Sprintf(" %08X:%04X ", binary.NativeEndian.Uint32(b[:]), 8472))
}

// Without a flag an ordinary user's nodes meet on the machine's loopback, root's on a network of their own.
func TestDefaultUnderlay(t *testing.T) {
	p := newPlayground(t)
	p.must("up", "-d")
	want := "the kernel's veth"
	if os.Geteuid() != 0 {
		want = "the machine's loopback"
	}
	st := p.status()
	if st.Underlay != want && !(os.Geteuid() == 0 && st.Underlay == "a switch in userspace") {
		t.Errorf("got %q, want %q", st.Underlay, want)
	}
	for _, n := range st.Nodes {
		mustSendFrom(t, n, os.Geteuid() != 0)
	}
}

// Manifests may come from standard input, also for a cluster in the background.
func TestStdin(t *testing.T) {
	p := newPlayground(t)
	cmd := p.command("up", "-d", "--nodes", "1", "-f", "-")
	cmd.Stdin = strings.NewReader(pods("web: sleep 1000"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := p.pod("web"); got.Phase != "Running" {
		t.Errorf("got %+v", got)
	}
	p.must("down")
	cmd = p.command("up", "-d", "-f", "-")
	cmd.Stdin = strings.NewReader("kind: Pod\n")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "standard input, line 1, apiVersion:") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("got %v\n%s", err, out)
	}
	if _, err := os.Stat(p.dir); err == nil {
		t.Error("the state directory is left")
	}
}
