package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// A daemon that cannot start says so in one sentence, with what to do, and leaves nothing half-made.
func TestStartErrors(t *testing.T) {
	long := strings.Repeat("long/", 25)
	for _, tt := range []struct {
		name    string
		prepare func(*machine)
		want    []string // the cause, and what to do
	}{
		{"no configuration", func(m *machine) { m.args = []string{"node"} }, []string{"--config FILE is needed", "node --help"}},
		{"unknown flag", func(m *machine) { m.args = []string{"node", "--conf", "x"} }, []string{"unknown flag: --conf", "--help"}},
		{"flag without value", func(m *machine) { m.args = []string{"node", "--config"} }, []string{"needs an argument: --config", "--help"}},
		{"unknown command", func(m *machine) { m.args = []string{"serve"} }, []string{`unknown command "serve"`}},
		{"argument too many", func(m *machine) { m.args = []string{"node", "node.yaml"} }, []string{`"node.yaml"`}},
		{"bad log level", func(m *machine) { m.args = []string{"node", "--config", "x", "--log-level", "loud"} }, []string{`"loud"`, "debug, info, warn or error"}},
		{"no such file", func(m *machine) { m.args = []string{"node", "--config", "/no/node.yaml"} }, []string{"/no/node.yaml", "no such file", "node --help"}},
		{"bad log format", func(m *machine) { m.args = []string{"node", "--config", "x", "--log-format", "xml"} }, []string{`"xml"`, "text or json"}},
		{"bad address by flag", func(m *machine) { m.args = []string{"node", "--name", "n", "--address", "node-1"} },
			[]string{`"node-1"`, "--address", "an address like 192.168.254.11"}},
		{"bad range by flag", func(m *machine) { m.args = []string{"node", "--name", "n", "--pod-cidr", "10.244.1.0"} },
			[]string{`"10.244.1.0"`, "--pod-cidr", "a range like 10.244.1.0/24"}},
		{"no range by flags", func(m *machine) { m.args = []string{"node", "--name", "n", "--address", "192.168.254.11"} }, []string{"podCIDRs: at least one range"}},
		{"bad address", func(m *machine) { m.args = []string{"node", "--config", m.write("name: n\naddress: node-1\n")} },
			[]string{"node.yaml", "line 2: address", `"node-1"`, "an address like 192.168.254.11"}},
		{"no duration", func(m *machine) { m.args = []string{"node", "--config", m.write("name: n\nspin: 50\n")} },
			[]string{"node.yaml", "line 2: spin: 50", "a duration like 50us"}},
		{"unknown offload", func(m *machine) { m.args = []string{"node", "--config", m.write("name: n\noffloads: {foo: off}\n")} },
			[]string{"node.yaml", `line 2: offloads: unknown field "foo"`, "--help"}},
		{"bad name", func(m *machine) { m.args = []string{"node", "--name", "a b\nc"} }, []string{`name: "a b\nc"`, "lower-case letters"}},
		{"relative socket", func(m *machine) { m.config.CNI.Socket = "rel.sock" }, []string{"cni.socket", `"rel.sock"`, "absolute path like /run/middleway/cni.sock"}},
		{"few flows", func(m *machine) { m.config.FlowEntries = 3 }, []string{"flowEntries: 3", "between 512 and"}},
		{"range of loopback by flag", func(m *machine) { m.args = []string{"node", "--name", "n", "--pod-cidr", "127.0.0.0/24"} },
			[]string{"podCIDRs[0]: 127.0.0.0/24", "loopback", "choose a range like 10.244.1.0/24"}},
		{"address in a range by flag", func(m *machine) { m.args = []string{"node", "--name", "n", "--pod-cidr", "10.244.1.5/24"} },
			[]string{"podCIDRs[0]: 10.244.1.5/24", "did you mean 10.244.1.0/24?"}},
		{"bad offload", func(m *machine) { m.config.Offloads.TSO = "on" }, []string{"offloads.tso: on is neither auto nor off", "auto uses it"}},
		{"bad http", func(m *machine) { m.config.HTTP = "9473" }, []string{`http: "9473"`, ":9473", "none"}},
		{"no YAML", func(m *machine) { m.args = []string{"node", "--config", m.write("name: [")} }, []string{"node.yaml", "line 1"}},
		{"unknown field", func(m *machine) {
			m.args = []string{"node", "--config", m.write(strings.Replace(m.json(), "podCIDRs", "podCidr", 1))}
		}, []string{"line 1", `unknown field "podCidr"`, "did you mean podCIDRs?"}},
		{"peer's range overlaps ours", func(m *machine) { m.config.Peers[0].PodCIDRs[0] = netip.MustParsePrefix("10.244.0.0/16") },
			[]string{"peers[0].podCIDRs", "10.244.0.0/16 overlaps 10.244.1.0/24", "range of its own"}},
		{"ranges of two peers overlap", func(m *machine) {
			m.config.Peers = append(m.config.Peers, node.Peer{Address: lab.NodeAddr4(3).Addr(), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.128/25")}})
		}, []string{"peers[1].podCIDRs", "10.244.2.128/25 overlaps 10.244.2.0/24", "range of its own"}},
		{"two ranges of a family", func(m *machine) {
			m.config.PodCIDRs = append(m.config.PodCIDRs[:1], netip.MustParsePrefix("10.244.0.0/16"))
		}, []string{"podCIDRs", "at most one range of each family"}},
		{"range without room for a pod", func(m *machine) { m.config.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/31")} },
			[]string{"podCIDRs", "10.244.1.0/31 is too small for a gateway and a pod"}},
		{"peer is this node", func(m *machine) { m.config.Peers[0].Address = m.config.Address }, []string{"peers[0].address", "leave it out"}},
		{"peer twice", func(m *machine) {
			again := m.config.Peers[0]
			again.PodCIDRs = []netip.Prefix{lab.PodCIDR4(3)}
			m.config.Peers = append(m.config.Peers, again)
		}, []string{"peers[1].address", "192.168.254.12", "peers[0]"}},
		{"peer's name twice", func(m *machine) {
			again := m.config.Peers[0]
			again.Address, again.PodCIDRs = lab.NodeAddr4(3).Addr(), []netip.Prefix{lab.PodCIDR4(3)}
			m.config.Peers = append(m.config.Peers, again)
		}, []string{"peers[1].name", "node-2", "peers[0]"}},
		{"peer without address", func(m *machine) { m.config.Peers[0].Address = netip.Addr{} }, []string{"peers[0].address", "is needed, for example 192.168.254.12"}},
		{"peer of the other family", func(m *machine) { m.config.Peers[0].Address = lab.NodeAddr6(2).Addr() }, []string{"peers[0].address", "family"}},
		{"node's address is not one", func(m *machine) { m.config.NodeAddresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")} },
			[]string{"nodeAddresses", "127.0.0.1", "leave it out"}},
		{"node's address of a peer", func(m *machine) { m.config.NodeAddresses = []netip.Addr{m.config.Peers[0].Address} },
			[]string{"peers[0].nodeAddresses", "192.168.254.12", "twice", "this node"}},
		{"node's address among pods", func(m *machine) { m.config.NodeAddresses = []netip.Addr{host(lab.PodCIDR4(2), 9)} },
			[]string{"10.244.2.9", "10.244.2.0/24", "range of their own"}},
		{"cluster's range is none", func(m *machine) { m.config.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/16")} },
			[]string{"clusterCIDRs[0]", "10.244.1.0/16", "did you mean 10.244.0.0/16?"}},
		{"cluster's range swallows the tunnel", func(m *machine) { m.config.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("192.168.254.0/28")} },
			[]string{"clusterCIDRs[0]", "192.168.254.0/28", "192.168.254.11", "underlay"}},
		{"host's device is no name", func(m *machine) { m.config.HostDevice = "middleway-of-the-host" }, []string{"hostDevice", "15 bytes", "none"}},
		{"pod has the host's address", func(m *machine) { m.config.Pods[0].Addresses[0] = host(lab.PodCIDR4(1), 0) },
			[]string{"pods[0].addresses", "10.244.1.0", "the host"}},
		{"pod's address twice", func(m *machine) { m.config.Pods[1].Addresses = m.config.Pods[0].Addresses },
			[]string{"pods[1].addresses", "10.244.1.2 belongs to default/pod-1"}},
		{"pod has the gateway's address", func(m *machine) { m.config.Pods[0].Addresses[0] = host(lab.PodCIDR4(1), 1) },
			[]string{"pods[0].addresses", "10.244.1.1", "gateway"}},
		{"pod outside the ranges", func(m *machine) { m.config.Pods[0].Addresses[0] = host(lab.PodCIDR4(7), 2) },
			[]string{"pods[0].addresses", "outside podCIDRs"}},
		{"pod's name twice", func(m *machine) { m.config.Pods[1].Name = m.config.Pods[0].Name }, []string{"pods[1].name", "default/pod-1", "pods[0]"}},
		{"address is not on this node", func(m *machine) { m.config.Address = lab.NodeAddr4(7).Addr() },
			[]string{"192.168.254.17", "set address to one that it has"}},
		{"no interface of that name", func(m *machine) {
			m.config.Address, m.config.Underlay = netip.Addr{}, underlay.Config{Interface: "eth9"}
		}, []string{"underlay.interface", `"eth9"`, "choose one of eth0 (192.168.254.11)"}},
		{"interface is down", func(m *machine) {
			m.config.Address, m.config.Underlay = netip.Addr{}, underlay.Config{Interface: "eth0"}
			nl, err := m.node.Netlink()
			m.must(err)
			eth0, err := nl.LinkByName("eth0")
			m.must(err)
			m.must(nl.LinkSetDown(eth0))
		}, []string{"underlay.interface", "eth0 is down", "ip link set eth0 up"}},
		{"no route to what shall be reached", func(m *machine) {
			m.config.Address, m.config.Underlay = netip.Addr{}, underlay.Config{CanReach: netip.MustParseAddr("203.0.113.1")}
		}, []string{"underlay.canReach", "no route leads to 203.0.113.1", "add one", "eth0 (192.168.254.11)"}},
		{"range of nobody", func(m *machine) {
			m.config.Address, m.config.Underlay = netip.Addr{}, underlay.Config{CIDR: netip.MustParsePrefix("203.0.113.0/24")}
		}, []string{"underlay.cidr", "203.0.113.0/24", "choose the range of one of eth0 (192.168.254.11)"}},
		{"found address is a peer's", func(m *machine) { m.config.Address, m.config.Peers[0].Address = netip.Addr{}, m.config.Address },
			[]string{"peers[0].address", "leave it out"}},
		{"found address is a pod's", func(m *machine) {
			m.config.Address, m.config.PodCIDRs, m.config.Pods = netip.Addr{}, []netip.Prefix{netip.MustParsePrefix("192.168.254.0/24")}, nil
			m.config.Peers = nil
		}, []string{"address: 192.168.254.11", "lies within 192.168.254.0/24", "range of their own"}},
		{"no parent", func(m *machine) { m.config.Sockets = filepath.Join(m.dir, "sockets") },
			[]string{"nothing is at /", "start `middleway sockets", "as the same user"}},
		{"IPv6 ranges without IPv6", func(m *machine) { m.withoutIPv6(); m.config.PodCIDRs, m.config.Pods = m.config.PodCIDRs[1:], nil },
			[]string{"podCIDRs", "fd00:10:244:1::/64", "IPv6 is turned off", "add an IPv4 range"}},
		{"IPv6 pod without IPv6", func(m *machine) { m.withoutIPv6(); m.config.Pods[1].Addresses = m.config.Pods[1].Addresses[1:] },
			[]string{"pods[1].addresses", "IPv6 is turned off", "give the pod an IPv4 address"}},
		{"IPv6 underlay without IPv6", func(m *machine) {
			m.withoutIPv6()
			m.config.Address, m.config.Peers[0].Address = lab.NodeAddr6(1).Addr(), lab.NodeAddr6(2).Addr()
		}, []string{"address", "IPv6 is wanted between the nodes", "use IPv4 addresses"}},
		{"underlay too small", func(m *machine) {
			nl, err := m.node.Netlink()
			m.must(err)
			link, err := nl.LinkByName("eth0")
			m.must(err)
			m.must(nl.LinkSetMTU(link, 1300))
		}, []string{"mtu", "1300 bytes", "1250", "raise it to 1330, or leave IPv6 out of podCIDRs"}},
		{"mtu over the underlay", func(m *machine) { m.config.MTU = 1500 }, []string{"mtu: 1500 needs 1550 bytes", "lower mtu to 1450"}},
		{"no such namespace", func(m *machine) { m.config.Pods[0].Netns = "/run/netns/gone" },
			[]string{"default/pod-1", "/run/netns/gone", "no such file", "has its pod ended"}},
		{"no such namespace, of the second pod", func(m *machine) { m.config.Pods[1].Netns = "/run/netns/gone" },
			[]string{"default/pod-2", "/run/netns/gone", "no such file", "has its pod ended"}},
		{"not a namespace", func(m *machine) { m.config.Pods[0].Netns = "/proc/version" },
			[]string{"default/pod-1", "/proc/version: it is none", "/proc/4711/ns/net"}},
		{"runDir below a file", func(m *machine) { m.config.RunDir = m.write("x") + "/run" }, []string{"node.yaml", "not a directory", "runDir"}},
		{"runDir too long", func(m *machine) { m.config.RunDir = filepath.Join(m.dir, long) }, []string{"runDir", "107 bytes", "shorter"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			tt.prepare(m)
			m.mustFail(tt.want...)
			if left := m.left(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func (m *machine) withoutIPv6() { disableIPv6(m.t, m.node) }

func TestStartPortInUse(t *testing.T) {
	for _, tt := range []struct {
		name  string
		occup func(*machine)
		who   string
	}{
		{"by a socket of that address", func(m *machine) { m.listen("192.168.254.11:8472") }, fmt.Sprintf("process %d (", os.Getpid())},
		{"by a socket of all addresses", func(m *machine) { m.listen("0.0.0.0:8472") }, fmt.Sprintf("process %d (", os.Getpid())},
		{"by a VXLAN device of the kernel", func(m *machine) {
			_, err := lab.NewKernelVXLAN(m.node, lab.KernelVXLANConfig{Own: lab.PlanVTEPs(1)[:1]})
			mustHave(m.t, err)
		}, "flannel.1, a VXLAN device of the kernel,"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			tt.occup(m)
			before := len(m.left())
			if text := m.mustFail("192.168.254.11:8472", tt.who, " has this port", "choose another", "vxlan.port"); strings.Contains(text, "in use") {
				t.Errorf("says it twice: %s", text)
			}
			if left := m.left(); len(left) > before {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func (m *machine) listen(addr string) {
	c, err := m.node.ListenPacket("udp4", addr)
	m.must(err)
	m.t.Cleanup(func() { c.Close() })
}

// The pod's eth0 belongs to somebody else.
func TestStartDeviceTaken(t *testing.T) {
	m := newMachine(t)
	nl, err := m.pods[1].Netlink()
	m.must(err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	mustHave(m.t, nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	m.mustFail("default/pod-2", `"eth0"`, "remove it or choose another name")
	if left := m.left(); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// Only a pod that a former daemon had can have ended: any other path that leads nowhere is a mistake.
func TestStartWrongNamespaceLater(t *testing.T) {
	m := newMachine(t)
	first := m.daemon()
	m.must(first.Start())
	eventually(t, "the first daemon answers", func() bool { _, err := node.ReadStatus(t.Context(), m.config.RunDir); return err == nil })
	m.must(first.Stop(10 * time.Second))
	if tail := first.Tail(); !strings.Contains(tail, "node is down") || strings.Contains(tail, "<nil>") {
		t.Errorf("the last words: %s", tail)
	}
	m.config.Pods[0].Netns = "/proc/999999/ns/net"
	m.mustFail("default/pod-1", "/proc/999999/ns/net", "has its pod ended, or is its netns another one?")
}

// A second daemon stays out, whatever of its configuration differs, and the first one notices nothing.
func TestStartSecondDaemon(t *testing.T) {
	m := newMachine(t)
	first := m.daemon()
	m.must(first.Start())
	defer func() {
		if err := first.Stop(5 * time.Second); err != nil {
			t.Errorf("%v: %s", err, first.Tail())
		}
	}()
	runDir := m.config.RunDir
	pid := func() int {
		st, err := node.ReadStatus(t.Context(), runDir)
		if err != nil {
			return 0
		}
		return st.PID
	}
	eventually(t, "the first daemon answers", func() bool { return pid() == first.PID() })
	before := fmt.Sprint(m.left())

	m.mustFail("another middleway node runs on "+runDir, "choose another runDir")
	m.config.RunDir = filepath.Join(m.dir, "run2")
	m.mustFail("192.168.254.11:8472", "choose another port")
	m.config.VXLAN.Port = vxlan.DefaultPort + 1
	m.mustFail("default/pod-1", "another process", "end that process")
	m.config.Pods, m.config.HostDevice, m.config.HTTP = nil, "none", "none"
	m.config.CNI.Socket = filepath.Join(runDir, "cni.sock")
	m.mustFail("cni.socket: another daemon has its socket in "+runDir, "end it, or choose a path in another directory")
	m.config.CNI.Socket = filepath.Join(runDir, "another.sock") // its tombstones would be the first one's
	m.mustFail("cni.socket: another daemon has its socket in "+runDir, "another directory")
	m.config.RunDir = runDir
	c, err := net.Dial("unix", filepath.Join(runDir, "cni.sock"))
	if err != nil {
		t.Errorf("the first daemon's door is shut: %v", err)
	} else {
		c.Close()
	}
	if after := fmt.Sprint(m.left()); pid() != first.PID() || after != before {
		t.Errorf("pid %d, %v; before it was %d, %v", pid(), after, first.PID(), before)
	}
	mustPing(t, m.pods[0], host(lab.PodCIDR4(1), 3), 56)
}

// noTUN replaces this process by a program in whose mount namespace /dev/net/tun is missing, or may not be opened.
func noTUN(args []string) int {
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNS)
	switch {
	case err != nil:
	case filepath.IsAbs(args[0]): // a cgroup
		err = os.WriteFile(filepath.Join(args[0], "cgroup.procs"), []byte("0"), 0) // this process
	case args[0] == "missing":
		err = unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=0755")
	default: // a device may not be opened on a mount without devices; the other flags may be locked on
		const tun, flags = "/dev/net/tun", unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
		err = errors.Join(unix.Mount(tun, tun, "", unix.MS_BIND, ""), unix.Mount("", tun, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""))
	}
	if err == nil {
		err = syscall.Exec(args[1], args[1:], os.Environ())
	}
	fmt.Println(err)
	return 1
}

// noRoot replaces this process by a program of an ordinary user with the capabilities that are given as bits.
func noRoot(args []string) int {
	runtime.LockOSThread()
	bits, err := strconv.ParseUint(args[0], 10, 32)
	if err == nil {
		err = becomeUser(uint32(bits))
	}
	if err == nil {
		err = syscall.Exec(args[1], args[1:], os.Environ())
	}
	fmt.Println(err)
	return 1
}

// becomeUser makes this thread an ordinary user's, whose next program has the capabilities.
func becomeUser(bits uint32) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	for _, set := range [][2]uintptr{{unix.SYS_SETGROUPS, 0}, {unix.SYS_SETGID, 65534}, {unix.SYS_SETUID, 65534}} { // of this thread
		if _, _, errno := unix.RawSyscall(set[0], set[1], 0, 0); errno != 0 {
			return errno
		}
	}
	caps := [2]unix.CapUserData{{Effective: bits, Permitted: bits, Inheritable: bits}}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &caps[0]); err != nil {
		return err
	}
	for c := range uintptr(32) {
		if bits>>c&1 == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0); err != nil {
			return err
		}
	}
	return nil
}

func TestStartWithoutTUN(t *testing.T) {
	for mode, words := range map[string][]string{
		"missing":   {"/dev/net/tun", "does not exist", "modprobe tun"},
		"forbidden": {"/dev/net/tun", "not allowed", "chmod 0666"},
		"ruled out": {"/dev/net/tun", "device rules forbid it", "c 10:200 rw"},
	} {
		t.Run(mode, func(t *testing.T) {
			if mode == "ruled out" {
				mode = cgroupWithoutTUN(t)
			}
			if mode == "forbidden" && ordinaryUser() {
				t.Skip("an ordinary user may not mount over this /dev/net/tun")
			}
			m := newMachine(t)
			m.run = []string{"no-tun", mode}
			m.mustFail(words...)
			if left := m.left(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// devices is where the device controller of cgroup v1 is mounted.
const devices = "/sys/fs/cgroup/devices"

// cgroupWithoutTUN makes a cgroup whose processes may not open the TUN device, as a container's that has no rule for it.
func cgroupWithoutTUN(t *testing.T) string {
	t.Helper()
	former, err := filepath.Glob(devices + "/middleway-e2e-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range former {
		_ = os.Remove(dir) // of a run that was killed; one that has processes stays
	}
	dir, err := os.MkdirTemp(devices, "middleway-e2e-")
	if err != nil {
		t.Skip("the device controller of cgroup v1 cannot be used: ", err)
	}
	t.Cleanup(func() {
		eventually(t, "the cgroup is removed", func() bool { return unix.Rmdir(dir) == nil })
	})
	if err := os.WriteFile(filepath.Join(dir, "devices.deny"), []byte("c 10:200 rwm"), 0); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ordinaryUser reports whether this run is in a user namespace, where there is no other user and mounts may be locked.
func ordinaryUser() bool {
	b, _ := os.ReadFile("/proc/self/uid_map")
	return !strings.Contains(string(b), "4294967295")
}

func TestStartWithoutRoot(t *testing.T) {
	if ordinaryUser() {
		t.Skip("an ordinary user cannot become another one")
	}
	m := newMachine(t)
	with := func(bits int) { m.run = []string{"no-root", strconv.Itoa(bits)} }
	with(0)
	m.mustFail("run directory", "permission denied", "runDir")

	m.must(os.Mkdir(m.config.RunDir, 0o555))
	m.mustFail("permission denied", "runDir")

	m.must(os.Chmod(m.config.RunDir, 0o777))
	const tun = 1 << unix.CAP_DAC_OVERRIDE // opens /dev/net/tun whatever its mode
	with(tun)
	text := m.mustFail("CAP_NET_ADMIN is missing", "run as root")
	if strings.Contains(text, "%") || strings.Contains(text, "CAP_SYS_ADMIN") {
		t.Errorf("more than one cause: %s", text)
	}
	// A namespace that the user can name, but not enter.
	with(tun | 1<<unix.CAP_NET_ADMIN)
	file := filepath.Join(m.dir, "netns")
	m.must(os.WriteFile(file, nil, 0o644))
	m.must(m.pods[0].Do(func() error { return unix.Mount("/proc/thread-self/ns/net", file, "", unix.MS_BIND, "") }))
	t.Cleanup(func() { unix.Unmount(file, unix.MNT_DETACH) })
	m.config.Pods[0].Netns = file
	m.mustFail("default/pod-1", file, "CAP_SYS_ADMIN")
	if left := m.left(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStartFullRunDir(t *testing.T) {
	m := newMachine(t)
	m.must(os.Mkdir(m.config.RunDir, 0o755))
	m.must(unix.Mount("tmpfs", m.config.RunDir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { unix.Unmount(m.config.RunDir, unix.MNT_DETACH) })
	m.mustFail("no space left", "runDir")
	if left := m.left(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStartReadOnlyRunDir(t *testing.T) {
	m := newMachine(t)
	m.must(os.Mkdir(m.config.RunDir, 0o755))
	m.must(unix.Mount(m.config.RunDir, m.config.RunDir, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(m.config.RunDir, unix.MNT_DETACH) })
	m.must(unix.Mount("", m.config.RunDir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	m.mustFail("read-only file system", "runDir")
	if left := m.left(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A daemon that fails to come back takes nothing from the pods that its predecessor gave them.
func TestFailedRestartKeepsDevices(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{2}})
	n := cl.Nodes[0]
	devices := devicesOf(t, n)
	r := transfer{from: n.Pods[0].Namespace, to: n.Pods[1].Namespace, addr: n.Pods[1].Addr4, rate: 50e6}.start(t)
	good := n.Config
	pods := append([]node.Pod(nil), good.Pods...)
	for name, spoil := range map[string]func(){
		"before the devices": func() { n.Config.Address = lab.NodeAddr4(7).Addr() },
		"between them":       func() { n.Config.Pods[1].Netns = "/proc/version" },
	} {
		if err := n.Daemon().Kill(); err != nil {
			t.Fatal(err)
		}
		spoil()
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		<-n.Daemon().Done()
		t.Logf("%s: %s", name, n.Daemon().Tail())
		for i, now := range devicesOf(t, n) {
			if now != devices[i] {
				t.Errorf("%s: eth0 of %s: interface %d became %d", name, n.Pods[i].Name(), devices[i], now)
			}
		}
		n.Config = good
		n.Config.Pods = append([]node.Pod(nil), pods...)
		startNode(t, n)
	}
	r.more(t, flowing)
	r.stop()
	t.Log(r.wait(t))
}
