package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

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
