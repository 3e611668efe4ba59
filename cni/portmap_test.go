package cni

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/cni/ipam"
)

func TestParsePortMappings(t *testing.T) {
	m := func(hostIP string, hostPort, containerPort uint16, p ipam.Protocol) ipam.PortMapping {
		m := ipam.PortMapping{HostPort: hostPort, ContainerPort: containerPort, Protocol: p}
		if hostIP != "" {
			m.HostIP = netip.MustParseAddr(hostIP)
		}
		return m
	}
	for _, tt := range []struct {
		name, json string
		want       []ipam.PortMapping
		code       uint // of the error
	}{
		{"none", `[]`, nil, 0},
		{"as runtimes write it", `[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":""}]`, []ipam.PortMapping{m("", 8080, 80, "tcp")}, 0},
		{"address", `[{"hostPort":53,"containerPort":53,"protocol":"UDP","hostIP":"127.0.0.1"}]`, []ipam.PortMapping{m("127.0.0.1", 53, 53, "udp")}, 0},
		{"of a family", `[{"hostPort":1,"containerPort":65535,"hostIP":"::"}]`, []ipam.PortMapping{m("::", 1, 65535, "tcp")}, 0},
		{"mapped", `[{"hostPort":1,"containerPort":1,"hostIP":"::ffff:192.0.2.1"}]`, []ipam.PortMapping{m("192.0.2.1", 1, 1, "tcp")}, 0},
		{"twice the same", `[{"hostPort":1,"containerPort":1},{"hostPort":1,"containerPort":1,"protocol":"tcp"}]`, []ipam.PortMapping{m("", 1, 1, "tcp")}, 0},
		{"no host port", `[{"containerPort":80,"protocol":"tcp"}]`, nil, codeConfig},
		{"too high", `[{"hostPort":65536,"containerPort":80}]`, nil, codeConfig},
		{"negative", `[{"hostPort":80,"containerPort":-1}]`, nil, codeConfig},
		{"a name", `[{"hostPort":80,"containerPort":80,"hostIP":"localhost"}]`, nil, codeConfig},
		{"SCTP", `[{"hostPort":80,"containerPort":80,"protocol":"sctp"}]`, nil, codeUnsupported},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var entries []portMapping
			if err := json.Unmarshal([]byte(tt.json), &entries); err != nil {
				t.Fatal(err)
			}
			got, err := parsePortMappings(entries)
			if e := (*types.Error)(nil); (err != nil) != (tt.code != 0) || errors.As(err, &e) && e.Code != tt.code {
				t.Fatalf("got %v, want code %d", err, tt.code)
			}
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(equalAddrs)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A host port goes with its pod's lease, and belongs to one pod at a time; whoever asks to be told hears of each change.
func TestServePortMappings(t *testing.T) {
	changes := make(chan bool, 10)
	d := newDaemon(t, t.TempDir(), func(s *Server) { s.changed = func() { changes <- true } })
	mapped := []ipam.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: ipam.TCP}}
	mapping := func(op, id string) *request {
		r := d.request(op, id)
		r.PortMappings = mapped
		return r
	}
	until := time.Now().Add(20 * time.Second)
	d.mustAddAs(mapping(opAdd, "a"))
	<-changes
	if leases := d.leases.All(); len(leases) != 1 || leases[0].State != ipam.Attached || !ipam.SamePortMappings(leases[0].PortMappings, mapped) {
		t.Errorf("after ADD: %+v", leases)
	}
	bad := mapping(opAdd, "c")
	bad.PortMappings = []ipam.PortMapping{{HostPort: 1}}
	for _, tt := range []struct {
		r    *request
		code uint // 0: none
	}{
		{bad, codeConfig},
		{mapping(opCheck, "a"), 0},
		{d.request(opCheck, "a"), codeUnlike},
		{mapping(opAdd, "b"), codeHostPort},
	} {
		_, err := askOnce(d.socket(), until, tt.r)
		if e := (*types.Error)(nil); (err != nil) != (tt.code != 0) || errors.As(err, &e) && e.Code != tt.code {
			t.Errorf("%s %s: got %v, want code %d", tt.r.Op, tt.r.ContainerID, err, tt.code)
		}
	}
	if _, err := askOnce(d.socket(), until, d.request(opDel, "a")); err != nil {
		t.Fatal(err)
	}
	<-changes
	d.mustAddAs(mapping(opAdd, "b"))
}
