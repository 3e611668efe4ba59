package check

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/cluster/probe"
)

// Groups of checks.
const (
	groupNodes    = "Nodes"
	groupPods     = "Pods"
	groupPodNode  = "Pods and nodes"
	groupServices = "Services"
	groupNames    = "Names"
	groupPorts    = "Ports of nodes"
	groupBeyond   = "Beyond"
)

// source is a kind of pod that asks.
type source struct {
	name string
	of   func(*node) place
}

var (
	fromPods  = source{"pod", func(n *node) place { return n.net }}
	fromNodes = source{"node", func(n *node) place { return n.host }}
)

// plan says what is asked from where. The order is that of the report.
func (r *run) plan() {
	families := r.families()
	for _, f := range families {
		r.planPods(f)
	}
	for _, f := range families {
		r.planNodes(f)
	}
	for _, f := range families {
		r.planServices(f)
	}
	r.planNames(families)
	for _, f := range families {
		r.planPorts(f)
	}
	r.planBeyond()
	if r.Targets < len(r.nodes) {
		r.note("each of %d nodes asks %d nodes: --targets %d has all asked by all", len(r.nodes), r.Targets, len(r.nodes))
	}
}

// families are those in which pods have addresses.
func (r *run) families() (all []family) {
	for _, f := range []family{4, 6} {
		for _, n := range r.nodes {
			if _, ok := n.net.addr(f); ok {
				all = append(all, f)
				break
			}
		}
	}
	return all
}

func at(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }

// matrix asks from each node's place to the nodes that are its targets. to returns where, and false where there is nothing to ask.
func (r *run) matrix(c *Check, from source, to func(from, to *node) (string, bool), kind probe.Kind, judge func(from, to *node) func(probe.Answer) error) {
	for i, n := range r.nodes {
		if !from.of(n).ready {
			continue
		}
		for _, t := range r.targets(i) {
			where, ok := to(n, t)
			if !ok {
				continue
			}
			var verdict func(probe.Answer) error
			if judge != nil {
				verdict = judge(n, t)
			}
			r.add(c, n.name, from.of(n), t.name, probe.Question{Kind: kind, To: where}, verdict)
		}
	}
}

// toPod is a port of the other node's pod, on the same node or on another.
func toPod(f family, port int, same bool) func(from, to *node) (string, bool) {
	return func(from, to *node) (string, bool) {
		a, ok := to.net.addr(f)
		return at(a, port), ok && to.net.ready && (from == to) == same
	}
}

// toNode is a port of a program of the other node.
func toNode(f family, port int, itself bool) func(from, to *node) (string, bool) {
	return func(from, to *node) (string, bool) {
		a, ok := to.host.addr(f)
		return at(a, port), ok && to.host.ready && (itself || from != to)
	}
}

func (r *run) planPods(f family) {
	identity := func(_, to *node) func(probe.Answer) error { return answeredBy(to.net.pod) }
	for _, where := range []struct {
		words string
		same  bool
	}{{"on the same node", true}, {"on another node", false}} {
		name := "pod → pod " + where.words + ", "
		if !where.same && len(r.reach(fromPods.of)) < 2 {
			r.check(groupPods, strings.TrimSuffix(name, ", "), f.String()).Why = "there are no pods on two nodes"
			continue
		}
		r.matrix(r.check(groupPods, name+"TCP", f.String()), fromPods, toPod(f, podHTTP, where.same), probe.HTTP, identity)
		r.matrix(r.check(groupPods, name+"UDP", f.String()), fromPods, toPod(f, podEcho, where.same), probe.UDP, nil)
		r.matrix(r.check(groupPods, name+"largest packets", f.String()), fromPods, toPod(f, podEcho, where.same), probe.Path, nil)
		r.matrix(r.check(groupPods, name+"64 KiB over TCP", f.String()), fromPods, toPod(f, podEcho, where.same), probe.Bulk, nil)
		r.matrix(r.check(groupPods, name+"source address kept", f.String()), fromPods, toPod(f, podHTTP, where.same), probe.HTTP,
			func(from, _ *node) func(probe.Answer) error { return seenAs(from.net.addrs) })
	}
}

func (r *run) planNodes(f family) {
	first := int(r.FirstPort)
	identity := func(_, to *node) func(probe.Answer) error { return answeredBy(to.net.pod) }
	anyPod := func(port int) func(from, to *node) (string, bool) {
		return func(_, to *node) (string, bool) {
			a, ok := to.net.addr(f)
			return at(a, port), ok && to.net.ready
		}
	}
	r.matrix(r.check(groupPodNode, "pod → node, TCP", f.String()), fromPods, toNode(f, first, true), probe.HTTP, nil)
	r.matrix(r.check(groupPodNode, "pod → node, UDP", f.String()), fromPods, toNode(f, first+1, true), probe.UDP, nil)
	r.matrix(r.check(groupPodNode, "node → pod, TCP", f.String()), fromNodes, anyPod(podHTTP), probe.HTTP, identity)
	r.matrix(r.check(groupPodNode, "node → pod, UDP", f.String()), fromNodes, anyPod(podEcho), probe.UDP, nil)
	between := r.check(groupPodNode, betweenNodes, f.String())
	if len(r.reach(fromNodes.of)) < 2 {
		between.Why = "there are no pods on two nodes"
	}
	r.matrix(between, fromNodes, toNode(f, first, false), probe.HTTP, nil)
}

// betweenNodes is the check without pods' addresses, beside which those between pods are judged.
const betweenNodes = "node → another node, TCP, without the pod network"

// clusterIP is a Service's address of a family.
func clusterIP(s *corev1.Service, f family) (netip.Addr, bool) {
	for _, ip := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil && f.has(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// timesOfService is how often a Service is asked by each place.
const timesOfService = 4

func (r *run) planServices(f family) {
	hosts := r.podNames()
	web, ok := clusterIP(r.service.web, f)
	if !ok {
		r.check(groupServices, "Services", f.String()).Why = "the cluster's Services have no addresses of this family"
		return
	}
	own, _ := clusterIP(r.service.own, f)
	for _, from := range []source{fromPods, fromNodes} {
		tcp := r.check(groupServices, from.name+" → ClusterIP, TCP", f.String())
		udp := r.check(groupServices, from.name+" → ClusterIP, UDP", f.String())
		for _, n := range r.reach(from.of) {
			r.add(tcp, n.name, from.of(n), "web", probe.Question{Kind: probe.HTTP, To: at(web, serviceHTTP), Times: timesOfService}, answeredByOneOf(hosts))
			r.add(udp, n.name, from.of(n), "web", probe.Question{Kind: probe.UDP, To: at(web, serviceEcho)}, nil)
		}
	}
	hairpin := r.check(groupServices, "pod → own Service, which leads back to it", f.String())
	for _, n := range r.reach(fromPods.of) {
		r.add(hairpin, n.name, n.net, "own", probe.Question{Kind: probe.HTTP, To: at(own, serviceHTTP)}, answeredBy(n.net.pod))
	}
}

func (r *run) podNames() (names []string) {
	for _, n := range r.reach(fromPods.of) {
		names = append(names, n.net.pod)
	}
	return names
}

func (r *run) planNames(families []family) {
	for _, f := range families {
		ip, ok := clusterIP(r.service.web, f)
		if !ok {
			continue
		}
		kind := map[family]string{4: "A", 6: "AAAA"}[f]
		var pods []string
		for _, n := range r.reach(fromPods.of) {
			if a, ok := n.net.addr(f); ok {
				pods = append(pods, a.String())
			}
		}
		full := "web." + r.stage.Name + ".svc.$DOMAIN."
		r.planName(fromPods, "a Service by its name, completed", f, kind, "web", theRecords(ip.String()))
		r.planName(fromPods, "a Service by its full name", f, kind, full, theRecords(ip.String()))
		r.planName(fromNodes, "a Service by its full name", f, kind, full, theRecords(ip.String()))
		r.planName(fromPods, "a headless Service: its pods", f, kind, "headless", theRecords(pods...))
		r.planName(fromPods, "an address's name", f, "PTR", ip.String(), func(a probe.Answer) error {
			if len(a.Records) != 1 || !strings.HasPrefix(a.Records[0], "web."+r.stage.Name+".svc.") {
				return fmt.Errorf("got %s, want web.%s.svc.…", strings.Join(a.Records, ", "), r.stage.Name)
			}
			return nil
		})
	}
	r.planName(fromPods, "a headless Service's ports and hosts (SRV)", 0, "SRV", "_http._tcp.headless."+r.stage.Name+".svc.$DOMAIN.", nil)
}

// planName asks for records of a name from each place. Of a headless Service there have to be as many as pods.
func (r *run) planName(from source, words string, f family, kind, name string, judge func(probe.Answer) error) {
	word := ""
	if f != 0 {
		word = f.String()
	}
	c := r.check(groupNames, from.name+" asks for "+words, word)
	places := r.reach(from.of)
	least := 1
	if strings.Contains(name, "headless") {
		least = len(r.reach(fromPods.of))
	}
	for _, n := range places {
		r.add(c, n.name, from.of(n), "", probe.Question{Kind: probe.DNS, To: name, Type: kind, Least: least}, judge)
	}
}

func (r *run) planPorts(f family) {
	first := int(r.FirstPort)
	nodePorts := map[string]int{}
	for _, p := range r.service.outer.Spec.Ports {
		nodePorts[p.Name] = int(p.NodePort)
	}
	identity := func(_, to *node) func(probe.Answer) error { return answeredBy(to.net.pod) }
	anyOf := func(_, _ *node) func(probe.Answer) error { return answeredByOneOf(r.podNames()) }
	onNode := func(port int, needsPod bool) func(from, to *node) (string, bool) {
		return func(_, to *node) (string, bool) {
			a, ok := to.host.addr(f)
			return at(a, port), ok && (!needsPod || to.net.ready)
		}
	}
	for _, from := range []source{fromPods, fromNodes} {
		r.matrix(r.check(groupPorts, from.name+" → hostPort, TCP", f.String()), from, onNode(first+2, true), probe.HTTP, identity)
		r.matrix(r.check(groupPorts, from.name+" → hostPort, UDP", f.String()), from, onNode(first+3, true), probe.UDP, nil)
		r.matrix(r.check(groupPorts, from.name+" → NodePort, TCP", f.String()), from, onNode(nodePorts["http"], false), probe.HTTP, anyOf)
		r.matrix(r.check(groupPorts, from.name+" → NodePort, UDP", f.String()), from, onNode(nodePorts["echo"], false), probe.UDP, nil)
	}
}

func (r *run) planBeyond() {
	api := r.check(groupBeyond, "pod → API server, https://kubernetes.default.svc", "")
	for _, n := range r.reach(fromPods.of) {
		r.add(api, n.name, n.net, "kubernetes.default.svc", probe.Question{Kind: probe.HTTPS, To: "https://kubernetes.default.svc/version"}, nil)
	}
	if len(r.Outside) == 0 {
		r.check(groupBeyond, "pod → outside of the cluster", "").Why = "--outside HOST:PORT says what to reach there"
	}
	for _, to := range r.Outside {
		for _, from := range []source{fromPods, fromNodes} {
			c := r.check(groupBeyond, from.name+" → "+to, "")
			for _, n := range r.reach(from.of) {
				r.add(c, n.name, from.of(n), to, probe.Question{Kind: probe.TCP, To: to}, nil)
			}
		}
	}
}
