package egress

import (
	"fmt"
	"strings"

	"github.com/middleway-net/middleway/bench"
	"github.com/middleway-net/middleway/lab"
)

// kernel is what a cluster with netfilter has: a node whose kernel forwards between veth pairs and translates the pod's address
// (MASQUERADE).
type kernel struct{}

func (kernel) Name() string { return "kernel" }

func (kernel) Join(mtu int) (*bench.Pair, error) {
	return join(func(w *way) error {
		if err := w.makeNode(); err != nil {
			return err
		}
		pod, err := w.bridge(mtu)
		if err != nil {
			return err
		}
		w.From = pod.Namespace
		return iptables(w.node, fmt.Sprintf("-A POSTROUTING -s %s -o %s -j MASQUERADE --random-fully", podAddr.Masked(), outsideDevice))
	})
}

// bridge gives the node a pod by the kernel, with the address podAddr.
func (w *way) bridge(mtu int) (*lab.KernelPod, error) {
	b, err := lab.NewKernelBridge(w.node, mtu, podAddr.Masked())
	if err != nil {
		return nil, err
	}
	w.OnClose(b.Close)
	return b.AddPod()
}

// iptables carries out lines of iptables-save's table nat in a namespace.
func iptables(n *lab.Namespace, lines ...string) error {
	path, err := find("iptables-restore")
	if err != nil {
		return err
	}
	p := lab.Exec(n, path, "--noflush")
	p.Input = strings.NewReader("*nat\n" + strings.Join(lines, "\n") + "\nCOMMIT\n")
	if err := p.Start(); err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("%w: netfilter: %w: %s", errLacking, err, strings.TrimSpace(p.Tail()))
	}
	return nil
}
