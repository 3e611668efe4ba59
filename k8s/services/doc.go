// Package services compiles a Service and its EndpointSlices to what the packets' way and the cluster's DNS look up. Its functions are
// pure: the same objects give the same result, and nothing else is read or written.
package services
