package rootless

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// host is a machine of its own with an ordinary user, in whose home everything of the node lies.
type host struct {
	t      testing.TB
	number int
	ns     *lab.Namespace
	uid    int // 0: that of the lab, which is an ordinary user's
	home   string
	config node.Config
	plan   plan
	cgroup string        // what a cgroup folder is called that is the user's; empty: there is none
	wayOut func(pid int) // gives the node, of which a process has this number, plan.Device

	sockets, node *lab.Process
	input         io.Closer
	orders        *json.Encoder
	told          *telling
	pods          map[string][]netip.Addr
}

// newHosts makes hosts on one network. Host 1 has the address of node 1 of the plan, and so on.
func newHosts(t testing.TB, n int) (hosts []*host) {
	t.Helper()
	base, err := os.MkdirTemp("", "mw-hosts-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	must(t, os.Chmod(base, 0o711))
	var all []*lab.Namespace
	for i := range n {
		h := &host{t: t, number: i + 1, home: filepath.Join(base, fmt.Sprint("host-", i+1))}
		if !lab.InUserNamespace() {
			h.uid = 64001 + i
		}
		h.ns, err = lab.NewNamespace(fmt.Sprint("host-", i+1))
		must(t, err)
		t.Cleanup(func() { h.ns.Close() })
		must(t, os.Mkdir(h.home, 0o700))
		all, hosts = append(all, h.ns), append(hosts, h)
	}
	u, err := lab.NewUnderlay(lab.UnderlayConfig{}, all...)
	must(t, err)
	t.Cleanup(func() { u.Close() })
	return hosts
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// path is a path in the host's home.
func (h *host) path(elements ...string) string {
	return filepath.Join(append([]string{h.home}, elements...)...)
}

// write writes a file that is the host's user's.
func (h *host) write(path string, text []byte, mode os.FileMode) {
	h.t.Helper()
	must(h.t, os.WriteFile(path, text, mode))
	h.own(path)
}

// own gives a path to the host's user.
func (h *host) own(path string) {
	h.t.Helper()
	if h.uid != 0 {
		must(h.t, filepath.WalkDir(path, func(p string, _ os.DirEntry, err error) error { return errors.Join(err, os.Lchown(p, h.uid, h.uid)) }))
	}
}

// addr is the host's address in the family of the tunnel.
func (h *host) addr(v6 bool) netip.Addr {
	if v6 {
		return lab.NodeAddr6(h.number).Addr()
	}
	return lab.NodeAddr4(h.number).Addr()
}

// configure makes the configuration of a node of the plan, which change edits.
func (h *host) configure(change func(*node.Config)) {
	n := h.number
	h.config = node.Config{
		Name: fmt.Sprint("node-", n), Sockets: h.path("sockets"), RunDir: h.path("run"), HTTP: "none",
		PodCIDRs: []netip.Prefix{lab.PodCIDR4(n), lab.PodCIDR6(n)},
	}
	h.plan = plan{
		Program: h.path("middleway"), Config: h.path("node.yaml"), Addrs: []netip.Addr{lab.NodeAddr4(n).Addr(), lab.NodeAddr6(n).Addr()},
		Conf: h.path("10-middleway.conflist"), Plugins: h.path("cni"), Cache: h.path("cache"), Pods: []string{fmt.Sprintf("pod-%d1", n), fmt.Sprintf("pod-%d2", n)},
		Socket: h.path("run", "cni.sock"),
	}
	if !lab.HasIPv6() {
		h.plan.Addrs = h.plan.Addrs[:1]
	}
	if change != nil {
		change(&h.config)
	}
}

// start installs the programs as a user does in their home, starts `middleway sockets` unless the configuration does without, and the node.
func (h *host) start() {
	t := h.t
	t.Helper()
	b, err := os.ReadFile(middleway(t))
	must(t, err)
	h.write(h.plan.Program, b, 0o755)
	must(t, h.plan.install())
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"middleway","plugins":[{"type":"middleway-cni","socket":%q}]}`, h.plan.Socket)
	h.write(h.plan.Conf, []byte(conf), 0o644)
	b, err = json.Marshal(h.config)
	must(t, err)
	h.write(h.plan.Config, b, 0o644)
	b, err = json.Marshal(h.plan)
	must(t, err)
	h.write(h.path("plan.json"), b, 0o644)
	h.own(h.home)
	if h.config.Sockets != "" {
		h.sockets = h.user(h.plan.Program, "sockets", h.config.Sockets)
		must(t, h.sockets.Start())
		t.Cleanup(func() { h.sockets.Kill() })
		eventually(t, 20*time.Second, "sockets are served", func() error {
			if !strings.Contains(h.sockets.Tail(), "sockets are served") {
				return errors.New(h.sockets.Tail())
			}
			return nil
		})
	}
	in, out, err := os.Pipe()
	must(t, err)
	h.told = &telling{pid: make(chan int, 1), started: make(chan map[string][]netip.Addr, 1), answers: map[int]chan answer{}}
	h.orders, h.input = json.NewEncoder(out), out
	h.node = h.user(enterNode, h.path("plan.json"))
	h.node.Input, h.node.Output = in, h.told
	must(t, h.node.Start())
	in.Close()
	t.Cleanup(h.stop)
	if h.plan.Device != "" {
		h.giveWayOut()
	}
}

// giveWayOut makes the device through which the node reaches the other hosts.
func (h *host) giveWayOut() {
	h.t.Helper()
	select {
	case pid := <-h.told.pid:
		h.wayOut(pid)
	case <-h.node.Done():
		h.t.Fatalf("the node of host %d ended: %s", h.number, h.node.Tail())
	}
}

// waitReady waits until the node's pods are attached.
func (h *host) waitReady() {
	h.t.Helper()
	select {
	case h.pods = <-h.told.started:
	case <-h.node.Done():
		h.t.Fatalf("the node of host %d ended: %v\n%s", h.number, h.node.Wait(), h.node.Tail())
	case <-time.After(90 * time.Second):
		h.t.Fatalf("the node of host %d has no pods after 90 s\n%s", h.number, h.node.Tail())
	}
}

// stop ends the node in order: DEL of its pods, SIGTERM to its daemon.
func (h *host) stop() {
	h.input.Close()
	if h.t.Skipped() { // it showed on the way that this machine cannot have such a node
		_ = h.node.Kill()
		return
	}
	select {
	case <-h.node.Done():
		if err := h.node.Wait(); err != nil {
			h.t.Errorf("host %d: %v", h.number, err)
		}
	case <-time.After(30 * time.Second):
		h.t.Errorf("the node of host %d does not end", h.number)
		h.node.Kill()
	}
	if h.t.Failed() || strings.Contains(h.node.Tail(), "panic:") {
		h.t.Errorf("host %d:\n%s", h.number, h.node.Tail())
	}
}

// user returns a process of the host's user; a program, or enterNode.
func (h *host) user(argv ...string) *lab.Process {
	p := lab.Command(h.ns, roleUser, append([]string{fmt.Sprint(h.uid)}, argv...)...)
	p.Env = []string{"HOME=" + h.home, "XDG_RUNTIME_DIR=" + h.home}
	if argv[0] == enterNode {
		p.Env = append(p.Env, cgroupVar+"="+h.cgroup)
		if h.cgroup != "" {
			p.Env = append(p.Env, subordinateVar+"="+h.path("kube"))
		}
	}
	p.Dir = "/"
	return p
}

// run runs the program in a pod, or in the node if pod is empty, and returns what it printed.
func (h *host) run(pod string, args ...string) (string, error) {
	id, done := h.told.expect()
	if err := h.orders.Encode(order{ID: id, Pod: pod, Args: args}); err != nil {
		return "", err
	}
	select {
	case a := <-done:
		if a.Code != 0 {
			return a.Output, fmt.Errorf("%s: middleway %s: exit code %d: %s", pod, strings.Join(args, " "), a.Code, a.Output)
		}
		return a.Output, nil
	case <-h.node.Done():
		return "", fmt.Errorf("the node of host %d has ended", h.number)
	case <-time.After(time.Minute):
		return "", fmt.Errorf("%s: middleway %s: no answer within a minute", pod, strings.Join(args, " "))
	}
}

// serve starts the program in a pod, where it runs as long as the node.
func (h *host) serve(pod string, args ...string) {
	h.t.Helper()
	id, _ := h.told.expect()
	must(h.t, h.orders.Encode(order{ID: id, Pod: pod, Args: args}))
}

// telling takes what a node tells, a line at a time; what is no answer is its log.
type telling struct {
	pid     chan int
	started chan map[string][]netip.Addr

	mu      sync.Mutex // guards what follows
	rest    []byte
	last    int
	answers map[int]chan answer
}

func (t *telling) expect() (id int, done <-chan answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	c := make(chan answer, 1)
	t.answers[t.last] = c
	return t.last, c
}

func (t *telling) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rest = append(t.rest, b...)
	for {
		line, rest, whole := strings.Cut(string(t.rest), "\n")
		if !whole {
			return len(b), nil
		}
		t.rest = []byte(rest)
		var a answer
		if !strings.HasPrefix(line, `{"ID"`) || json.Unmarshal([]byte(line), &a) != nil {
			continue
		}
		if a.PID != 0 {
			t.pid <- a.PID
		} else if a.Pods != nil {
			t.started <- a.Pods
		} else if c := t.answers[a.ID]; c != nil {
			c <- a
			delete(t.answers, a.ID)
		}
	}
}
