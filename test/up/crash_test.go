package up

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A daemon that is killed comes back with its pods; a pod's process that is killed is started again.
func TestKilledParts(t *testing.T) {
	p := newPlayground(t)
	p.must("up", "-d")
	before := p.status()
	node, pod := before.Nodes[1], before.Pods[3]
	server := fmt.Sprintf("%v:8080", pod.IPs[0])
	p.kill(machinePID(t, p, "node-2.yaml"))
	p.eventually("the daemon is back", func() bool { n := p.status().Nodes[1]; return n.Ready && n.Restarts == node.Restarts+1 })
	p.eventually("its pods are reached", func() bool {
		_, code := p.middleway("exec", "pod-1-1", "--", "middleway", "tool", "get", "--timeout", "1s", server)
		return code == 0
	})
	if got := p.pod(pod.Name); !cmp.Equal(fmt.Sprint(got.IPs), fmt.Sprint(pod.IPs)) {
		t.Errorf("addresses: got %v, want %v", got.IPs, pod.IPs)
	}
	if _, code := p.middleway("exec", pod.Name, "--", "sh", "-c", "kill -9 1; kill -TERM 1; sleep 1000"); code == 0 {
		t.Error("the command went on")
	}
	p.eventually("the container is back", func() bool { s := p.pod(pod.Name); return s.Restarts() == 1 && s.Phase == "Running" })
	all := p.processes()
	p.must("down")
	p.gone(all)
}

// A daemon that hangs keeps what it said last, and is not ready.
func TestHangingDaemon(t *testing.T) {
	p := newPlayground(t)
	p.must("up", "-d", "--nodes", "1")
	before := p.status().Nodes[0]
	pid := machinePID(t, p, "node-1.yaml")
	p.must2(syscall.Kill(pid, syscall.SIGSTOP))
	p.eventually("it does not answer", func() bool { return !p.status().Nodes[0].Ready })
	if got, want := p.status().Nodes[0], fmt.Sprintf("the daemon does not answer; pid %d", before.PID); got.MTU != before.MTU || got.Message != want {
		t.Errorf("got %+v, want %q", got, want)
	}
	p.must2(syscall.Kill(pid, syscall.SIGCONT))
	p.eventually("it answers", func() bool { n := p.status().Nodes[0]; return n.Ready && n.Message == "" })
}

// machinePID finds a process of the cluster by its command line, as the machine numbers it.
func machinePID(t *testing.T, p *playgroundAt, part string) int {
	t.Helper()
	for pid := range p.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(line), part) {
			return pid
		}
	}
	t.Fatalf("no process with %s in %v", part, p.processes())
	return 0
}

// Whichever process of the cluster is killed, status and exec say so, down clears up, and a new cluster may take its place at once.
func TestCrash(t *testing.T) {
	for _, tt := range []struct {
		name     string
		hit      func(p *playgroundAt, outer int)
		underlay string
		down     string
	}{
		{"outer process", func(p *playgroundAt, outer int) { p.kill(outer) }, "auto", "cleared up"},
		{"outer process, with sockets of the machine", func(p *playgroundAt, outer int) { p.kill(outer) }, "machine", "cleared up"},
		{"inner process", func(p *playgroundAt, outer int) { p.kill(childOf(p, outer)) }, "auto", "cleared up"},
		{"inner process, with sockets of the machine", func(p *playgroundAt, outer int) { p.kill(childOf(p, outer)) }, "machine", "cleared up"},
		{"outer process hangs", func(p *playgroundAt, outer int) { p.must2(syscall.Kill(outer, syscall.SIGSTOP)) }, "auto", "took down"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlayground(t)
			p.up(pods("forks: setsid sleep 1000 & sleep 1000 & wait"), "--nodes", "1", "--underlay", tt.underlay)
			before := p.processes()
			outer := p.status().PID
			tt.hit(p, outer)
			for _, args := range [][]string{{"status"}, {"exec", "forks", "--", "true"}} {
				if tt.down != "cleared up" {
					continue
				}
				p.eventually(fmt.Sprint(args, " says that it crashed"), func() bool {
					out, code := p.middleway(args...)
					return code == 1 && strings.Contains(out, "crashed; `middleway down --dir "+p.dir+"` clears up")
				})
			}
			if out := p.must("down"); !strings.HasPrefix(out, tt.down) || strings.Count(out, "\n") != 1 {
				t.Errorf("down: got %q", out)
			}
			p.gone(before)
		})
	}
	for _, underlay := range []string{"auto", "machine"} {
		t.Run("up again, "+underlay, func(t *testing.T) {
			p := newPlayground(t)
			p.must("up", "-d", "--nodes", "1", "--underlay", underlay)
			before := p.processes()
			p.kill(p.status().PID)
			p.eventually("up succeeds again", func() bool {
				_, code := p.middleway("up", "-d", "--nodes", "1", "--underlay", underlay)
				return code == 0
			})
			p.must("down")
			p.gone(before)
		})
	}
}

func (p *playgroundAt) must2(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func childOf(p *playgroundAt, parent int) int {
	p.Helper()
	for pid := range p.processes() {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if strings.Contains(string(stat), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			return pid
		}
	}
	p.Fatalf("%d has no child", parent)
	return 0
}
