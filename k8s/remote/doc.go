// Package remote reaches the daemons of a cluster from outside, through its API server and with what a kubeconfig allows: it finds
// middleway's pod on a node, runs commands in its container, and dials its daemon's socket.
//
//	who asks ── net.Conn ──► pods/exec of the API server ── kubelet ── `middleway relay` in container node ──► node.sock of the daemon
//
// Everything that asks a daemon speaks HTTP over its unix socket (node.Client), so over Dial it asks one anywhere as it asks one here.
// The command at the other end lives as long as its standard input is open, which ends with the connection, however that ends.
package remote
