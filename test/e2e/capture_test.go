package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// counts are what a node counts of packets.
type counts struct {
	Forwarded, Errors uint64
	Drops             drops
}

func countsOf(t *testing.T, n *lab.Node) counts {
	st := mustStatus(t, n).Stack
	return counts{st.Packets, st.ICMPErrors, maps.Clone(drops(st.Drops))}
}

func (c counts) minus(before counts) counts {
	return counts{c.Forwarded - before.Forwarded, c.Errors - before.Errors, c.Drops.minus(before.Drops)}
}

// capturing is `middleway capture` of one node, under way.
type capturing struct {
	node   *lab.Node
	file   string
	cmd    *exec.Cmd
	stderr *bufio.Reader
}

// startCapture returns when the node's daemon captures.
func startCapture(t *testing.T, n *lab.Node, args ...string) *capturing {
	t.Helper()
	c := &capturing{node: n, file: filepath.Join(t.TempDir(), n.Name()+".pcapng")}
	c.cmd = exec.Command(middleway(t), append([]string{"capture", "--run-dir", n.Config.RunDir, "-w", c.file, "--snaplen", "128"}, args...)...)
	pipe, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			c.cmd.Process.Kill()
			c.cmd.Wait()
		}
	})
	c.stderr = bufio.NewReader(pipe)
	if line, err := c.stderr.ReadString('\n'); err != nil || !strings.HasPrefix(line, "capturing at ") {
		t.Fatalf("%s: %q, %v", n.Name(), line, err)
	}
	return c
}

// stop ends it as Ctrl-C does, and returns what it said last.
func (c *capturing) stop(t *testing.T) string {
	t.Helper()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	last, err := io.ReadAll(c.stderr)
	if err := errors.Join(err, c.cmd.Wait()); err != nil {
		t.Fatalf("%s: %v\n%s", c.node.Name(), err, last)
	}
	return string(last)
}

// comments returns the comments of a file by a reader that is not ours, and where each packet was seen.
func comments(t *testing.T, file string) (all, interfaces []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for {
		_, info, options, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return all, interfaces
		}
		if err != nil {
			t.Fatal(err)
		}
		i, err := r.Interface(info.InterfaceIndex)
		if err != nil || len(options.Comments) != 1 {
			t.Fatalf("packet %d: %v, comments %q", len(all), err, options.Comments)
		}
		all, interfaces = append(all, options.Comments[0]), append(interfaces, i.Name)
	}
}

// verdicts are the comments that are counted: see capture.Record.Comment.
var verdicts = regexp.MustCompile(`^(?:(forwarded) to [^;]*?(?: in (\d+) pieces)?|(dropped): ([a-z-]+)(?:, (\d+) pieces)?|held|taken|sent(?:, from .*)?)(?:;|$)`)

// tallied returns what comments say about counters.
func tallied(t *testing.T, comments []string) counts {
	t.Helper()
	c := counts{Drops: drops{}}
	number := func(s string) uint64 {
		if s == "" {
			return 1
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return uint64(n)
	}
	for _, comment := range comments {
		m := verdicts.FindStringSubmatch(comment)
		switch {
		case m == nil:
			t.Fatalf("no verdict: %s", comment)
		case m[1] != "":
			c.Forwarded += number(m[2])
		case m[3] != "":
			c.Drops[m[4]] += number(m[5])
		}
		if strings.HasSuffix(comment, "; ICMP error of this node") && !strings.HasPrefix(comment, "sent") {
			c.Errors++
		}
	}
	return c
}

// The comments of a capture are, packet for packet, what the nodes count: forwarded within a node, between nodes, to the netstack and
// the host; whole, merged, in fragments; dropped by all reasons that pods and peers can cause; and the nodes' own errors.
func TestCaptureEqualsCounters(t *testing.T) {
	s := newStage(t)
	for _, r := range s.going {
		r.stop()
		r.wait(t)
	}
	s.going = nil
	nodes := s.cluster.Nodes
	traffic := captureTraffic(t, s)
	// What pods' kernels send by themselves must not come while one of capture and counters has begun and the other not.
	for try := 1; ; try++ {
		before := make([]counts, len(nodes))
		captures := make([]*capturing, len(nodes))
		for i, n := range nodes {
			before[i] = countsOf(t, n)
			captures[i] = startCapture(t, n)
		}
		quiet := true
		for i, n := range nodes {
			quiet = quiet && cmp.Equal(before[i], countsOf(t, n))
		}
		if quiet {
			traffic()
		}
		after := make([]counts, len(nodes))
		lost := false
		for i, n := range nodes {
			after[i] = countsOf(t, n)
			lost = !strings.HasSuffix(captures[i].stop(t), "none was lost\n") || lost
			quiet = quiet && cmp.Equal(after[i], countsOf(t, n))
		}
		if (lost || !quiet) && try < 8 && !t.Failed() {
			t.Logf("once more: lost %v, quiet %v", lost, quiet)
			continue
		}
		if lost || !quiet {
			t.Fatalf("lost %v, quiet %v", lost, quiet)
		}
		mustAgree(t, nodes[0], captures[0].file, after[0].minus(before[0]), "pod-1-1", "pod-1-2", "mw0", "gateway", "tunnel")
		mustAgree(t, nodes[1], captures[1].file, after[1].minus(before[1]), "pod-2-1", "tunnel")
		return
	}
}

// mustAgree compares a file with what its node has counted meanwhile, and with what tshark reads. Packets must have been seen at
// interfaces.
func mustAgree(t *testing.T, n *lab.Node, file string, want counts, at ...string) {
	t.Helper()
	all, interfaces := comments(t, file)
	seen := slices.Clone(interfaces)
	if diff := cmp.Diff(want, tallied(t, all)); diff != "" {
		t.Errorf("%s (-counters +comments):\n%s", n.Name(), diff)
	}
	t.Logf("%s: %d records, %d forwarded, %d errors, dropped %v", n.Name(), len(all), want.Forwarded, want.Errors, want.Drops)
	slices.Sort(seen)
	for _, want := range at {
		if want = n.Name() + "/" + want; !slices.Contains(seen, want) {
			t.Errorf("nothing was seen at %s, only at %v", want, slices.Compact(seen))
		}
	}
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Log("tshark is not installed: only our own reading of the file was compared")
		return
	}
	out, err := exec.Command(tshark, "-r", file, "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment").Output()
	if err != nil {
		t.Fatal(err)
	}
	var ours bytes.Buffer
	for i := range all {
		fmt.Fprintf(&ours, "%s\t%s\n", interfaces[i], all[i])
	}
	if diff := cmp.Diff(strings.Split(ours.String(), "\n"), strings.Split(string(out), "\n")); diff != "" {
		t.Errorf("%s (-file +tshark):\n%s", n.Name(), diff)
	}
}

// captureTraffic returns what makes traffic of every kind, and returns when it is over.
func captureTraffic(t *testing.T, s *stage) func() {
	pod, beside, far := s.node.Pods[0], s.node.Pods[1], s.cluster.Nodes[1].Pods[0]
	stranger := netip.MustParseAddr("192.168.254.99")
	if err := s.peers[0].AddAddr("eth0", netip.PrefixFrom(stranger, 24)); err != nil {
		t.Fatal(err)
	}
	kinds := slices.Concat(podKinds(t, s), wireKinds(s,
		newWire(t, s.peers[0], lab.NodeAddr4(3).Addr(), s.node), newWire(t, s.peers[1], lab.NodeAddr4(4).Addr(), s.node), newWire(t, s.peers[0], stranger, s.node)))
	fd := packetSocket(t, pod.Namespace, 0)
	setMTU(t, pod.Namespace, 4000) // more than the ways take
	write := func(b []byte) {
		if _, err := unix.Write(fd, b); err != nil {
			t.Fatal(err)
		}
	}
	id := uint32(0)
	return func() {
		f := flood{node: s.node, burst: 32}
		for _, k := range kinds {
			f.run(t, 20, k)
		}
		for _, to := range []*lab.Pod{beside, far} {
			for _, dst := range []netip.Addr{to.Addr4, to.Addr6} {
				mustPing(t, pod.Namespace, dst, 56)
				echoUDP(t, pod.Namespace, to.Namespace, dst, []int{1, 1200})
				segmentsUDP(t, pod.Namespace, to.Namespace, dst, 1000)
				transfer{from: pod.Namespace, to: to.Namespace, addr: dst, size: 1 << 20, rate: 20e6}.run(t)
				transfer{from: to.Namespace, to: pod.Namespace, addr: map[bool]netip.Addr{true: pod.Addr4, false: pod.Addr6}[dst.Is4()], size: 1 << 20, rate: 20e6}.run(t)
			}
			write(flow{pod.Addr4, to.Addr4}.udp(3000)) // may be cut
			mustPing(t, s.node.Namespace, to.Addr4, 2000)
			id++
			pieces := packettest.Fragments(packettest.Packet{Src: pod.Addr4, Dst: to.Addr4, DstPort: 9, ID: uint16(id), Payload: make([]byte, 4000)}.Frame()[packet.VnetLen:], 1400, id)
			slices.Reverse(pieces)
			for _, b := range pieces {
				write(b)
			}
		}
		mustPing(t, pod.Namespace, host(lab.PodCIDR4(1), 1), 56)
		mustPing(t, far.Namespace, host(lab.PodCIDR6(1), 1), 3000)
		before := dropsOf(t, s.node)["fragment-timeout"]
		id++
		alone := packettest.Fragments(packettest.Packet{Src: pod.Addr4, Dst: far.Addr4, ID: uint16(id), Payload: make([]byte, 4000)}.Frame()[packet.VnetLen:], 1400, id)[1]
		write(alone)
		eventually(t, "the fragment is dropped", func() bool { return dropsOf(t, s.node)["fragment-timeout"] > before })
		settle(t, s.cluster.Nodes)
	}
}

// settle waits until nothing was counted for a while.
func settle(t *testing.T, nodes []*lab.Node) {
	t.Helper()
	look := func() (all []counts) {
		for _, n := range nodes {
			all = append(all, countsOf(t, n))
		}
		return all
	}
	last, since := look(), time.Now()
	eventually(t, "packets end", func() bool {
		if now := look(); !cmp.Equal(now, last) {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

// A client that dies, or reads nothing, ends its capture alone; more than there may be are refused; what is asked for wrongly is told.
func TestCaptureClients(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{2}})
	n := cl.Nodes[0]
	run := func(args ...string) (string, error) {
		out, err := exec.Command(middleway(t), append([]string{"capture", "--run-dir", n.Config.RunDir}, args...)...).CombinedOutput()
		return string(out), err
	}
	for _, tt := range []struct{ args, want string }{
		{"nobody", `node-1 has no interface "nobody"; it has `},
		{"--host 10.244.1", "want an address like"}, {"--proto x", "want tcp, udp"}, {"--port 0", "want 1 to 65535"}, {"-o yaml", "want text or json"},
	} {
		if out, err := run(strings.Fields(tt.args)...); err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %q, %v", tt.args, out, err)
		}
	}
	var all []*capturing
	for range 8 {
		all = append(all, startCapture(t, n))
	}
	if out, err := run("-c", "1"); err == nil || !strings.Contains(out, "8 captures of this node are under way") {
		t.Errorf("a ninth: %q, %v", out, err)
	}
	killed, stopped, kept := all[0], all[1], all[2]
	if err := errors.Join(killed.cmd.Process.Kill(), stopped.cmd.Process.Signal(syscall.SIGSTOP)); err != nil {
		t.Fatal(err)
	}
	killed.cmd.Wait()
	for _, c := range all[3:] {
		c.stop(t)
	}
	eventually(t, "there is room for another", func() bool {
		_, err := run("pod-1-1", "--duration", "1ms")
		return err == nil
	})
	mustPing(t, n.Pods[0].Namespace, n.Pods[1].Addr4, 56)
	if out := kept.stop(t); !strings.Contains(out, "none was lost") {
		t.Error(out)
	}
	echoes := 0
	packets, _ := comments(t, kept.file)
	for _, c := range packets {
		if strings.HasPrefix(c, "forwarded to pod ") && strings.Contains(c, "; icmp 10.244.1.") {
			echoes++
		}
	}
	if echoes != 2 {
		t.Errorf("got %d packets of a ping: %q", echoes, packets)
	}
	if err := stopped.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	stopped.stop(t)
	mustPing(t, n.Pods[0].Namespace, n.Pods[1].Addr4, 56)
}

// Filters are the daemon's: only what is asked for is in the file.
func TestCaptureFilters(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	n, far := cl.Nodes[0], cl.Nodes[1].Pods[0]
	pod, beside := n.Pods[0], n.Pods[1]
	for _, tt := range []struct{ args, want string }{
		{"--proto udp --host " + far.Addr4.String(), `; udp .*10\.244\.2\.2`},
		{"--proto icmp", `; icmp `},
		{"--proto icmpv6 --host fd00:10:244:1::/64", `; icmpv6 .*fd00:10:244:1:`},
		{"--drops --host 203.0.113.1", `^dropped: no-route; answered: net unreachable; .*203\.0\.113\.1`},
		{"tunnel --proto udp", `; udp `},
	} {
		t.Run(tt.args, func(t *testing.T) {
			c := startCapture(t, n, strings.Fields(tt.args)...)
			for _, to := range []*lab.Pod{beside, far} {
				echoUDP(t, pod.Namespace, to.Namespace, to.Addr4, []int{100})
				mustPing(t, pod.Namespace, to.Addr4, 56)
				mustPing(t, pod.Namespace, to.Addr6, 56)
			}
			if conn, err := pod.Dial(t.Context(), "udp", "203.0.113.1:9"); err == nil {
				conn.Write([]byte("x"))
				conn.Close()
			}
			settle(t, cl.Nodes[:1])
			c.stop(t)
			all, interfaces := comments(t, c.file)
			if len(all) == 0 {
				t.Error("nothing was captured")
			}
			for i, comment := range all {
				if !regexp.MustCompile(tt.want).MatchString(comment) || strings.HasPrefix(tt.args, "tunnel") && interfaces[i] != "node-1/tunnel" {
					t.Errorf("%s: %s", interfaces[i], comment)
				}
			}
		})
	}
}
