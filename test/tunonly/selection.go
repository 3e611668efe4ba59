//go:build linux

package main

import "strings"

// What runs unless the command line names packages. The longest come first, so that no machine waits long for the other at the end.
var (
	// packages are those whose tests ask the kernel for what one that has only tun may do in another way: devices, namespaces, sockets.
	packages = []string{"./test/e2e", "./test/up", "./test/cni", "./lab", "./test/service", "./stack/tun", "./stack/flow",
		"./tunnel/...", "./proxy", "./node/...", "./cni/...", "./lab/doctor", "./lab/perf", "./lab/tool", "./unixsock"}
	// alikeEverywhere have those that run with -all besides: of files, texts, devices in memory and pods' processes, and of benchmarks, for
	// whose other side this kernel has nothing. What the demo and test/up show of them is enough.
	alikeEverywhere = []string{"./bench", "./cmd/...", "./lab/...", "./stack/..."}
	// withoutIPv6 beside the demo, whose nodes and pods get IPv4 alone. Most tests of packets are of both families.
	withoutIPv6 = []string{"./lab/tool", "./cni/...", "./node/...", "./stack/netstack", "./unixsock"}
	// asUser run as an ordinary user too. The rest of what such a user needs is in the demo.
	asUser = []string{"./lab/tool", "./stack/tun", "./node/...", "./cni/..."}
)

// leftOut are a package's tests that run only with -all, and why.
var leftOut = []struct{ pkg, tests, why string }{
	{"test/e2e", "TestPathMTU TestPathMTUOnTheWay TestHello TestNoTrains", "sit out the intervals in which nodes ask each other"},
	{"tunnel", "TestRouteRefusesTrains", "sits out an interval in which nodes ask each other"},
	{"test/e2e", "TestFaults TestWorkers TestManyConnections TestMalformedFromWire", "move more than so slow a machine does in a minute"},
	{"test/e2e", "TestStartErrors TestStartSecondDaemon TestClusterDNS TestRestartKeepsNames TestNodesOfACluster TestNodeObjectIsRemembered TestSearchPathMissIsFast",
		"are of configuration, files and names"},
	{"test/e2e", "TestTroubles TestSameName TestStartWithoutAPIServer TestConflist TestHandOver", "are of an API server, files and what is said"},
	{"test/e2e", "TestDoctorAgrees", "is of machines that lack something else; test/up compares what doctor says of this one"},
	{"test/service", "TestAffinity TestBalance TestRemovedUnderLoad TestSlicesChangeUnderLoad TestEventInForce TestGetent TestTCPStays TestTraceAgrees",
		"are of decisions that no kernel takes part in"},
	{"test/service", "TestLargeTransfer TestKilledDuringTransfer", "move more than so slow a machine does in a minute"},
	{"test/cni", "TestKills TestConcurrentAdds", "start hundreds of processes"},
	{"test/cni", "TestStartErrors TestVersions TestVersionCommand TestInvalidRequests TestSilentPeer", "are of configuration and messages"},
	{"lab", "TestOrdinaryUser", "is the same tests once more"},
	{"test/up", "TestCrash TestHangingDaemon TestInterruptedStart TestForeground TestKilledParts TestDemoWithoutDaemon TestDoctorEnded TestSecondUp TestUpAtOnce",
		"start hundreds of processes to end them in all ways"},
	{"test/up", "TestLessons TestExamples TestManifests TestMistakes TestStatusMistakes TestCaptureMistakes TestDoctorText TestStdin TestTrace TestFlows",
		"are of files and texts"},
	{"test/up", "TestFollow TestFollowSlowly TestFollowMuch TestLogs TestLogsEnd TestLogsMemory TestLogsOfAMillionLines TestObjects TestPodsInTrouble " +
		"TestProgramRemoved TestRollOutUnderLoad TestShop TestStandIns TestExecTerminal TestCaptureEnds TestPortForwardEnds",
		"are of pods' processes, not of their network"},
}

// leftOutPattern is what go test -skip takes for a package, given by its directory; "" if all of its tests run.
func leftOutPattern(pkg string) string {
	var names []string
	for _, l := range leftOut {
		if l.pkg == pkg {
			names = append(names, strings.Fields(l.tests)...)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "^(" + strings.Join(names, "|") + ")$"
}
