package trace

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack"
)

func tuple(proto, src, dst string) stack.Tuple {
	return stack.Tuple{Protocol: proto, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

// acrossNodes is a request for a Service whose backend is on another node.
func acrossNodes() *Trace {
	asked, leaves := tuple("tcp", "10.244.1.2:49152", "10.96.0.80:80"), tuple("tcp", "10.244.1.2:49152", "10.244.2.2:8080")
	backends := []netip.AddrPort{netip.MustParseAddrPort("10.244.1.3:8080"), leaves.Dst}
	return &Trace{
		From: "shop/visitor", To: "front:80", Verdict: "forwarded", Ends: "pod shop/front-2",
		Hops: []node.TraceHop{
			{
				Node: "node-1", Names: []node.NameLookup{{
					Name: "front.shop.svc.cluster.local.", Type: "A", Code: "NOERROR", Answers: []string{"front.shop.svc.cluster.local. A 10.96.0.80"},
				}},
				Trace: &stack.Trace{Packet: asked, Verdict: "forwarded", To: "peer 192.168.254.12", LeavesAs: &leaves, Steps: []stack.Step{
					{Stage: stack.StageSource, Text: "from pod shop/visitor, as 10.244.1.2", Why: "the pod has the address"},
					{Stage: stack.StageService, Text: "Service shop/front:http: 10.244.2.2:8080 of 2 backends, by random", Why: "ready", Service: &stack.TracedService{
						Name: "shop/front:http", Backends: backends, Rule: "ready", Chosen: leaves.Dst, Scheduler: "random",
					}},
					{Stage: stack.StageTranslate, Text: "becomes 10.244.1.2:49152 -> 10.244.2.2:8080", Packet: &leaves},
					{Stage: stack.StageRoute, Text: "10.244.2.2 is peer 192.168.254.12", Route: netip.MustParsePrefix("10.244.2.0/24")},
					{Stage: stack.StageTunnel, Text: "sent to peer 192.168.254.12 through the tunnel", Packet: &leaves, Length: 40},
				}},
				Peer: netip.MustParseAddr("192.168.254.12"), PeerName: "node-2", TTL: 63,
			},
			{Node: "node-2", Trace: &stack.Trace{Packet: leaves, Verdict: "forwarded", To: "pod shop/front-2", LeavesAs: &leaves, Steps: []stack.Step{
				{Stage: stack.StageDevice, Text: "written to the device of pod shop/front-2", Packet: &leaves, Length: 40},
			}}},
		},
	}
}

func TestWrite(t *testing.T) {
	refused := tuple("tcp", "10.244.1.2:49152", "10.96.0.80:81")
	for _, tt := range []struct {
		name  string
		trace *Trace
		want  string
	}{
		{"across nodes", acrossNodes(), `
shop/visitor asks front:80
┌─ node-1 ──────────────────────────────────────────────────────
│ name       front.shop.svc.cluster.local. A 10.96.0.80
│            NOERROR from the cluster's DNS, on this node
│ packet     tcp 10.244.1.2:49152 → 10.96.0.80:80
│ source     from pod shop/visitor, as 10.244.1.2
│            the pod has the address
│ service    Service shop/front:http: 10.244.2.2:8080 of 2
│            backends, by random
│            ready; to choose from: 10.244.1.3:8080,
│            10.244.2.2:8080
│ translate  becomes 10.244.1.2:49152 → 10.244.2.2:8080
│ route      10.244.2.2 is peer node-2, 192.168.254.12
│            route 10.244.2.0/24
│ tunnel     sent to peer node-2, 192.168.254.12 through the
│            tunnel
└─→ node-2 ─────────────────────────────────────────────────────
│ device     written to the device of pod shop/front-2
└─→ pod shop/front-2: tcp 10.244.1.2:49152 → 10.244.2.2:8080
`},
		{"refused", &Trace{From: "a/b", To: "c:81", Notes: []string{"a note"}, Verdict: "dropped", Reason: "service-port", Hops: []node.TraceHop{{
			Node: "node-1", Trace: &stack.Trace{Packet: refused, Steps: []stack.Step{
				{Stage: stack.StageDrop, Text: "the Service has no such port", Why: "service-port"},
				{Stage: stack.StageAnswer, Text: "a reset", Answer: true},
				{Stage: stack.StageDevice, Text: "written to the device", Answer: true},
			}},
		}}}, `
a/b asks c:81
a note
┌─ node-1 ──────────────────────────────────────────────────────
│ packet     tcp 10.244.1.2:49152 → 10.96.0.80:81
│ drop       the Service has no such port (service-port)
│ answer     a reset
│ ← device   written to the device
└─ dropped: service-port
`},
		{"no address", &Trace{From: "a/b", To: "none", Verdict: NoAddress, Hops: []node.TraceHop{{Node: "node-1", Names: []node.NameLookup{
			{Name: "none.a.svc.cluster.local.", Type: "A", Code: "NXDOMAIN"},
		}}}}, `
a/b asks none
┌─ node-1 ──────────────────────────────────────────────────────
│ name       none.a.svc.cluster.local. has no A
│            NXDOMAIN from the cluster's DNS, on this node
└─ no address: the name leads nowhere, and nothing is sent
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if err := tt.trace.Write(&b, Style{Width: 64}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(tt.want, "\n")[1:], strings.Split(b.String(), "\n")); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}

// Without its colours a trace is what it is without any.
func TestWriteColor(t *testing.T) {
	var plain, color strings.Builder
	for b, s := range map[*strings.Builder]Style{&plain: {}, &color: {Paint: func(style, s string) string { return "\x1b[" + style + "m" + s + "\x1b[0m" }}} {
		if err := acrossNodes().Write(b, s); err != nil {
			t.Fatal(err)
		}
	}
	text := color.String()
	if !strings.Contains(text, "\x1b[1mnode-1\x1b[0m") {
		t.Errorf("got %q, want the node in bold", text)
	}
	for _, style := range []string{bold, faint, red, green, yellow, cyan, "0"} {
		text = strings.ReplaceAll(text, "\x1b["+style+"m", "")
	}
	if text != plain.String() {
		t.Errorf("got\n%s\nwant\n%s", text, plain.String())
	}
}
