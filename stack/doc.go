// Package stack is the node's forwarding half: it moves packets between the pods of the node, its host, its peers, and the
// node's own netstack.
//
// A packet's way, each step in the file named:
//
//	pod's device ─► worker.drain ─► fromPod: parse, source check ─┐
//	peer ─► Port.Receive ─► fromPeer: joins the train, or ────────┤
//	netstack ─► Stack.Inject ─► fromNode ─────────────────────────┤
//	                                                              ▼
//	                              judge: flow cache ─► flow table ─► tables (route)
//	                                                              │
//	             ┌───────────────────────┬────────────────────────┼──────────────────┐
//	             ▼                       ▼                        ▼                  ▼
//	      toAttachment            Port.Send (peer)         Node.Deliver            drop, counted by reason
//	      one write, whole        VXLAN per segment        gVisor netstack
//
// Workers run to completion: each owns one queue of every pod's device, one port of the tunnel, its buffers and its flow
// cache, waits by itself, and takes a packet from the read to the write without handing it to anybody. What workers share
// is the flow table (package flow) and the tables, an immutable snapshot behind one atomic pointer.
package stack
