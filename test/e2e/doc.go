// Package e2e tests whole nodes from the outside: daemons as processes of their own, pods and peers in namespaces that
// package lab makes, real sockets at both ends. It holds tests only.
//
//	kernel_test.go     a kernel's VXLAN device, set up as flannel does it, as a peer
//	faults_test.go     a link that loses, reorders, duplicates, corrupts, and is cut
//	restart_test.go    a daemon that is killed, stopped and replaced in the middle of transfers
//	fromwire_test.go   malformed datagrams on the tunnel's port
//	frompod_test.go    malformed packets from a pod
//	startup_test.go    a daemon that cannot start
//	dns_test.go        names of Services, and others, asked for from pods and hosts
//	edge_test.go       sizes, families, numbers of workers, many connections
//
// Tests with Soak in their names run the full sizes, and only with MIDDLEWAY_SOAK=1.
package e2e
