// Package egress compares ways out of a pod's namespace that need no netfilter, and the ways in through a NodePort, on the same machine, in
// turn, with the same load.
//
//	namespace pod ── device ── Contestant's process ── sockets ── out0 ══ veth, MTU 1500 ══ eth0 ── namespace outside
//	                           in the namespace node              203.0.113.1               203.0.113.2
//
// The load and its results are package bench's, the generators package lab/perf's. It stands outside of the packets' way and looks at the whole
// of it. README.md tells how to run it and how to read it.
package egress
