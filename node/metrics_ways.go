package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/middleway-net/middleway/proxy"
)

// waysCollector reads the counters of the ways into the cluster and out of it.
type waysCollector struct{ n *Node }

var (
	descListeners       = desc("listeners", "Sockets that listen for NodePorts, externalIPs, host ports and load balancers that ask.")
	descListenerProblem = desc("listener_problem", "1 for each listener that could not be opened; there is none where all is well.", "listener", "for")
	descOutsideFlows    = desc("outside_flows", "Connections, and flows of UDP and ICMP echo, that leave or enter the cluster through sockets of this node.", "protocol")
	descOutsideConns    = desc("outside_connections_total", "TCP connections with the outside, by what became of them: joined, refused by the destination, failed to find anybody or a socket, limited since there is no room.", "result")
	descOutsideReset    = desc("outside_reset_connections_total", "Joined TCP connections that did not end by both sides' closing.")
	descAcceptErrors    = desc("listener_accept_errors_total", "Times that a listener of TCP could not take who waits there.")
	descOutsideOpened   = desc("outside_opened_flows_total", "Flows opened toward the outside, of UDP and ICMP echo.", "protocol")
	descOutsideFailed   = desc("outside_failed_flows_total", "Flows toward the outside that got no socket, of UDP and ICMP echo.", "protocol")
	descOutsideEvicted  = desc("outside_evicted_flows_total", "Flows toward the outside that made room for others, of UDP and ICMP echo.", "protocol")
	descOutsidePackets  = desc("outside_packets_total", "Packets of UDP and ICMP echo sent to the outside and received from there; a train counts as one.", "protocol", "direction")
)

// Describe tells every metric.
func (c waysCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descListeners, descListenerProblem, descAcceptErrors, descOutsideFlows, descOutsideConns, descOutsideReset,
		descOutsideOpened, descOutsideFailed, descOutsideEvicted, descOutsidePackets,
	} {
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
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for result, n := range map[string]uint64{"joined": st.TCP.Joined, "refused": st.TCP.Refused, "failed": st.TCP.Failed, "limited": st.TCP.Limited} {
		count(descOutsideConns, n, result)
	}
	count(descOutsideReset, st.TCP.Reset)
	count(descAcceptErrors, st.TCP.AcceptErrors)
	for protocol, flows := range map[string]proxy.FlowStats{"udp": st.UDP.FlowStats, "icmp": st.Echo.FlowStats} {
		collectFlows(count, protocol, flows)
	}
}

func collectFlows(count func(*prometheus.Desc, uint64, ...string), protocol string, st proxy.FlowStats) {
	count(descOutsideOpened, st.Opened, protocol)
	count(descOutsideFailed, st.Failed, protocol)
	count(descOutsideEvicted, st.Evicted, protocol)
	count(descOutsidePackets, st.Sent, protocol, "sent")
	count(descOutsidePackets, st.Received, protocol, "received")
}
