// Package k8s is where a node's truth comes from: a source brings Kubernetes' objects, stripped, into the Store, and the
// Pipeline makes tables of what changed and hands them to those who use them.
//
//	API server ── informers ─┐
//	state folder ─ folder ───┼─► Store ─► Pipeline ─► services.Compile ─► stack
//	former daemon ─ kept ────┘  (objects)  (gathers changes)
package k8s
