// Package packet is what every step of a packet's way agrees on: the buffer a packet lies in, what was read from its
// headers, what is still unfinished in it, and why it was dropped.
//
// A packet is parsed once, where it enters the node (a pod's device, a datagram of a peer, the node's own netstack), and
// is edited in place from then on. Nothing here allocates on a packet's way, and nothing here knows of devices, sockets
// or routes.
package packet
