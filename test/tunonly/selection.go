//go:build linux

package main

// What runs unless the command line names packages: all of them but test/asuser, which needs Go and a disk. The longest come first, so
// that no machine waits long for the other at the end.
var (
	packages = []string{"./test/e2e", "./test/up", "./test/cni", "./lab/...", "./stack/...", "./tunnel/...", "./cni/...", "./node/...",
		"./cmd/...", "./unixsock", "./bench", "."}
	// withoutIPv6 are those that open sockets or devices.
	withoutIPv6 = []string{"./test/up", "./lab/...", "./stack/tun", "./stack/netstack", "./tunnel/...", "./cni/...", "./node/..."}
	// asUser run as an ordinary user too. The rest of what such a user needs is in the demo.
	asUser = []string{"./lab/playground", "./lab/tool", "./stack/tun", "./node/...", "./cni/..."}
)
