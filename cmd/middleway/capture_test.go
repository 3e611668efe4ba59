package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/capture"
	"github.com/middleway-net/middleway/lab/playground"
)

func TestCaptureStarted(t *testing.T) {
	stream := func(node string, interfaces int) *capture.Stream {
		return &capture.Stream{Start: capture.Start{Node: node, Interfaces: make([]capture.Interface, interfaces)}}
	}
	for _, tt := range []struct {
		streams []*capture.Stream
		want    string
	}{
		{[]*capture.Stream{stream("node-1", 1)}, "capturing at 1 interface of node-1; Ctrl-C ends it"},
		{[]*capture.Stream{stream("node-1", 1), stream("node-2", 2)}, "capturing at 3 interfaces of node-1, node-2; Ctrl-C ends it"},
	} {
		if got := new(captureFlags).started(tt.streams); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestCaptureRequest(t *testing.T) {
	f := captureFlags{
		hosts: []string{"10.244.1.2", "10.244.9.9/16", "fd00::1", "::ffff:10.0.0.1"}, protos: []string{"TCP", "icmp6", "200"}, ports: []uint{80, 65535},
		drops: true, snapLen: 64,
	}
	got, err := f.request()
	if err != nil {
		t.Fatal(err)
	}
	want := capture.Request{
		Hosts: []netip.Prefix{
			netip.MustParsePrefix("10.244.1.2/32"), netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::1/128"), netip.MustParsePrefix("10.0.0.1/32"),
		},
		Protos: []uint8{6, 58, 200}, Ports: []uint16{80, 65535}, Drops: true, SnapLen: 64,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := f.filter(); got != "--host 10.244.1.2 --host 10.244.9.9/16 --host fd00::1 --host ::ffff:10.0.0.1 --port 80 --port 65535 --proto TCP --proto icmp6 --proto 200 --drops" {
		t.Errorf("got %s", got)
	}
	for _, f := range []captureFlags{
		{hosts: []string{"web-0"}}, {hosts: []string{"10.244.1"}}, {hosts: []string{"10.244.1.0/33"}}, {hosts: []string{"fe80::1%eth0"}}, {hosts: []string{"::ffff:10.0.0.0/100"}},
		{ports: []uint{0}}, {ports: []uint{65536}}, {protos: []string{""}}, {protos: []string{"256"}}, {count: -1}, {snapLen: -1}, {duration: -1},
	} {
		if req, err := f.request(); err == nil || !strings.Contains(err.Error(), "want ") {
			t.Errorf("%+v: got %+v, %v", f, req, err)
		}
	}
}

func TestCaptureTargets(t *testing.T) {
	st := playground.Status{
		Nodes: []playground.NodeStatus{{Name: "node-1", RunDir: "/1"}, {Name: "node-2", RunDir: "/2"}},
		Pods: []playground.PodStatus{
			{Namespace: "default", Name: "web", Node: "node-1"}, {Namespace: "prod", Name: "web", Node: "node-2"},
			{Namespace: "default", Name: "agent", Node: "node-1", HostNetwork: true}, {Namespace: "default", Name: "big", Message: "no node has room"},
		},
	}
	for what, want := range map[string][]target{
		"": {{runDir: "/1"}, {runDir: "/2"}}, "tunnel": {{"/1", []string{"tunnel"}}, {"/2", []string{"tunnel"}}}, "node-2": {{runDir: "/2"}},
		"web": {{"/1", []string{"default/web"}}}, "prod/web": {{"/2", []string{"prod/web"}}},
	} {
		f := captureFlags{namespace: "default"}
		got, err := f.inCluster(st, what)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(target{})); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", what, err, diff)
		}
	}
	for what, want := range map[string]string{
		"agent": "`middleway capture node-1`", "big": "is on no node: no node has room", "prod/agent": "no pod prod/agent; the nodes are node-1, node-2",
	} {
		f := captureFlags{namespace: "default"}
		if _, err := f.inCluster(st, what); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", what, err, want)
		}
	}
}
