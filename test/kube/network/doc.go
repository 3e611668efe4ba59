// Package network is the pod networks that a test cluster may have: middleway, as deploy/middleway.yaml installs it, and the reference
// that it is compared with, made of kube-proxy, CoreDNS and the CNI plugins of containernetworking or flannel.
package network
