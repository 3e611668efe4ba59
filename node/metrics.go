package node

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/middleway-net/middleway/stack"
)

// registry returns the metrics of this node, and of its process and Go runtime. Names and units follow
// https://prometheus.io/docs/practices/naming/.
func (n *Node) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collector{n},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// collector reads the counters at the time of a scrape: the packets' way knows nothing of Prometheus.
type collector struct{ n *Node }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("middleway_"+name, help, labels, nil)
}

var (
	descInfo      = desc("node_info", "Always 1; the labels tell the node's name, its underlay address and the program's version.", "node", "address", "version")
	descMTU       = desc("pod_mtu_bytes", "MTU of the pods, IP header included.")
	descWorkers   = desc("workers", "Workers that move packets.")
	descPackets   = desc("forwarded_packets_total", "Packets forwarded, delivered to the node and sent by it; a super-packet that stays whole counts once.")
	descBytes     = desc("forwarded_bytes_total", "Bytes of the packets forwarded, IP headers included.")
	descDrops     = desc("dropped_packets_total", "Packets dropped, by reason.", "reason")
	descErrors    = desc("icmp_errors_total", "ICMP errors that the node has sent about packets that it did not forward.")
	descFlows     = desc("flow_directions", "Directions of flows in the flow table; a flow has two.")
	descEvictions = desc("flow_evictions_total", "Directions of flows given up for newer ones because the flow table was full.")
	descPods      = desc("attachments", "Pods attached to this node.")
	descPeers     = desc("peers", "Other nodes.")
)

// Describe tells every metric.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descInfo, descMTU, descWorkers, descPackets, descBytes, descDrops, descErrors, descFlows, descEvictions, descPods, descPeers,
	} {
		ch <- d
	}
}

// Collect reads every metric.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	cfg, st := &c.n.config, c.n.stack.Stats()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descInfo, 1, cfg.Name, cfg.Address.String(), cfg.Version)
	gauge(descMTU, c.n.mtu)
	gauge(descWorkers, stack.Workers(cfg.Workers))
	count(descPackets, st.Packets)
	count(descBytes, st.Bytes)
	for _, reason := range slices.Sorted(maps.Keys(st.Drops)) {
		count(descDrops, st.Drops[reason], reason)
	}
	count(descErrors, st.ICMPErrors)
	gauge(descFlows, st.Flows)
	count(descEvictions, st.EvictedFlows)
	gauge(descPods, st.Attachments)
	gauge(descPeers, len(cfg.Peers))
}
