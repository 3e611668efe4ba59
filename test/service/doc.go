// Package service tests the service network from the outside: nodes whose daemons follow a state folder that the test writes, pods and
// hosts in namespaces that package lab makes, real sockets at both ends. It holds tests only.
//
//	clusterip_test.go  who reaches a Service's address, and as whom the backend sees it
//	balance_test.go    the choice among backends, and what follows when it changes under load
//	udp_test.go        flows whose backend goes, drains, or comes
//	affinity_test.go   clients that stay with their backend
//	refuse_test.go     what is refused, what is silent, and pings
//	size_test.go       fragments, large transfers, traceroute, and the MTU of the way
//	restart_test.go    daemons that are killed, and a folder that is gone
//	names_test.go      names through the C library
//	trace_test.go      traces and packets on the same way
package service
