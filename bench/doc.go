// Package bench compares ways to join two pods: middleway, the kernel's bridge and VXLAN, a bare relay between TUN devices,
// gVisor's own forwarding. It stands outside a packet's way and looks at the whole of it.
//
//	namespace From ── eth0 ══ Contestant: the way under test ══ eth0 ── namespace To
//	     │                                                              │
//	a process that is                                     a process that is
//	a perf.Client: streams, datagrams,                    a perf.Server, which counts
//	requests, connections                                 or answers what comes
//
// A Contestant makes a Pair of pods, Run runs the load of package lab/perf over it and returns a Result. Results are never read
// alone: a machine that others use is as fast as they let it be. So Rounds measure a pair between runs over the kernel's, and
// what is reported is the median of the ratios to the two beside, next to how far the kernel is from itself, the noise.
//
// A ServicePair is ten pods behind the first of many Services, and a client's. Paired are runs to these pods and through the Service, in turn,
// and what is reported is the mean of the ratios with its interval.
//
// README.md tells how to run the benchmarks, how to read them, and how to add a contestant.
package bench
