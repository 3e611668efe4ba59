package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack"
)

func TestPrintStatus(t *testing.T) {
	minute := time.Now().Add(-time.Minute)
	var b strings.Builder
	printStatus(&b, node.Status{
		Name: "node-1", MTU: 1450, Started: minute,
		Host: node.HostStatus{Device: "mw0", Missing: "mw0 is gone"}, Stack: stack.Stats{Attachments: 1, Lost: []string{"default/web"}},
		Offloads: map[string]node.Offload{"tso": {State: "on"}, "uso": {State: "missing", Why: "the kernel's TUN devices do not have it"}},
		Peers: []node.PeerStatus{
			{Name: "node-2", Address: netip.MustParseAddr("192.168.254.12"), State: "up", Since: minute, RTT: node.Duration(250 * time.Microsecond), MTU: 1450, Trains: true, RemoteChecksum: true},
			{Name: "node-13", Address: netip.MustParseAddr("192.168.254.23"), State: "unknown", Since: minute, MTU: 1450, Why: "has not answered yet"},
		},
	})
	for _, want := range []string{
		"\npods      1\nlost      default/web: somebody has removed its interface\nhost      mw0 with ",
		"\nmissing   mw0 is gone\n",
		"\noffload   tso            on\n",
		"\noffload   uso            missing the kernel's TUN devices do not have it\n",
		"\npeers     2\n",
		"\nPEER     ADDRESS         STATE    FOR   RTT    MTU   TRAINS  CHECKSUMS  NOTE\n",
		"\nnode-2   192.168.254.12  up       1m0s  250µs  1450  yes     peer       \n",
		"\nnode-13  192.168.254.23  unknown  1m0s  -      1450  no      here       has not answered yet\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	b.Reset()
	if printStatus(&b, node.Status{}); !strings.HasSuffix(b.String(), "peers     0\n") {
		t.Errorf("without peers:\n%s", b.String())
	}
}

func TestPrintCluster(t *testing.T) {
	now := time.Now()
	st := playground.Status{
		State: playground.Running, Dir: "/run/x", PID: 7, Started: now.Add(-time.Minute), Underlay: "the kernel's veth",
		Nodes: []playground.NodeStatus{
			{Name: "node-1", Ready: true, MTU: 1450, PID: 8, Started: now.Add(-90 * time.Second), Addresses: []netip.Addr{netip.MustParseAddr("192.168.254.11")},
				PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}},
			{Name: "node-2", MTU: 1450, PID: 9, Message: "the daemon does not answer; pid 9"},
		},
	}
	want := `cluster in /run/x, running, pid 7, up 1m0s, joined by the kernel's veth

NODE    READY  ADDRESSES       POD RANGES     MTU   PID  RESTARTS  AGE  MESSAGE
node-1  yes    192.168.254.11  10.244.1.0/24  1450  8    0         90s
node-2  no                                    1450  9    0         -    the daemon does not answer; pid 9
`
	check := func() {
		t.Helper()
		var b strings.Builder
		if err := printCluster(&b, st); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, b.String()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	check()
	st.Pods = []playground.PodStatus{
		{Namespace: "default", Name: "web", Phase: "Running", Status: "Running", Node: "node-1", Started: now.Add(-5 * time.Minute)},
		{Namespace: "default", Name: "c", Phase: "Failed", Status: "Error", Node: "node-2", Started: now.Add(-50 * time.Hour),
			Containers: []playground.ContainerStatus{
				{Name: "main", State: playground.ContainerTerminated, Restarts: 2, Message: "exit code 3: why"},
				{Name: "other", State: playground.ContainerRunning, Ready: true},
			}},
	}
	want += `
POD          READY  STATUS   NODE    IPS  RESTARTS  AGE  MESSAGE
default/web  0/0    Running  node-1       0         5m
default/c    1/2    Error    node-2       2         2d   main: exit code 3: why
`
	check()
}
