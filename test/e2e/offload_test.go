package e2e

import (
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// TestOffloads turns each offload off, and all of them: packets of all kinds arrive all the same, between nodes and on one, and
// the status says what is off.
func TestOffloads(t *testing.T) {
	for _, tt := range []struct {
		name string
		off  node.Offloads
		want []string // that the status shows as off
	}{
		{"all on", node.Offloads{}, nil},
		{"udpSegment", node.Offloads{UDPSegment: node.Off}, []string{"udpSegment"}},
		{"udpGRO", node.Offloads{UDPGRO: node.Off}, []string{"udpGRO"}},
		{"tso", node.Offloads{TSO: node.Off}, []string{"tso"}},
		{"uso", node.Offloads{USO: node.Off}, []string{"uso"}},
		{"checksum", node.Offloads{Checksum: node.Off}, []string{"checksum", "tso", "uso"}},
		{"remoteChecksum", node.Offloads{RemoteChecksum: node.Off}, []string{"remoteChecksum"}},
		{"all off", node.Offloads{
			UDPSegment: node.Off, UDPGRO: node.Off, TSO: node.Off, USO: node.Off, Checksum: node.Off, RemoteChecksum: node.Off,
		}, []string{"udpSegment", "udpGRO", "remoteChecksum", "checksum", "tso", "uso"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cl := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}, Change: func(number int, c *node.Config) {
				if number == 1 {
					c.Offloads = tt.off
				}
			}})
			testOffloads(t, cl, tt.want)
		})
	}
}

func testOffloads(t *testing.T, cl *lab.Cluster, off []string) {
	st := mustStatus(t, cl.Nodes[0])
	for name, o := range st.Offloads {
		want := "on"
		for _, n := range off {
			if n == name {
				want = "off"
			}
		}
		if name == "uso" && o.State == "missing" { // Linux has it since 6.2
			want = "missing"
		}
		if o.State != want || (o.Why == "") != (want == "on") {
			t.Errorf("%s: %+v, want %s", name, o, want)
		}
	}
	if len(st.Offloads) != 6 {
		t.Errorf("%d offloads in the status: %v", len(st.Offloads), st.Offloads)
	}
	one, two, far := cl.Nodes[0].Pods[0], cl.Nodes[0].Pods[1], cl.Nodes[1].Pods[0]
	for _, x := range []struct{ from, to *lab.Pod }{{one, two}, {one, far}, {far, one}} {
		const size = 8 << 20
		transfer{from: x.from.Namespace, to: x.to.Namespace, addr: x.to.Addr4, size: size, timeout: time.Minute}.run(t)
		transfer{from: x.from.Namespace, to: x.to.Namespace, addr: x.to.Addr6, size: size, timeout: time.Minute}.run(t)
		echoUDP(t, x.from.Namespace, x.to.Namespace, x.to.Addr4, []int{1, 1000, st.MTU - 28})
		segmentsUDP(t, x.from.Namespace, x.to.Namespace, x.to.Addr6, 1000)
	}
	// Through the node's own netstack too, which hands super-packets over.
	mustPing(t, one.Namespace, host(lab.PodCIDR4(1), 1), 1000)
	for _, n := range cl.Nodes {
		if d := dropsOf(t, n); d.sum() != d["scope"] {
			t.Errorf("drops of %s: %v", n.Name(), d)
		}
	}
}
