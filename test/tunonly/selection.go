//go:build linux

package main

import "strings"

// What runs unless the command line names packages: all of them but test/asuser, which needs Go and a disk. The longest come first, so
// that no machine waits long for the other at the end.
var (
	packages = []string{"./test/e2e", "./test/up", "./test/service", "./test/cni", "./lab/...", "./stack/...", "./tunnel/...", "./cni/...", "./node/...",
		"./cmd/...", "./unixsock", "./bench", "."}
	// withoutIPv6 beside the demo, whose nodes and pods get IPv4 alone. Most tests of packets are of both families.
	withoutIPv6 = []string{"./lab/tool", "./lab/logs", "./cni/...", "./node/...", "./stack/netstack", "./unixsock"}
	// asUser run as an ordinary user too. The rest of what such a user needs is in the demo.
	asUser = []string{"./lab/tool", "./stack/tun", "./node/...", "./cni/..."}
)

// leftOut are tests that run only with -all, and why.
var leftOut = []struct{ tests, why string }{
	{"TestPathMTU TestPathMTUOnTheWay TestHello TestNoTrains TestRouteRefusesTrains", "sit out the intervals in which nodes ask each other"},
	{"TestFaults TestWorkers TestManyConnections TestMalformedFromWire TestLogsOfAMillionLines", "move more than so slow a machine does in a minute"},
	{"TestKills TestConcurrentAdds TestInterruptedStart TestForeground TestCrash TestHangingDaemon TestOrdinaryUser", "start hundreds of processes, or the same tests once more"},
	{"TestRun TestRunText TestRunBroken", "are the demo, which runs by itself"},
}

// leftOutPattern is what go test -skip takes.
func leftOutPattern() string {
	var names []string
	for _, l := range leftOut {
		names = append(names, strings.Fields(l.tests)...)
	}
	return "^(" + strings.Join(names, "|") + ")$"
}
