package main

import (
	"context"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/k8s/remote"
)

// runRemote asks the daemons of a real cluster.
func (f *flowsFlags) runRemote(cmd *cobra.Command, name string) error {
	ctx := cmd.Context()
	c, err := f.open(cmd, &f.namespace)
	if err != nil {
		return err
	}
	all, err := c.Daemons(ctx)
	if err != nil {
		return err
	}
	f.names = map[string]string{}
	for _, d := range all {
		for _, a := range d.Addresses {
			f.names["peer "+a.String()] = "peer " + d.Node
		}
	}
	f.pods = func(namespace, name string) ([]netip.Addr, error) { return podAddrs(ctx, c, namespace, name) }
	req, err := f.request()
	if err != nil {
		return err
	}
	daemons, missing, err := daemonsOf(ctx, c, strings.TrimPrefix(name, nodePrefix), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	p, limit := f.printer(cmd), atOnce
	if f.follow {
		limit = 0
	}
	failed := askEach(ctx, daemons, limit, cmd.ErrOrStderr(), func(_ int, d daemon) error { return d.client.Flows(ctx, req, p.see) })
	if err := p.end(); err != nil || !failed && !missing {
		return err
	}
	return errSilent
}

// podAddrs returns the addresses of a pod of a real cluster.
func podAddrs(ctx context.Context, c *remote.Cluster, namespace, name string) (all []netip.Addr, err error) {
	p, err := c.Pod(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			all = append(all, a)
		}
	}
	return all, nil
}
