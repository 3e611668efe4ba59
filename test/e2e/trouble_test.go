package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s/informers/informerstest"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/node/underlay"
)

// member is a machine whose daemon is a cluster's, with an API server on it.
type member struct {
	*machine
	api  *informerstest.Server
	once func() error // mends what was prepared; nil: nothing does
}

func newMember(t *testing.T) *member {
	m := &member{machine: newMachine(t)}
	m.api = informerstest.At(t, "127.0.0.1:6443", func(addr string) (net.Listener, error) { return m.node.Listen("tcp", addr) })
	m.api.Set("nodes", asNode(1, lab.PodCIDR4(1), lab.PodCIDR6(1)))
	m.config = node.Config{
		Name: "node-1", RunDir: m.config.RunDir, FlowEntries: 512,
		Kubernetes: node.Kubernetes{Kubeconfig: filepath.Join(m.dir, "kubeconfig")},
		Services:   node.Services{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}},
		CNI:        node.CNI{Conflist: filepath.Join(m.dir, "net.d", "10-middleway.conflist")},
	}
	m.must(os.WriteFile(m.config.Kubernetes.Kubeconfig, []byte(m.api.Kubeconfig()), 0o644))
	return m
}

// asNode is a Node as an API server sends it.
func asNode(number int, podCIDRs ...netip.Prefix) *corev1.Node {
	n := nodeObject(number, podCIDRs...)
	n.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}
	return n
}

// get returns the status with which the daemon answers, 0 where it does not.
func (m *member) get(path string) int {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: m.node.Dial}}
	resp, err := client.Get("http://" + node.DefaultHTTP + path)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// mustHave skips the test where the kernel has no such device.
func (m *member) mustHave(err error) {
	m.t.Helper()
	if errors.Is(err, unix.EOPNOTSUPP) {
		m.t.Skip("this kernel does not have it: ", err)
	}
	m.must(err)
}

// warnings counts a daemon's warnings, but for those about what this machine's kernel lacks.
func warnings(p *lab.Process) (count int) {
	for line := range strings.Lines(p.Tail()) {
		if strings.Contains(line, "level=WARN") && !strings.Contains(line, "an offload is missing") {
			count++
		}
	}
	return count
}

// told returns the message of an Event about the node with that reason, "" if there is none.
func (m *member) told(reason string) string {
	for _, e := range m.api.Events() {
		if e.Reason == reason && e.InvolvedObject.Kind == "Node" && e.InvolvedObject.Name == "node-1" && e.Type == "Warning" {
			return e.Message
		}
	}
	return ""
}

// What is wrong with a node of a cluster is one sentence in its log, and the same one in an Event about the Node. Where that can be
// mended while the daemon waits it waits, and serves when it is; else it ends.
func TestTroubles(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*member)
		reason  string
		words   []string // of the sentence
		ends    bool     // the daemon
		runs    bool     // it serves all the same
	}{
		{name: "rights", prepare: func(m *member) {
			m.api.Refuse("nodes")
			m.once = func() error { m.api.Refuse(""); return nil }
		}, reason: "RightsMissing", words: []string{"refuses what this node needs", "nodes is forbidden", "ClusterRole"}},
		{name: "no Node", prepare: func(m *member) {
			n := asNode(1, ofPlan(1)...)
			m.api.Delete("nodes", n)
			m.once = func() error { m.api.Set("nodes", n); return nil }
		}, reason: "NodeNotRegistered", words: []string{"waiting for the Node object node-1", "--name"}},
		{name: "no range", prepare: func(m *member) {
			m.api.Set("nodes", asNode(1))
			m.once = func() error { m.api.Set("nodes", asNode(1, ofPlan(1)...)); return nil }
		}, reason: "PodCIDRMissing", words: []string{"waiting for a pod range of node node-1", "--allocate-node-cidrs"}},
		{name: "no range but an address", prepare: func(m *member) {
			n := asNode(1)
			n.Spec.PodCIDRs = []string{"10.244.1.5/24"}
			m.api.Set("nodes", n)
			m.once = func() error { m.api.Set("nodes", asNode(1, ofPlan(1)...)); return nil }
		}, reason: "PodCIDRNotUsable", words: []string{"10.244.1.5/24", "delete the Node"}},
		{name: "pods' range and Services' overlap", prepare: func(m *member) {
			m.config.Services.CIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
		}, reason: "ConfigurationNotUsable", words: []string{"services.cidrs[0]: 10.244.0.0/16 overlaps 10.244.1.0/24"}, ends: true},
		{name: "pods' range has the node's address", prepare: func(m *member) {
			m.api.Set("nodes", asNode(1, netip.MustParsePrefix("192.168.254.0/24")))
		}, reason: "ConfigurationNotUsable", words: []string{"192.168.254.11 of a node lies within 192.168.254.0/24"}, ends: true},
		{name: "Services' range has the node's address", prepare: func(m *member) {
			m.config.Services.CIDRs = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}
		}, reason: "ConfigurationNotUsable", words: []string{"services.cidrs[0]: 192.168.0.0/16 contains 192.168.254.11 of a node"}, ends: true},
		{name: "MTU", prepare: func(m *member) { m.config.MTU = 1500 },
			reason: "ConfigurationNotUsable", words: []string{"mtu: 1500 needs 1550 bytes", "lower mtu to 1450"}, ends: true},
		{name: "port of a process", prepare: func(m *member) {
			c, err := m.node.ListenPacket("udp4", "0.0.0.0:8472")
			m.must(err)
			m.once = c.Close
		}, reason: "TunnelPortTaken", words: []string{fmt.Sprintf("process %d (", os.Getpid()), "has this port (udp 192.168.254.11:8472)", "vxlan.port"}},
		{name: "port of flannel.1", prepare: func(m *member) {
			_, err := lab.NewKernelVXLAN(m.node, lab.KernelVXLANConfig{Own: lab.PlanVTEPs(1)[:1]})
			m.mustHave(err)
			m.once = func() error { return errors.Join(m.remove("flannel.1"), m.remove("cni0")) }
		}, reason: "TunnelPortTaken", words: []string{"flannel.1, a VXLAN device of the kernel, has this port", "ip link del flannel.1"}},
		{name: "a device called mw0", prepare: func(m *member) {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "mw0"
			nl, err := m.node.Netlink()
			m.must(err)
			m.mustHave(nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
			m.once = func() error { return m.remove("mw0") }
		}, reason: "HostDeviceNotUsable", words: []string{"an interface mw0 exists that is not ours", "ip link del mw0"}},
		{name: "address of another node", prepare: func(m *member) {
			m.config.Address = lab.NodeAddr4(7).Addr()
		}, reason: "AddressNotUsable", words: []string{"192.168.254.17", "set address to one that it has"}},
		{name: "no tun device", prepare: func(m *member) { m.run = []string{"no-tun", "missing"} },
			reason: "TUNDeviceNotUsable", words: []string{"open /dev/net/tun: it does not exist", "modprobe tun"}},
		{name: "forbidden tun device", prepare: func(m *member) {
			if ordinaryUser() {
				m.t.Skip("an ordinary user may not mount over this /dev/net/tun")
			}
			m.run = []string{"no-tun", "forbidden"}
		}, reason: "TUNDeviceNotUsable", words: []string{"open /dev/net/tun: not allowed"}, ends: true},
		{name: "tun device without a rule", prepare: func(m *member) { m.run = []string{"no-tun", cgroupWithoutTUN(m.t)} },
			reason: "TUNDeviceNotUsable", words: []string{"the container's device rules forbid it", "add a rule for c 10:200 rw"}, ends: true},
		{name: "no capability", prepare: func(m *member) {
			if ordinaryUser() {
				m.t.Skip("an ordinary user cannot become another one")
			}
			m.must(os.Mkdir(m.config.RunDir, 0o755))
			m.must(os.Chown(m.config.RunDir, 65534, 65534))
			m.run = []string{"no-root", strconv.Itoa(1 << unix.CAP_DAC_OVERRIDE)}
		}, reason: "CapabilityMissing", words: []string{"CAP_NET_ADMIN is missing"}, ends: true},
		{name: "another network's configuration", prepare: func(m *member) {
			other := filepath.Join(m.dir, "net.d", "05-cilium.conflist")
			m.must(os.MkdirAll(filepath.Dir(other), 0o755))
			m.must(os.WriteFile(other, []byte(`{"name": "cilium", "plugins": [{"type": "cilium-cni"}]}`), 0o644))
			m.once = func() error { return os.Remove(other) }
		}, reason: "OtherNetworkConfiguration", words: []string{"05-cilium.conflist, which comes before 10-middleway.conflist by name", "remove it"}, runs: true},
		{name: "no room for the configuration", prepare: func(m *member) {
			dir := filepath.Dir(m.config.CNI.Conflist)
			m.must(os.WriteFile(dir, nil, 0o644)) // a file in the place of the directory
			m.once = func() error { return os.Remove(dir) }
		}, reason: "NetworkConfigurationNotWritten", words: []string{"write the network configuration", "cni.conflist"}, runs: true},
		{name: "Services' range is another", prepare: func(m *member) {
			m.api.Set("services", &corev1.Service{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"},
				Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.43.0.1"}, Ports: []corev1.ServicePort{{Port: 443, Protocol: corev1.ProtocolTCP}}},
			})
		}, reason: "ServiceRangeWrong", words: []string{"Service default/kubernetes has the address 10.43.0.1", "outside of services.cidrs [10.96.0.0/16]", "--service-cluster-ip-range"}, runs: true},
		{name: "another node has the same range", prepare: func(m *member) {
			m.api.Set("nodes", asNode(2, lab.PodCIDR4(1)))
		}, reason: "PeerLeftOut", words: []string{"node node-2", "10.244.1.0/24 of its pods overlaps 10.244.1.0/24 of this node"}, runs: true},
		{name: "another node has the same address", prepare: func(m *member) {
			n := asNode(2, lab.PodCIDR4(2))
			n.Annotations["flannel.alpha.coreos.com/public-ip"] = lab.NodeAddr4(1).Addr().String()
			m.api.Set("nodes", n)
		}, reason: "PeerLeftOut", words: []string{"node node-2", "192.168.254.11, its address, is that of this node"}, runs: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMember(t)
			tt.prepare(m)
			p := m.daemon()
			m.must(p.Start())
			defer func() {
				_ = p.Kill()
				if t.Failed() {
					t.Log(p.Tail())
				}
			}()
			eventually(t, "an Event "+tt.reason, func() bool { return m.told(tt.reason) != "" })
			message := m.told(tt.reason)
			for _, w := range tt.words {
				if !strings.Contains(message, w) {
					t.Errorf("%q is not in: %s", w, message)
				}
			}
			if tt.ends {
				if p.Wait() == nil {
					t.Error("it ended without an error")
				}
				m.once = nil
			}
			eventually(t, "the sentence in the log", func() bool { return strings.Contains(unquoted(p.Tail()), message) })
			if got := strings.Count(unquoted(p.Tail()), message); got != 1 {
				t.Errorf("the log has the sentence %d times:\n%s", got, p.Tail())
			}
			t.Logf("%s: %s", tt.reason, message)
			switch {
			case tt.ends:
				return
			case !tt.runs && (m.get("/healthz") != http.StatusOK || m.get("/readyz") != http.StatusServiceUnavailable):
				t.Errorf("a daemon that waits: /healthz %d, /readyz %d", m.get("/healthz"), m.get("/readyz"))
			case tt.runs:
				eventually(t, "it serves all the same", func() bool { return m.get("/readyz") == http.StatusOK })
				st, err := node.ReadStatus(t.Context(), m.config.RunDir)
				m.must(err)
				if len(st.Problems) != 1 || st.Problems[0].Message != message || st.Problems[0].Reason != tt.reason {
					t.Errorf("status has %+v, want %s", st.Problems, message)
				}
			}
			if m.once != nil {
				m.must(m.once())
				eventually(t, "it is mended", func() bool {
					st, err := node.ReadStatus(t.Context(), m.config.RunDir)
					return err == nil && len(st.Problems) == 0 && m.get("/readyz") == http.StatusOK
				})
			}
		})
	}
}

// unquoted is a log without the marks that quotation put into it.
func unquoted(log string) string { return strings.ReplaceAll(log, `\"`, `"`) }

func (m *machine) remove(device string) error {
	nl, err := m.node.Netlink()
	if err != nil {
		return err
	}
	l, err := nl.LinkByName(device)
	if err != nil {
		return err
	}
	return nl.LinkDel(l)
}

// Another daemon with the same name writes its own annotations, again and again.
func TestSameName(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	p := m.daemon()
	m.must(p.Start())
	defer p.Kill()
	const key = "flannel.alpha.coreos.com/public-ip"
	address := func() string { return m.api.Object("nodes//node-1").(*corev1.Node).Annotations[key] }
	for m.told("NodeNameTaken") == "" {
		eventually(t, "the daemon's own annotation, or a word", func() bool { return address() == "192.168.254.11" || m.told("NodeNameTaken") != "" })
		other := asNode(1, ofPlan(1)...)
		other.Annotations[key] = "192.168.254.99"
		m.api.Set("nodes", other)
		eventually(t, "it is written anew", func() bool { return address() == "192.168.254.11" || m.told("NodeNameTaken") != "" })
	}
	if got := m.told("NodeNameTaken"); !strings.Contains(got, "another daemon writes annotations of node node-1") || !strings.Contains(got, "192.168.254.99") {
		t.Error(got)
	}
}

// An API server that is not there at the first start is waited for, in one sentence.
func TestStartWithoutAPIServer(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	m.api.Stop()
	p := m.daemon()
	m.must(p.Start())
	defer p.Kill()
	eventually(t, "a sentence", func() bool {
		return strings.Contains(p.Tail(), "the API server does not answer, and this node waits until it does")
	})
	eventually(t, "it is healthy", func() bool { return m.get("/healthz") == http.StatusOK })
	if got := m.get("/readyz"); got != http.StatusServiceUnavailable {
		t.Errorf("/readyz answers %d", got)
	}
	m.api.Start()
	eventually(t, "it serves", func() bool { return m.get("/readyz") == http.StatusOK })
	if got := warnings(p); got != 1 {
		t.Errorf("the log has %d warnings, want one:\n%s", got, p.Tail())
	}
}

// The network configuration is there once the node serves, not before, and comes back as it was; --cleanup takes it away.
func TestConflist(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	path := m.config.CNI.Conflist
	m.api.Set("nodes", asNode(1)) // it waits
	m.must(os.MkdirAll(filepath.Dir(path), 0o755))
	p := m.daemon()
	m.must(p.Start())
	defer p.Kill()
	eventually(t, "it waits", func() bool { return m.told("PodCIDRMissing") != "" })
	if _, err := os.Stat(path); err == nil {
		t.Error("a node that waits has its network configuration")
	}
	m.api.Set("nodes", asNode(1, ofPlan(1)...))
	read := func() string { b, _ := os.ReadFile(path); return string(b) }
	eventually(t, "the configuration", func() bool { return read() != "" })
	want := `{
  "cniVersion": "1.1.0",
  "name": "middleway",
  "plugins": [
    {
      "type": "middleway-cni",
      "capabilities": {
        "portMappings": true
      },
      "socket": "` + filepath.Join(m.config.RunDir, "cni.sock") + `"
    }
  ]
}
`
	if got := read(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := m.get("/readyz"); got != http.StatusOK {
		t.Errorf("/readyz answers %d beside it", got)
	}
	for what, change := range map[string]func() error{
		"removed":  func() error { return os.Remove(path) },
		"changed":  func() error { return os.WriteFile(path, []byte("{}"), 0o644) },
		"replaced": func() error { return os.Rename(m.write("x"), path) },
	} {
		m.must(change())
		eventually(t, "it is back after it was "+what, func() bool { return read() == want })
	}
	m.must(p.Stop(10 * time.Second))
	if read() != want {
		t.Error("the daemon's end took the configuration away")
	}
	m.args = []string{"node", "--config", m.write(m.json()), "--cleanup"}
	p = m.daemon()
	m.must(p.Start())
	m.must(p.Wait())
	if left := read(); left != "" {
		t.Errorf("--cleanup left %s", left)
	}
}

// The next daemon asks for its turn and takes over at once, and the first one does so again when that ends, whatever way: what an update with two
// pods at a time does, and one that goes wrong. A transfer between pods
// goes on.
func TestHandOver(t *testing.T) {
	m := newMember(t)
	for i, pod := range m.pods {
		m.config.Pods = append(m.config.Pods, node.Pod{Name: "default/" + pod.Name(), Netns: pod.Path(), Addresses: []netip.Addr{host(lab.PodCIDR4(1), i+2)}})
	}
	old := m.daemon()
	m.must(old.Start())
	defer old.Kill()
	pid := func() int {
		st, err := node.ReadStatus(t.Context(), m.config.RunDir)
		if err != nil {
			return 0
		}
		return st.PID
	}
	eventually(t, "the first daemon serves", func() bool { return m.get("/readyz") == http.StatusOK })
	hand := func(what string, do func() error, to *lab.Process) {
		t.Helper()
		r := transfer{from: m.pods[0], to: m.pods[1], addr: host(lab.PodCIDR4(1), 3), timeout: time.Minute}.start(t)
		r.more(t, flowing)
		begin := time.Now()
		m.must(do())
		eventually(t, what+": the other daemon serves", func() bool {
			return pid() == to.PID() && m.get("/healthz") == http.StatusOK && m.get("/readyz") == http.StatusOK
		})
		took := time.Since(begin)
		r.more(t, flowing)
		r.stop()
		got := r.wait(t)
		t.Logf("%s: from one daemon to the other %v, longest stall of a transfer %v", what, took.Round(time.Millisecond), got.stall.Round(time.Millisecond))
		if strings.Contains(to.Tail(), "level=ERROR") || warnings(to) > 0 {
			t.Errorf("%s: the log of the daemon that took over:\n%s", what, to.Tail())
		}
	}
	for what, end := range map[string]func(*lab.Process) error{
		"SIGTERM": func(d *lab.Process) error { return d.Signal(unix.SIGTERM) },
		"kill -9": (*lab.Process).Kill,
	} {
		next := m.daemon()
		defer next.Kill()
		hand("the next one asks", next.Start, next)
		eventually(t, "the first one waits again", func() bool {
			tail := old.Tail()
			return strings.LastIndex(tail, "this one takes over when it ends") > strings.LastIndex(tail, "asks for its turn")
		})
		time.Sleep(time.Second)
		if pid() != next.PID() {
			t.Error("the one that gave way takes over while the other one works")
		}
		hand("the next one ends by "+what, func() error { return end(next) }, old)
	}
	third := m.daemon()
	defer third.Kill()
	hand("a third one asks", third.Start, third)
	m.must(old.Signal(unix.SIGTERM))
	if err := old.Wait(); err != nil {
		t.Errorf("a daemon that waits ends by SIGTERM: %v", err)
	}
}

// A next daemon that cannot work ends, however soon it is started again, and the first one takes over each time, with all that it has left.
func TestMistakenUpdate(t *testing.T) {
	m := newMember(t)
	for i, pod := range m.pods {
		m.config.Pods = append(m.config.Pods, node.Pod{Name: "default/" + pod.Name(), Netns: pod.Path(), Addresses: []netip.Addr{host(lab.PodCIDR4(1), i+2)}})
	}
	first := m.daemon()
	m.must(first.Start())
	defer first.Kill()
	serves := func() bool {
		st, err := node.ReadStatus(t.Context(), m.config.RunDir)
		return err == nil && st.PID == first.PID() && m.get("/readyz") == http.StatusOK
	}
	eventually(t, "the first daemon serves", serves)
	holds := func() (files, threads int) {
		for what, count := range map[string]*int{"fd": &files, "task": &threads} {
			entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", first.PID(), what))
			m.must(err)
			*count = len(entries)
		}
		return files, threads
	}
	r := transfer{from: m.pods[0], to: m.pods[1], addr: host(lab.PodCIDR4(1), 3), timeout: 2 * time.Minute}.start(t)
	r.more(t, flowing)
	right := m.config
	filesBefore, threadsBefore := 0, 0
	for round, tt := range []struct {
		name   string
		change func(*node.Config)
		says   string
	}{
		{"an interface", func(c *node.Config) { c.Address, c.Underlay = netip.Addr{}, underlay.Config{Interface: "mw-nowhere"} }, "no interface of this node is called"},
		{"an address", func(c *node.Config) { c.Address = lab.NodeAddr4(7).Addr() }, "no interface of this node has"},
		{"an address, with another flow table", func(c *node.Config) { c.Address, c.FlowEntries = lab.NodeAddr4(7).Addr(), 2048 }, "no interface of this node has"},
		{"an address again, at once", func(c *node.Config) { c.Address = lab.NodeAddr4(7).Addr() }, "no interface of this node has"},
		{"the API server", func(c *node.Config) { c.Kubernetes.Server = "http://127.0.0.1:1" }, "is not ready after"},
	} {
		m.config = right
		tt.change(&m.config)
		next := m.daemon()
		m.must(next.Start())
		select {
		case <-next.Done():
		case <-time.After(20 * time.Second):
			next.Kill()
			t.Fatalf("%s: a daemon that cannot work goes on beside one that can:\n%s", tt.name, next.Tail())
		}
		if err := next.Wait(); err == nil || !strings.Contains(next.Tail(), tt.says) {
			t.Errorf("%s: %v\n%s", tt.name, err, next.Tail())
		}
		for _, name := range []string{"node.json", "cluster.db", "flows"} {
			if _, err := os.Stat(filepath.Join(m.config.RunDir, name)); err != nil {
				t.Errorf("%s: what the first daemon left is gone: %v", tt.name, err)
			}
		}
		if round == 0 {
			eventually(t, "the first daemon serves again", serves)
			filesBefore, threadsBefore = holds()
		}
	}
	eventually(t, "the first daemon serves again", serves)
	r.more(t, flowing)
	r.stop()
	t.Logf("longest stall of a transfer %v", r.wait(t).stall.Round(time.Millisecond))
	if files, threads := holds(); files > filesBefore+8 || threads > threadsBefore+8 {
		t.Errorf("the first daemon has %d files and %d threads after five turns, %d and %d after one", files, threads, filesBefore, threadsBefore)
	}
}
