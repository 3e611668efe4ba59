package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/middleway-net/middleway/k8s/informers"
	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/proxy"
)

// ListenerProblem is a listener that could not be opened. That is tried again.
type ListenerProblem struct {
	Listener string `json:"listener"` // for example tcp 192.168.254.11:30080
	// For is the Service's port, as default/web:http, or the pod's as hostport/default/web:8080; of a healthCheckNodePort the Service, of
	// what the node itself serves the field of the configuration.
	For string `json:"for"`
	Why string `json:"why"`
}

// problems are the listeners that could not be opened.
type problems struct {
	tell func(l proxy.Listener, who string, err error) // each time another reason; it does not block

	mu  sync.Mutex // guards all
	all map[proxy.Listener]ListenerProblem
}

// note takes what the proxy says: nil once a problem is over.
func (p *problems) note(l proxy.Listener, who string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.Silent = false
	if err == nil {
		delete(p.all, l)
		return
	}
	if p.all == nil {
		p.all = map[proxy.Listener]ListenerProblem{}
	}
	p.all[l] = ListenerProblem{Listener: sided(l), For: who, Why: err.Error()}
	p.tell(l, who, err)
}

// sided names a listener, and its side where there are two.
func sided(l proxy.Listener) string {
	if l.Here {
		return l.String() + " in the node's own network"
	}
	return l.String()
}

// list returns the problems that there are, sorted.
func (p *problems) list() []ListenerProblem {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]ListenerProblem, 0, len(p.all))
	for _, problem := range p.all {
		list = append(list, problem)
	}
	slices.SortFunc(list, func(a, b ListenerProblem) int {
		return cmp.Or(cmp.Compare(a.For, b.For), cmp.Compare(a.Listener, b.Listener))
	})
	return list
}

// tellProblem makes an Event of a listener that could not be opened, where somebody may read it.
func (n *Node) tellProblem(l proxy.Listener, who string, err error) {
	if n.cluster.api == nil {
		return
	}
	if e, ok := problemEvent(n.config.Name, l, who, err); ok {
		n.cluster.api.Tell(e)
	}
}

// problemEvent returns the Event about a listener's object.
func problemEvent(node string, l proxy.Listener, who string, err error) (e informers.Event, ok bool) {
	kind, name := object.Services, who
	if pod, ok := podOf(who); ok {
		kind, name = object.Pods, pod
	}
	if who == healthField || who == modeField {
		return informers.Event{
			Kind: object.Nodes, Object: object.Key{Name: node}, Warning: true, Reason: "PortNotAvailable",
			Message: fmt.Sprintf("%s is not served, which is tried again: %v; if kube-proxy has it, take it off the node or set services.besideKubeProxy, else choose another address by %s, or none",
				who, err, who),
		}, true
	}
	name, _, _ = strings.Cut(name, ":") // without the port, which has no name where it is the only one
	namespace, name, ok := strings.Cut(name, "/")
	return informers.Event{
		Kind: kind, Object: object.Key{Namespace: namespace, Name: name}, Warning: true, Reason: "PortNotAvailable",
		Message: fmt.Sprintf("node %s does not serve %s, which is tried again: %v", node, sided(l), err),
	}, ok && namespace != "" && name != ""
}

// podOf returns "NAMESPACE/POD:PORT" of who serves a host port, whose name package hostport made.
func podOf(who string) (pod string, ok bool) { return strings.CutPrefix(who, "hostport/") }
