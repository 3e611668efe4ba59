package services

import (
	"slices"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/service"
)

// Reasons of choices.
const (
	whyReady        = "ready"
	whySameNode     = "ready, and hinted for this node"
	whySameZone     = "ready, and hinted for this node's zone"
	whyTerminating  = "terminating but serving, as none is ready"
	whyNone         = "no endpoint is ready, or terminating but serving"
	whyLocal        = "ready on this node, as the traffic policy is Local"
	whyLocalEnding  = "terminating but serving on this node, as the traffic policy is Local and none here is ready"
	whyNoneLocal    = "the traffic policy is Local, and no usable endpoint is on this node"
	whyNoneAnywhere = "the traffic policy is Local, and no endpoint is usable on any node"
)

// forCluster returns what there is to choose from under traffic policy Cluster: ready endpoints that are hinted for this node,
// where hints count; without a ready one, those that serve while they end (KEP-1669).
func forCluster(all []endpoint, like []service.Backend, on Node) service.Choice {
	hinted, why := hints(all, on)
	ready := pick(all, like, func(e *endpoint) bool { return e.Ready && hinted(e) })
	if len(ready) > 0 {
		return service.Choice{Backends: ready, Why: why}
	}
	ending := pick(all, like, func(e *endpoint) bool { return e.Serving && e.Terminating })
	if len(ending) > 0 {
		return service.Choice{Backends: ending, Why: whyTerminating}
	}
	return service.Choice{None: packet.DropNoBackend, Why: whyNone}
}

// forLocal returns what there is to choose from under traffic policy Local. elsewhere says whether any endpoint is usable under
// policy Cluster: if so, one that is not here is no reason to refuse.
func forLocal(all []endpoint, like []service.Backend, elsewhere bool) service.Choice {
	ready := pick(all, like, func(e *endpoint) bool { return e.at.Local && e.Ready })
	if len(ready) > 0 {
		return service.Choice{Backends: ready, Why: whyLocal}
	}
	ending := pick(all, like, func(e *endpoint) bool { return e.at.Local && e.Serving && e.Terminating })
	switch {
	case len(ending) > 0:
		return service.Choice{Backends: ending, Why: whyLocalEnding}
	case elsewhere:
		return service.Choice{None: packet.DropNoLocalBackend, Why: whyNoneLocal}
	}
	return service.Choice{None: packet.DropNoBackend, Why: whyNoneAnywhere}
}

// hints returns which ready endpoints are for this node. Hints count only where every ready endpoint has one and some are for
// this node: first those for nodes (KEP-3015), then those for zones (KEP-2433).
func hints(all []endpoint, on Node) (hinted func(*endpoint) bool, why string) {
	everyNode, everyZone, someNode, someZone := true, true, false, false
	forNode := func(e *endpoint) bool { return slices.Contains(e.HintedNodes(), on.Name) }
	forZone := func(e *endpoint) bool { return slices.Contains(e.HintedZones(), on.Zone) }
	for i := range all {
		e := &all[i]
		if !e.Ready {
			continue
		}
		everyNode, someNode = everyNode && len(e.HintedNodes()) > 0, someNode || forNode(e)
		everyZone, someZone = everyZone && len(e.HintedZones()) > 0, someZone || forZone(e)
	}
	switch {
	case everyNode && someNode:
		return forNode, whySameNode
	case everyZone && someZone && on.Zone != "":
		return forZone, whySameZone
	}
	return func(*endpoint) bool { return true }, whyReady
}
