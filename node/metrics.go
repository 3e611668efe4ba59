package node

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/tunnel"
)

// registry returns the metrics of this node, and of its process and Go runtime. Names and units follow
// https://prometheus.io/docs/practices/naming/.
func (n *Node) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collector{n},
		dnsCollector{n},
		waysCollector{n},
		n.adds,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

// newAdds makes the histogram of the times that pods took to be attached: milliseconds, and on a node that starts a hundred pods at once many seconds.
func newAdds() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "middleway_cni_add_seconds", Help: "Time from the CNI plugin's request for a pod until it had told the runtime that the pod is attached.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40},
	})
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
	descPeerUp    = desc("peer_up", "1 if the peer answers, 0 if it does not; not there for a kernel's VXLAN device, which never does.", "peer")
	descPeerRTT   = desc("peer_rtt_seconds", "Last round trip to a peer that answers.", "peer")
	descPeerMTU   = desc("peer_mtu_bytes", "Largest packet that reaches the peer's pods, IP header included.", "peer")
	descSynced    = desc("kubernetes_synced", "1 once the cluster's objects were all told since the daemon's start, else 0. Without a cluster it is not there, as the following ones.")
	descReachable = desc("kubernetes_reachable", "1 while the API server answers, else 0; not there without an API server.")
	descObjects   = desc("kubernetes_objects", "Objects known of the cluster.", "kind")
	descChanges   = desc("kubernetes_changes_total", "Changes of the cluster that came into force, those that came together as one.")
	descDelay     = desc("kubernetes_change_seconds_total", "Time from when the daemon heard of changes until they were in force, of all of them.")
	descOffload   = desc("offload_info", "Always 1; the labels tell whether an offload is on, off or missing.", "offload", "state")
)

// Describe tells every metric.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descInfo, descMTU, descWorkers, descPackets, descBytes, descDrops, descErrors, descFlows, descEvictions, descPods, descPeers,
		descPeerUp, descPeerRTT, descPeerMTU, descOffload, descSynced, descReachable, descObjects, descChanges, descDelay,
	} {
		ch <- d
	}
}

// Collect reads every metric.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	cfg, st := &c.n.config, c.n.stack.Stats()
	gauge := func(d *prometheus.Desc, v int, labels ...string) { ch <- gaugeOf(d, float64(v), labels...) }
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descInfo, 1, cfg.Name, cfg.Address.String(), cfg.Version)
	gauge(descMTU, c.n.mtu)
	gauge(descWorkers, stack.Workers(cfg.Workers))
	count(descPackets, st.Packets)
	count(descBytes, st.Bytes)
	for _, reason := range packet.DropNames() { // from the start, so that a rate sees the first drop
		count(descDrops, st.Drops[reason], reason)
	}
	count(descErrors, st.ICMPErrors)
	gauge(descFlows, st.Flows)
	count(descEvictions, st.EvictedFlows)
	gauge(descPods, st.Attachments)
	gauge(descPeers, len(c.n.peers()))
	for name, o := range c.n.offloads {
		gauge(descOffload, 1, name, o.State)
	}
	c.collectPeers(ch)
	c.collectCluster(ch)
}

// collectCluster reads the metrics of the cluster.
func (c collector) collectCluster(ch chan<- prometheus.Metric) {
	if c.n.cluster.pipeline == nil {
		return
	}
	stats := c.n.cluster.pipeline.Stats()
	ch <- gaugeOf(descSynced, oneIf(stats.Synced))
	if c.n.cluster.api != nil {
		ch <- gaugeOf(descReachable, oneIf(c.n.cluster.api.Unreachable() == nil))
	}
	for kind, count := range stats.Objects {
		ch <- gaugeOf(descObjects, float64(count), kind)
	}
	ch <- prometheus.MustNewConstMetric(descChanges, prometheus.CounterValue, float64(stats.Changes))
	ch <- prometheus.MustNewConstMetric(descDelay, prometheus.CounterValue, stats.LatencySum.Seconds())
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// collectPeers reads the metrics of the peers.
func (c collector) collectPeers(ch chan<- prometheus.Metric) {
	kernel := map[netip.Addr]bool{}
	for _, p := range c.n.peers() {
		kernel[p.Address] = p.Kernel
	}
	for _, p := range c.n.peerStatus() {
		label := cmp.Or(p.Name, p.Address.String())
		ch <- gaugeOf(descPeerMTU, float64(p.MTU), label)
		switch {
		case p.State == string(tunnel.Up):
			ch <- gaugeOf(descPeerUp, 1, label)
			ch <- gaugeOf(descPeerRTT, time.Duration(p.RTT).Seconds(), label)
		case !kernel[p.Address]:
			ch <- gaugeOf(descPeerUp, 0, label)
		}
	}
}

func gaugeOf(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}
