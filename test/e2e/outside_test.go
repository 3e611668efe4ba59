package e2e

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// TestOutside: the daemons' sockets are in the machine's own namespace, whoever runs them, also after a daemon was killed.
func TestOutside(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Outside: true})
	check := func() {
		t.Helper()
		near, far := cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
		for _, dst := range []netip.Addr{far.Addr4, far.Addr6, cl.Nodes[0].Pods[1].Addr4, lab.NodeAddr4(1).Addr(), lab.NodeAddr4(2).Addr()} {
			mustPing(t, near.Namespace, dst, 56)
		}
		mustPing(t, cl.Nodes[0].Namespace, far.Addr4, 1400)
		mustPing(t, cl.Nodes[0].Namespace, lab.NodeAddr4(2).Addr(), 56)
		x := transfer{from: near.Namespace, to: far.Namespace, addr: far.Addr4, size: 16 << 20}
		t.Log(x.start(t).wait(t))
		for i, n := range cl.Nodes {
			st := mustStatus(t, n)
			if !st.Address.IsLoopback() || st.Underlay.Interface != "lo" || st.Underlay.Sockets == "" || st.MTU != 1450 {
				t.Errorf("node %d: %v, %+v, MTU %d", i+1, st.Address, st.Underlay, st.MTU)
			}
			at := netip.AddrPortFrom(st.Address, 8472)
			if !udpSocketOf(t, os.Getppid(), at) {
				t.Errorf("node %d: no UDP socket %v in the machine's namespace", i+1, at)
			}
			if udpSocketOf(t, n.Daemon().PID(), at) {
				t.Errorf("node %d: its UDP socket %v is in its own namespace", i+1, at)
			}
		}
	}
	check()
	for _, n := range cl.Nodes {
		killAndStart(t, n)
	}
	check()
}

// udpSocketOf tells whether a UDP socket is bound to an IPv4 address in the network namespace of a process.
func udpSocketOf(t *testing.T, pid int, a netip.AddrPort) bool {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/udp", pid))
	if err != nil {
		t.Fatal(err)
	}
	ip := a.Addr().As4()
	return strings.Contains(string(b), fmt.Sprintf(": %08X:%04X ", binary.NativeEndian.Uint32(ip[:]), a.Port()))
}

// TestOutsideTwice: two clusters on one machine, with the same pods' addresses, do not meet.
func TestOutsideTwice(t *testing.T) {
	var asked []func() error
	seen := map[netip.Addr]bool{}
	vnis := map[any]bool{}
	for i := range 2 {
		cl := newCluster(t, lab.ClusterConfig{Outside: true, Pods: []int{1, 1}})
		asked = append(asked, serveMark(t, cl, strconv.Itoa(i)))
		for _, n := range cl.Nodes {
			seen[n.Config.Address], vnis[n.Config.VXLAN.VNI] = true, true
		}
	}
	if len(seen) != 4 || len(vnis) != 2 {
		t.Errorf("addresses %v, network identifiers %v: want four and two", seen, vnis)
	}
	for range 20 {
		for _, ask := range asked {
			if err := ask(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// serveMark serves a word in the pod of the cluster's second node, and returns what asks for it from the pod of the first.
func serveMark(t *testing.T, cl *lab.Cluster, mark string) (ask func() error) {
	t.Helper()
	from, to := cl.Nodes[0].Pods[0], cl.Nodes[1].Pods[0]
	at := netip.AddrPortFrom(to.Addr4, 8000).String()
	l, err := to.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, mark)
			c.Close()
		}
	}()
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c, err := from.Dial(ctx, "tcp", at)
		if err != nil {
			return err
		}
		defer c.Close()
		got, err := io.ReadAll(c)
		if err == nil && string(got) != mark {
			err = fmt.Errorf("reached the pod of %q, want %q", got, mark)
		}
		return err
	}
}

// TestOutsideTwoUsers is TestOutsideTwice with clusters of two users, each in a user namespace of its own, on one machine: this
// test's namespace.
func TestOutsideTwoUsers(t *testing.T) {
	if ordinaryUser() {
		t.Skip("an ordinary user cannot become another one")
	}
	type user struct {
		*lab.Process
		input *io.PipeWriter
	}
	var users []user
	for _, uid := range []string{"20211", "20212"} {
		r, w := io.Pipe()
		p := lab.Command(nil, "as-user", uid, "-test.run=^TestOutsideUser$", "-test.v")
		p.Env = []string{"MIDDLEWAY_OUTSIDE_USER=" + uid, lab.RequireVar + "=1"}
		p.Input, p.Dir = r, "/"
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close(); p.Kill() })
		users = append(users, user{p, w})
	}
	says := func(u user, word string) {
		t.Helper()
		for end := time.Now().Add(60 * time.Second); !strings.Contains(u.Tail(), word); time.Sleep(5 * time.Millisecond) {
			select {
			case <-u.Done():
				t.Fatalf("ended before it said %q:\n%s", word, u.Tail())
			default:
			}
			if time.Now().After(end) {
				t.Fatalf("does not say %q:\n%s", word, u.Tail())
			}
		}
	}
	for _, u := range users {
		says(u, "ready")
	}
	for _, u := range users { // both clusters are there
		fmt.Fprintln(u.input, "go")
	}
	for _, u := range users {
		says(u, "reached only its own")
	}
	for _, u := range users { // only now may one of them end
		u.input.Close()
		if err := u.Wait(); err != nil {
			t.Errorf("%v\n%s", err, u.Tail())
		}
	}
	first, second := tunnelAddrs(users[0].Tail()), tunnelAddrs(users[1].Tail())
	t.Logf("the first user's nodes: %s; the second's: %s", first, second)
	if first == "" || first == second {
		t.Errorf("both users' nodes have the addresses %q", first)
	}
}

func tunnelAddrs(text string) string {
	_, rest, _ := strings.Cut(text, "ready ")
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

// TestOutsideUser is what each of the two users runs.
func TestOutsideUser(t *testing.T) {
	mark := os.Getenv("MIDDLEWAY_OUTSIDE_USER")
	if mark == "" {
		t.Skip("only for TestOutsideTwoUsers")
	}
	cl := newCluster(t, lab.ClusterConfig{Outside: true, Pods: []int{1, 1}})
	ask := serveMark(t, cl, mark)
	fmt.Println("ready", cl.Nodes[0].Config.Address, cl.Nodes[1].Config.Address)
	input := bufio.NewReader(os.Stdin)
	if _, err := input.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		mustPing(t, cl.Nodes[0].Pods[0].Namespace, cl.Nodes[1].Pods[0].Addr6, 56)
	}
	fmt.Println("reached only its own")
	_, _ = input.ReadString('\n') // until the other one is ready too
}

// asUser runs this program with the arguments behind the first as the user whose number that is, with a /dev/net/tun for all.
func asUser(args []string) int {
	runtime.LockOSThread()
	uid, err := strconv.Atoi(args[0])
	if err == nil {
		err = errors.Join(
			unix.Unshare(unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=0755"),
			unix.Mknod("/dev/net/tun", unix.S_IFCHR, int(unix.Mkdev(10, 200))),
			os.Chmod("/dev/net/tun", 0o666),
		)
	}
	if err == nil {
		cmd := exec.Command("/proc/self/exe", args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)},
			Pdeathsig:  syscall.SIGKILL,
		}
		err = cmd.Run()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}
