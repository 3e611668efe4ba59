// Package bench compares ways to join two pods: middleway, the kernel's bridge and VXLAN, a bare relay between TUN devices,
// gVisor's own forwarding. It stands outside a packet's way and looks at the whole of it.
//
//	namespace From ── eth0 ══ Contestant: the way under test ══ eth0 ── namespace To
//	     │                                                              │
//	sending child: a thread per stream,           receiving child: a thread per stream, which counts
//	blocking write(2) of 128 KiB                  what read(2) of 128 KiB returns, in memory shared with us
//
// A Contestant makes a Pair of pods, a Load runs over it and returns a Result. Results are never read alone: a machine that
// others use is as fast as they let it be. So Load.Rounds measures several pairs in turn, and what is reported is the median
// of the ratios within a round, beside the ratio of the kernel to itself, which says how much of it is noise.
//
// README.md tells how to run the benchmarks, how to read them, and how to add a contestant.
package bench
