// Package dns compares the cluster's DNS as a middleway node answers it with CoreDNS, on the same machine, in turn, with the same client,
// questions and objects.
//
//	namespace of a pod ── eth0 (TUN) ── middleway node: worker, stack/dns        (objects: a state folder)
//	namespace          ── eth0 (veth) ── CoreDNS, its plugin kubernetes          (objects: an API server of a few lines)
//
// It asks for names of a cluster of 1,000 Services as pods do: most questions are those that a search path adds. It stands outside of the
// packets' way and looks at the whole of it. README.md tells how to run it.
package dns
