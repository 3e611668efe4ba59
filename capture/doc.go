// Package capture shows packets as nodes saw them: where each came in, what was decided about it and why, where it went out.
//
// A node's daemon sends what its taps see (package stack/tap) as a stream of messages; here they are received from any number of
// nodes, put in order, and written as a file for Wireshark, as lines for people, or as JSON for programs:
//
//	daemon of node-1 ─► Stream ─┐
//	daemon of node-2 ─► Stream ─┴► Merge, by time ─► Sink: File (package capture/pcapng), Text or JSON
package capture
