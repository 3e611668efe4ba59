// Package proxy tests the ways in and out of a cluster from outside: nodes whose daemons follow a state folder, pods, and a host that is
// no node behind a gateway (lab.External), real sockets at all ends. It holds tests only.
//
//	egress_test.go    pods that reach the outside, and the errors that they get
//	nodeport_test.go  who reaches NodePorts and externalIPs, and as whom the backend sees it
//	hostport_test.go  pods with host ports, by the CNI plugin
//	guard_test.go     what pods must not reach
//	clients_test.go   many clients of UDP
//	stream_test.go    transfers, half-close, resets, urgent data, many connections
//	dying_test.go     backends that go in the middle
//	cut_test.go       connections whose daemon is killed, and ports in use
//	restart_test.go   daemons that start without the objects of the cluster in reach
package proxy
