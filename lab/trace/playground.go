package trace

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab/control"
	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/lab/tool"
	"github.com/middleway-net/middleway/node"
)

// inPlayground is the playground of a state directory.
type inPlayground struct {
	dir    string
	status playground.Status
}

var _ Cluster = (*inPlayground)(nil)

// Playground returns the playground in a state directory.
func Playground(ctx context.Context, dir string) (Cluster, error) {
	st, err := playground.ReadStatus(ctx, dir)
	return &inPlayground{dir, st}, err
}

func (c *inPlayground) Pod(_ context.Context, namespace, name string) (*Pod, error) {
	i := slices.IndexFunc(c.status.Pods, func(p playground.PodStatus) bool { return p.Namespace == namespace && p.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("there is no pod %s/%s; `middleway get pods -A` lists them", namespace, name)
	}
	p := &c.status.Pods[i]
	return &Pod{
		Namespace: p.Namespace, Name: p.Name, Node: p.Node, IPs: p.IPs, HostNetwork: p.HostNetwork, Reason: p.Reason(),
		ResolvConf: func(node.DNSStatus) (tool.ResolvConf, error) {
			text, err := os.ReadFile(playground.PodFile(c.dir, p.UID, "resolv.conf"))
			return tool.ParseResolvConf(string(text)), err
		},
	}, nil
}

func (c *inPlayground) Service(ctx context.Context, namespace, name string) (*corev1.Service, error) {
	objects, err := playground.List(ctx, c.dir, control.Query{Kind: "services"})
	for _, o := range objects {
		if s := o.(*corev1.Service); s.Namespace == namespace && s.Name == name {
			return s, nil
		}
	}
	return nil, err
}

func (c *inPlayground) Daemon(_ context.Context, name string, addr netip.Addr) (*node.Client, error) {
	for _, n := range c.status.Nodes {
		if n.Name == name || n.Underlay == addr {
			return node.In(n.RunDir), nil
		}
	}
	return nil, fmt.Errorf("it is no node of the cluster in %s", c.dir)
}
