// Package perf is the load generators with which bench, the demo and `middleway tool perf` measure a network from its ends:
// TCP streams, UDP datagrams, the latency of request and response over both, and connections per second. It knows only
// sockets, so that it measures middleway, the kernel and anything else alike.
//
//	Client ─────── control: TCP, one JSON object a line ─────── Server
//	   │                                                           │
//	a thread per stream ══════ the load, sockets of its own ══════ a thread per stream
//
// Every stream has a thread of its own at both ends, blocking sockets with the kernel's own sizes of buffers, and Go's poller
// and its goroutines stay out of it. While the load runs, nothing is sent over control that it depends on: both ends know the
// plan and take their samples by their own clocks.
//
// # Control
//
// All messages are JSON objects of at most 4,096 bytes on a line of their own, with exactly one of these fields:
//
//	client                    server
//	{"open": Test}         →
//	                       ←  {"accepted": {"ports": [40123], "token": "…"}}
//	… opens the streams: over TCP each begins with the token; over UDP, with a port for each, the client sends
//	  8 bytes of 0xff and the token until they come back; for connections there is nothing to open …
//	                       ←  {"ready": {}}
//	{"start": {}}          →      the plan begins: warm-up, then the time that counts
//	                       ←  {"sample": {…}}    at the begin of the time, after each interval, and at its end ("last": true)
//	{"done": {}}           →      after its streams have ended; the server ends its own and closes
//
// {"error": "…"} may come from the server in place of anything, and ends the test, as closing the connection does. A server
// carries out one test at a time. What is unknown, twice there, missing or out of range is an error.
package perf
