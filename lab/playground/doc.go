// Package playground is `middleway up`: a Kubernetes cluster's network on this machine, and the control plane that it needs.
// Every node is a network namespace with a daemon of its own; pods come from manifests, are spread over the nodes, attached by
// the CNI plugin as kubelet's runtime would do it, and their commands run in their namespaces, with the machine's files in
// place of an image.
//
//	manifests ──► control ──► schedule ──► attach (libcni executes middleway-cni) ──► containers ──► status
//	              ▲  ▲  │                    │                                          │  ▲
//	 get, apply … ┘  │  └► state/ ──► daemon of the pod's node                          │  └── exec and logs, by the socket up.sock
//	                 └────────────── readiness ─────────────────────────────────────────┘
//
// Manifests are followed while the cluster runs. What they want the control plane (package control) has as objects, and a worker for
// each pod makes it what its object says by then.
//
// One process, the one that lab.Enter started, holds all of it: namespaces by open files, daemons and containers as children
// that the kernel kills with it. A container is process 1 of a PID namespace, so what it started ends with it. What stays
// after a crash is the state directory, which Down and the next New clear.
package playground
