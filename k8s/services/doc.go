// Package services compiles a Service and its EndpointSlices to what the packets' way and the cluster's DNS look up. Its functions are
// pure: the same objects give the same result, and nothing else is read or written.
//
// Records makes what the zone has. Compile makes what the packets' way has, as one node sees it:
//
//	endpoints of all slices ─► one port, one family, no doubles ─┬─► serving ──────────────────────────► Port.Serving
//	                                                             ├─► ready, hinted here │ terminating ─► policy Cluster ─┐
//	                                                             └─► ready, local │ terminating, local ─► policy Local ──┴─► Internal, External; Inside: policy Cluster
//
// HealthChecks makes what load balancers hear that ask the node about a Service: how many are ready and local.
//
// ClusterIPs lead to a port's Internal choice; node ports and externalIPs to External, or to Inside for clients on the node itself.
package services
