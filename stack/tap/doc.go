// Package tap copies packets, and what became of them, out of the way they take, for whoever wants to look on.
//
// The goroutine that moves packets, a worker for example, owns one Writer of each Tap:
//
//	packet ─► Enter: a copy, no verdict yet ─► Judge ─► Forwarded or Dropped: the copy's verdict
//	            │                                       └► Leave: another copy, as it goes out
//	            ▼
//	  ring of the Writer ── Publish, once a batch ──► Tap.Read
//
// A verdict may still change until the batch is published, for the socket may refuse what was decided long before. No call
// waits, locks or allocates: a packet for which the ring has no room is counted as lost, and its way goes on. So a slow reader
// loses records and nothing else, and each Tap has rings of its own, so that it does so alone.
//
// Where nobody looks on there are no Writers. Callers guard each call by comparing Writers with nil, and load them once a batch.
package tap
