// Package proxy is the node's ways in and out: sockets of the node, joined to pods.
//
//	pod ──► worker ──► Deliver ─┬─ TCP ──► the worker's exit ──► a socket a connection ──► outside
//	 ▲                          ├─ UDP ──► a connected socket a flow ────────────────────► outside
//	 │                          └─ ICMP echo ──► ping socket ───────────────────────────► outside
//	 └──── inject ◄── answers, and ICMP errors that the sockets tell
//
//	client ──► listening socket ─┬─ TCP: accept ──► netstack dials from the client's address to the one that the client asked for
//	                             └─ UDP: each datagram a packet ──► injectOutside ──► worker
//
// Who serves a listener's address and port is not known here: the worker decides it for a flow's first packet, as for every
// Service (package stack). So the proxy is devices only: sockets in, sockets out.
package proxy
