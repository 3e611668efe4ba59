// Package lab makes a cluster's networks on one machine: network namespaces stand for nodes and pods, and the nodes are
// joined by the kernel or by a link of our own that loses, delays and spoils frames on request. It serves
// `middleway up`, the tests and the benchmarks.
//
//	process of the caller (after Enter: private network and mount namespace)
//	 ├─ Namespace "node1" ── eth0 ─┐                      ┌─ eth0 ── Namespace "node2"
//	 │    daemon (Process)         ├── Underlay: veth,  ──┤            daemon (Process)
//	 │    pods   (Namespaces)      │   bridge, or Link    │            pods   (Namespaces)
//	 └─ Pdeathsig SIGKILL ─────────┴──────────────────────┴──────────► every child
//
// Nothing has a name outside the process: namespaces are held by open files only, devices live in namespaces, children
// are killed by the kernel when the lab ends. So nothing is left behind, however the lab ends, SIGKILL included.
//
// A program that uses lab calls RunRole first in main (a test package calls Main in its TestMain), because children
// are this same program, started again in a role; then Enter, which gives root a namespace of its own and an ordinary
// user a user namespace.
package lab
