// Package control is the control plane of the playground: what an API server, a scheduler's bookkeeping and the controllers of
// Kubernetes are to a real cluster, as one state of ordinary API objects behind one lock.
//
//	manifests, apply, delete, scale ──► admission: defaults, ClusterIPs, what an API server would refuse
//	                                        │
//	pods' processes ──► status of pods ──►  state ──► controllers: Deployment, ReplicaSet, EndpointSlice
//	                                        │   ▲──────────┘
//	                                        ├──► watchers: `middleway get -w`, and who runs the pods
//	                                        └──► writer: one file an object, for every node's daemon
//
// Objects in the state are never changed in place: whoever has one may read it without a lock. A change runs the controllers until
// nothing is left to do, so what a caller sees after a request is what the request has brought about.
package control
