package rootless

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/lab"
)

// The roles of this program on a host.
const (
	roleUser = "host-user" // UID PROGRAM ARG...: becomes an ordinary user, who runs the program
	roleNode = "host-node" // FILE: the runtime's part of a rootless node, in namespaces of its own
)

// enterNode in the place of a program stands for roleNode in a user, network and mount namespace that the user makes.
const enterNode = "node"

// becomeUser gives root's powers up, after it has given the host a /dev/net/tun for all. A uid of 0 is that of an ordinary user who has
// no other one to give: the lab's own user namespace is theirs.
func becomeUser(args []string) int {
	runtime.LockOSThread()
	uid, err := strconv.Atoi(args[0])
	if err == nil && uid != 0 {
		err = errors.Join(
			unix.Unshare(unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=0755"),
			unix.Mknod("/dev/net/tun", unix.S_IFCHR, int(unix.Mkdev(10, 200))),
			os.Chmod("/dev/net/tun", 0o666),
			delegate(uid, os.Getenv(cgroupVar)),
			subordinate(uid, os.Getenv(subordinateVar)),
			syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid),
			// Both went with the credentials.
			unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0),
			unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0),
		)
	}
	if err == nil && args[1] == enterNode {
		err = startInside(args[2:])
	} else if err == nil {
		err = unix.Exec(args[1], args[1:], os.Environ())
	}
	if err != nil {
		fmt.Println("user:", err)
		return 1
	}
	return 0
}

// startInside runs roleNode in namespaces in which this user is root.
func startInside(args []string) error {
	cmd := lab.RoleCommand(context.Background(), roleNode, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWCGROUP,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if dir := os.Getenv(subordinateVar); dir != "" { // then newuidmap maps them, for unshare
		unshare, err := exec.LookPath("unshare")
		if err != nil {
			return err
		}
		cmd.Path = unshare
		cmd.Args = append([]string{"unshare", "--user", "--map-root-user", "--map-auto", "--net", "--mount", "--cgroup", filepath.Join(dir, "self")}, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	return cmd.Run()
}

// plan says what roleNode makes.
type plan struct {
	Program string       // path of middleway
	Config  string       // path of the daemon's configuration
	Addrs   []netip.Addr // of the machine, which the node has on its lo
	Device  string       // somebody gives the node this way out before the daemon starts; empty: nobody does
	Own     netip.Prefix // the node's address on Device
	Gateway netip.Addr   // and its default gateway
	Conf    string       // path of the CNI network configuration
	Plugins string       // directory of the plugins
	Cache   string       // libcni's
	Pods    []string     // names
	Socket  string       // the daemon's, of the plugin
	Kubelet *kubelet     // in the place of libcni; nil: there is none
}

// order asks for a run of the program in a pod, or in the node where Pod is empty.
type order struct {
	ID   int
	Pod  string
	Args []string
}

// answer tells what came of an order, or, with ID 0, in which process the node is, and then the pods' addresses.
type answer struct {
	ID     int
	Code   int
	Output string
	PID    int
	Pods   map[string][]netip.Addr
}

// runNode is the runtime of a node: it starts the daemon, attaches pods by libcni, and does what it is asked to until its input ends.
func runNode(args []string) int {
	n := runtimeOf(args[0])
	if err := n.run(); err != nil {
		fmt.Println("node:", err)
		return 1
	}
	return 0
}

type containerRuntime struct {
	plan
	err  error
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
	pods map[string]*sandbox

	mu  sync.Mutex // guards the output
	out *json.Encoder
}

type sandbox struct {
	ns   *lab.Namespace
	conf *libcni.RuntimeConf
}

func runtimeOf(file string) *containerRuntime {
	n := &containerRuntime{pods: map[string]*sandbox{}, out: json.NewEncoder(os.Stdout)}
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &n.plan)
	}
	if err == nil {
		b, err = os.ReadFile(n.Conf)
	}
	if err == nil {
		n.list, err = libcni.ConfListFromBytes(b)
	}
	n.err = err
	n.cni = libcni.NewCNIConfigWithCacheDir([]string{n.Plugins}, n.Cache, nil)
	return n
}

func (n *containerRuntime) run() error {
	if n.err != nil {
		return n.err
	}
	if err := n.prepare(); err != nil {
		return err
	}
	n.tell(answer{PID: os.Getpid()})
	if err := n.awaitDevice(); err != nil {
		return err
	}
	daemon := lab.Exec(nil, n.Program, "node", "--config", n.Config)
	daemon.Output = os.Stderr
	if err := daemon.Start(); err != nil {
		return err
	}
	defer daemon.Kill()
	if err := n.awaitDaemon(daemon); err != nil {
		return err
	}
	addrs := map[string][]netip.Addr{}
	if n.Kubelet != nil {
		stop, err := n.Kubelet.start(n.plan)
		if err != nil {
			return err
		}
		defer stop()
		n.Pods = nil
	}
	for _, name := range n.Pods {
		a, err := n.add(name)
		if err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
		addrs[name] = a
	}
	n.tell(answer{Pods: addrs})
	n.obey()
	for _, s := range n.pods {
		if err := n.cni.DelNetworkList(context.Background(), n.list, s.conf); err != nil {
			return err
		}
	}
	return daemon.Stop(10 * time.Second)
}

// prepare makes the node's own network: loopback with the machine's addresses.
func (n *containerRuntime) prepare() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, a := range n.Addrs {
		addr, err := netlink.ParseAddr(netip.PrefixFrom(a, a.BitLen()).String())
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(lo)
}

// awaitDevice waits for the way out, and gives it its address.
func (n *containerRuntime) awaitDevice() error {
	if n.Device == "" {
		return nil
	}
	link, err := netlink.LinkByName(n.Device)
	for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		link, err = netlink.LinkByName(n.Device)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n.Device, err)
	}
	own, err := netlink.ParseAddr(n.Own.String())
	if err != nil {
		return err
	}
	return errors.Join(
		netlink.AddrAdd(link, own), netlink.LinkSetUp(link),
		netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: n.Gateway.AsSlice()}),
	)
}

// awaitDaemon waits until pods can be added, as a runtime does by STATUS.
func (n *containerRuntime) awaitDaemon(daemon *lab.Process) error {
	var err error
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		select {
		case <-daemon.Done():
			return daemon.Wait()
		default:
		}
		if err = n.cni.GetStatusNetworkList(context.Background(), n.list); err == nil {
			return nil
		}
	}
	return err
}

// add makes a pod that serves HTTP on port 8080, and echo on port 7.
func (n *containerRuntime) add(name string) (addrs []netip.Addr, err error) {
	ns, err := lab.NewNamespace(name)
	if err != nil {
		return nil, err
	}
	s := &sandbox{ns, &libcni.RuntimeConf{ContainerID: name, NetNS: ns.Path(), IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", name}, {"K8S_POD_UID", "uid-" + name},
	}}}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	r, err := n.cni.AddNetworkList(ctx, n.list, s.conf)
	if err != nil {
		return nil, err
	}
	result, err := types100.NewResultFromResult(r)
	if err != nil {
		return nil, err
	}
	for _, ip := range result.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		addrs = append(addrs, a.Unmap())
	}
	n.pods[name] = s
	server := lab.Exec(ns, n.Program, "tool", "serve", "--listen", ":8080", "--listen", "tcp://:7", "--listen", "udp://:7")
	server.Output = os.Stderr
	return addrs, server.Start()
}

func (n *containerRuntime) tell(a answer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	_ = n.out.Encode(a) // who started this has gone where it fails
}

// obey runs what it is asked to, several at a time, until the input ends.
func (n *containerRuntime) obey() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			n.tell(answer{Code: -1, Output: err.Error()})
			continue
		}
		go func() { n.tell(n.do(o)) }()
	}
}

func (n *containerRuntime) do(o order) answer {
	var ns *lab.Namespace
	if s := n.pods[o.Pod]; s != nil {
		ns = s.ns
	}
	p := lab.Exec(ns, append([]string{n.Program}, o.Args...)...)
	err := p.Start()
	if err == nil {
		err = p.Wait()
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return answer{ID: o.ID, Output: p.Tail()}
	case errors.As(err, &exit):
		return answer{ID: o.ID, Code: exit.ExitCode(), Output: p.Tail()}
	}
	return answer{ID: o.ID, Code: -1, Output: err.Error()}
}

// install puts the plugin where a runtime finds it.
func (p *plan) install() error {
	if err := os.MkdirAll(p.Plugins, 0o755); err != nil {
		return err
	}
	return os.Symlink(p.Program, filepath.Join(p.Plugins, cni.PluginName))
}
