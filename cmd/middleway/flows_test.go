package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/node"
)

func TestFlowsRequest(t *testing.T) {
	f := flowsFlags{
		namespace: "shop", services: []string{"web", "bank/gate:http"}, from: []string{"visitor", "10.244.9.9"}, to: []string{"10.96.3.4/16", "default/web-1"},
		pods: podsOf([]playground.PodStatus{
			{Namespace: "shop", Name: "visitor", IPs: []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00:10:244:1::2")}},
			{Namespace: "default", Name: "web-1", IPs: []netip.Addr{netip.MustParseAddr("10.244.2.2")}},
		}),
	}
	got, err := f.request()
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, list := range [][]netip.Prefix{got.From, got.To} {
		for _, p := range list {
			words = append(words, p.String())
		}
	}
	want := "10.244.1.2/32 fd00:10:244:1::2/128 10.244.9.9/32 10.96.0.0/16 10.244.2.2/32 shop/web bank/gate:http"
	if text := strings.Join(append(words, got.Services...), " "); text != want {
		t.Errorf("got %s\nwant %s", text, want)
	}
	for _, word := range []string{"web-1", "10.244.1", "fe80::1%eth0", "::ffff:10.96.0.0/112", ""} {
		f := flowsFlags{namespace: "shop", to: []string{word}, pods: f.pods}
		if _, err := f.request(); err == nil || !strings.Contains(err.Error(), "--to \""+word+"\": want an address like 10.244.1.2") {
			t.Errorf("%q: got %v", word, err)
		}
	}
}

// someFlows are one through a Service to another node, one of the host, and one that nothing translates.
func someFlows() []node.FlowEvent {
	flow := func(change node.FlowChange, name, src, dst, srcAs, dstAs, service, to string, age, idle time.Duration) node.FlowEvent {
		e := node.FlowEvent{Node: name, Change: change}
		e.Protocol, e.Src, e.Dst = "tcp", netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
		e.Service, e.To, e.State, e.Age, e.Idle = service, to, "active", age, idle
		if dstAs != "" {
			as := e.Tuple
			as.Src, as.Dst = netip.MustParseAddrPort(srcAs), netip.MustParseAddrPort(dstAs)
			e.LeavesAs = &as
		}
		return e
	}
	return []node.FlowEvent{
		flow("", "node-2", "10.244.1.2:1000", "10.244.2.2:8080", "", "", "", "pod default/web-1", 90*time.Minute, time.Minute),
		flow("", "node-1", "10.244.1.2:1000", "10.96.0.7:80", "10.244.1.2:1000", "10.244.2.2:8080", "default/web:http", "peer 192.168.254.12", 5*time.Second, 3*time.Second),
		flow(node.FlowWent, "node-1", "192.168.254.11:2000", "10.96.0.7:80", "10.244.1.0:2001", "10.244.2.2:8080", "default/web:http", "peer 192.168.254.12", 4*time.Second, time.Second),
	}
}

func TestFlowTable(t *testing.T) {
	var out bytes.Buffer
	p := &flowPrinter{w: &out, names: map[string]string{"peer 192.168.254.12": "peer node-2"}}
	for _, e := range someFlows() {
		if err := p.see(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	want := `
NODE    PROTO  FROM                                    TO               SERVICE           BACKEND          GOES TO            STATE   AGE      IDLE
node-1  tcp    192.168.254.11:2000 as 10.244.1.0:2001  10.96.0.7:80     default/web:http  10.244.2.2:8080  peer node-2        active  4s       1s
node-1  tcp    10.244.1.2:1000                         10.96.0.7:80     default/web:http  10.244.2.2:8080  peer node-2        active  5s       3s
node-2  tcp    10.244.1.2:1000                         10.244.2.2:8080  -                 -                pod default/web-1  active  1h30m0s  1m0s
`
	if diff := cmp.Diff(want, "\n"+out.String()); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	out.Reset()
	if err := (&flowPrinter{w: &out}).end(); err != nil || out.String() != "no such flow\n" {
		t.Errorf("without a flow: got %v, %q", err, out.String())
	}
}

func TestFollowLine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	all := someFlows()
	for i, want := range []string{
		"03:04:05.006 node-2 there   tcp 10.244.1.2:1000 -> 10.244.2.2:8080, to pod default/web-1, active",
		"03:04:05.006 node-1 there   tcp 10.244.1.2:1000 -> 10.96.0.7:80 as 10.244.1.2:1000 -> 10.244.2.2:8080, default/web:http, to peer 192.168.254.12, active",
		"03:04:05.006 node-1 went    tcp 192.168.254.11:2000 -> 10.96.0.7:80 as 10.244.1.0:2001 -> 10.244.2.2:8080, default/web:http, to peer 192.168.254.12, active, after 4s",
	} {
		if got := followLine(at, all[i]); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
