// Package stack is the node's forwarding half: it moves packets between the pods of the node, its host, its peers, and the
// node's own netstack.
//
// A packet's way, each step in the file named:
//
//	pod's device ─► worker.drain ─► fromPod: parse, source check ─┐
//	peer ─► Port.Receive ─► fromPeer: joins the train, or ────────┤
//	netstack ─► Stack.Inject ─► fromNode ─────────────────────────┤
//	                                                              ▼
//	                     fragments: of the flow of their packet's first (package fragment)
//	                              judge: flow cache ─► flow table ─► services.go: which backend ─► tables (route)
//	               passes: a way? time to live? size? ─► else cut, or dropped and answered (answer.go)
//	                                                              │
//	             ┌───────────────────────┬────────────────────────┼──────────────────┐
//	             ▼                       ▼                        ▼                  ▼
//	      toAttachment            Port.Send (peer)         Node.Deliver            drop, counted by reason
//	      one write, whole        VXLAN per segment        gVisor netstack
//
// What a Service refuses or answers itself is in refuse.go. Trace (trace.go, record.go) sends a packet along this way to where it is only
// looked at.
//
// Workers run to completion: each owns one queue of every pod's device, one port of the tunnel, its buffers and its flow
// cache, waits by itself, and takes a packet from the read to the write without handing it to anybody. What workers share
// is the flow table (package flow), the fragment table and the tables, an immutable snapshot behind one atomic pointer.
package stack
