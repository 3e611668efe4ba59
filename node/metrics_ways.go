package node

import "github.com/prometheus/client_golang/prometheus"

// waysCollector reads the counters of the ways into the cluster and out of it.
type waysCollector struct{ n *Node }

var (
	descListeners       = desc("listeners", "Sockets that listen for NodePorts, externalIPs and host ports.")
	descListenerProblem = desc("listener_problem", "1 for each listener that could not be opened; there is none where all is well.", "listener", "for")
	descOutsideFlows    = desc("outside_flows", "Connections, and flows of UDP and ICMP echo, that leave or enter the cluster through sockets of this node.", "protocol")
)

// Describe tells every metric.
func (c waysCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descListeners, descListenerProblem, descOutsideFlows} {
		ch <- d
	}
}

// Collect reads every metric.
func (c waysCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.n.waysStatus()
	ch <- gaugeOf(descListeners, float64(st.Listeners))
	for _, p := range st.Problems {
		ch <- gaugeOf(descListenerProblem, 1, p.Listener, p.For)
	}
	for protocol, open := range map[string]int{"tcp": st.TCP.Open, "udp": st.UDP.Open, "icmp": st.Echo.Open} {
		ch <- gaugeOf(descOutsideFlows, float64(open), protocol)
	}
}
