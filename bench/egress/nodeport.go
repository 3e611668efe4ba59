package egress

import (
	"fmt"
	"net/netip"

	"github.com/middleway-net/middleway/bench"
	"github.com/middleway-net/middleway/lab/perf"
)

// The NodePorts of a Service with one pod: one for the streams that are measured, one for the load's control.
const (
	streamNodePort  = 30080
	controlNodePort = 30210
)

// nodePorts are the NodePorts and where they lead.
var nodePorts = []struct {
	name         string
	from, target uint16
}{
	{"stream", streamNodePort, bench.StreamPort},
	{"control", controlNodePort, perf.DefaultPort},
}

// joinInward is join for a way from the outside to a pod by NodePorts: f makes the pod as From, and a node.
func joinInward(pod netip.Addr, f func(*way) error) (*bench.Pair, error) {
	return join(func(w *way) error {
		if err := f(w); err != nil {
			return err
		}
		w.From, w.To, w.Addr = w.outside, w.From, pod
		w.Streams = []netip.AddrPort{netip.AddrPortFrom(nodeAddr.Addr(), streamNodePort)}
		w.Control = netip.AddrPortFrom(nodeAddr.Addr(), controlNodePort)
		return nil
	})
}

// kubeProxy is a NodePort as kube-proxy makes it by iptables, and a pod at the kernel's bridge.
type kubeProxy struct{}

func (kubeProxy) Name() string { return "kube-proxy" }

func (kubeProxy) Join(mtu int) (*bench.Pair, error) {
	return joinInward(podAddr.Addr(), func(w *way) error {
		if err := w.makeNode(); err != nil {
			return err
		}
		pod, err := w.bridge(mtu)
		if err != nil {
			return err
		}
		w.From = pod.Namespace
		return iptables(w.node, kubeProxyRules()...)
	})
}

// kubeProxyRules are the chains that a NodePort's packet passes in kube-proxy's iptables mode for a Service of one endpoint, whose policy is
// Cluster (kubernetes pkg/proxy/iptables/proxier.go).
func kubeProxyRules() []string {
	rules := []string{
		":KUBE-SERVICES - [0:0]", ":KUBE-NODEPORTS - [0:0]", ":KUBE-MARK-MASQ - [0:0]", ":KUBE-POSTROUTING - [0:0]",
		"-A PREROUTING -j KUBE-SERVICES",
		"-A OUTPUT -j KUBE-SERVICES",
		"-A POSTROUTING -j KUBE-POSTROUTING",
		"-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
		"-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
		"-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
		"-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
		"-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
	}
	for i, p := range nodePorts {
		ext, svc, sep := fmt.Sprint("KUBE-EXT-", i), fmt.Sprint("KUBE-SVC-", i), fmt.Sprint("KUBE-SEP-", i)
		rules = append(rules, ":"+ext+" - [0:0]", ":"+svc+" - [0:0]", ":"+sep+" - [0:0]",
			fmt.Sprintf("-A KUBE-NODEPORTS -p tcp -m tcp --dport %d -j %s", p.from, ext),
			fmt.Sprintf("-A %s -j KUBE-MARK-MASQ", ext),
			fmt.Sprintf("-A %s -j %s", ext, svc),
			fmt.Sprintf("-A %s -j %s", svc, sep),
			fmt.Sprintf("-A %s -s %s -j KUBE-MARK-MASQ", sep, podAddr.Addr()),
			fmt.Sprintf("-A %s -p tcp -m tcp -j DNAT --to-destination %s:%d", sep, podAddr.Addr(), p.target))
	}
	return rules
}
