// Package cni is kubelet's door to the node: the plugin that a container runtime executes, and the server in the node
// daemon that it talks to.
//
//	container runtime                        node daemon
//	  └─ middleway-cni (Main) ── cni.sock ──► Server ── Node (stack)
//	       │  ADD: ① which container, interface, namespace ──►  lease written: pending
//	       │       ◄── ② addresses, gateways, MTU, queues
//	       │  makes the TUN device in the pod's namespace
//	       │       ③ the device's open queues (SCM_RIGHTS) ──►  verified, attached, persistent; lease: attached
//	       │       ◄── ④ done
//	       └─ prints the result, then ⑤ says so; without that the daemon takes everything back
//
// The plugin has the container runtime's privileges, enters the pod's namespace, and never outlives its deadline. The
// daemon never enters a namespace for an ADD; it does so at its start to take up what a former daemon left. Codes of the
// CNI specification exist in this package only.
package cni
