// Package components makes and keeps what a real Kubernetes cluster consists of: the control plane, kubelet and container runtime, the
// reference network, Kubernetes' own tests, and the images that those start. All is built from Go modules, each pinned by a go.mod below
// this folder, once, into a cache outside the repository.
package components
