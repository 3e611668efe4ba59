package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/proxy"
)

func TestPrintWays(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.168.254.11")}
	for _, tt := range []struct {
		name string
		st   node.WaysStatus
		want string
	}{
		{"all", node.WaysStatus{
			Egress: true, NodePorts: true, Addresses: addrs, Sockets: "/run/s",
			Problems: []node.ListenerProblem{{Listener: "tcp 127.0.0.1:30080", For: "default/web:http", Why: "address already in use"}},
			Stats:    proxy.Stats{TCP: proxy.TCPStats{Open: 2}, Listeners: 3},
		}, `outside   2 connections, 0 UDP flows, 0 pings by sockets from /run/s
listeners 3 for node ports and host ports at 127.0.0.1,192.168.254.11
problem   tcp 127.0.0.1:30080 for default/web:http is not served: address already in use
`},
		{"limits", node.WaysStatus{Egress: true, Addresses: addrs[:1], Stats: proxy.Stats{TCP: proxy.TCPStats{Open: 2, Limited: 3, AcceptErrors: 4}}}, `outside   2 connections, 0 UDP flows, 0 pings
problem   3 connections were dropped: too many with the outside at once, or of one client
problem   listeners could not take a client 4 times, see the log: more open files may have to be allowed
listeners 0 for host ports at 127.0.0.1
`},
		{"off", node.WaysStatus{Addresses: addrs[:1]}, "outside   off\nlisteners 0 for host ports at 127.0.0.1\n"},
	} {
		var b strings.Builder
		if printWays(&b, tt.st); b.String() != tt.want {
			t.Errorf("%s: got\n%swant\n%s", tt.name, b.String(), tt.want)
		}
	}
}
