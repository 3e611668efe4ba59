package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/middleway-net/middleway/k8s"
	"github.com/middleway-net/middleway/k8s/folder"
	"github.com/middleway-net/middleway/k8s/informers"
	"github.com/middleway-net/middleway/k8s/nodes"
	"github.com/middleway-net/middleway/k8s/object"
	"github.com/middleway-net/middleway/node/parent"
	"github.com/middleway-net/middleway/node/underlay"
)

// openSource opens where the cluster's objects come from; nil where there is no cluster.
func (n *Node) openSource() (err error) {
	n.cluster.unsaid, n.cluster.outdated = make(chan map[string]string, 1), make(chan error, 1)
	c := n.config.Kubernetes
	switch {
	case c.hasAPI():
		conf := informers.Config{
			Kubeconfig: c.Kubeconfig, Server: c.Server, ServiceCIDRs: n.config.servicesOfAPI(), Node: n.config.Name,
			Pod: object.Key{Namespace: n.config.PodNamespace, Name: n.config.PodName}, Agent: "middleway/" + n.config.Version, Logger: n.log,
		}
		if n.config.OutsideSockets != "" {
			if n.cluster.outside, err = parent.Dial(n.config.OutsideSockets); err != nil {
				return err
			}
			conf.Dial = apiDialer{n.cluster.outside}.DialContext
		}
		if n.cluster.api, err = informers.New(conf); err != nil {
			n.cluster.api = nil
			return err
		}
		n.cluster.source, n.troubles.warn = n.cluster.api, n.cluster.api.Warn
	case c.Folder != "":
		n.cluster.source = &folder.Source{Dir: c.Folder, Log: n.log}
	}
	return err
}

// servicesOfAPI returns the ranges in which the API server's address must not lie.
func (c *Config) servicesOfAPI() []netip.Prefix {
	if c.Services.BesideKubeProxy {
		return nil // which leads there
	}
	return c.Services.CIDRs
}

// learn completes the configuration from this node's object. What a former daemon learned is taken as it is: pods have been living by it,
// and the API server may be down. If that is out of date the daemon ends as soon as it knows better (ownNode).
func (n *Node) learn(ctx context.Context) error {
	if n.cluster.source == nil {
		return nil
	}
	self, err := readSelf(n.config.RunDir, n.config.Name)
	if self == nil && err == nil {
		if n.cluster.api != nil {
			self, err = n.cluster.api.Node(ctx, n.tellWaits)
		} else {
			self, err = nodeOf(ctx, n.cluster.source, n.config.Name, n.log)
		}
	}
	if err != nil {
		return err
	}
	n.cluster.self = self
	if len(n.config.PodCIDRs) == 0 {
		n.cluster.ranges = self.PodCIDRs
	}
	n.config.take(self)
	return n.config.check()
}

// tellWaits says what the start waits for.
func (n *Node) tellWaits(waits string) {
	n.log.Info(waits)
	n.http.waits.Store(&waits)
}

// take takes from the node's object what the configuration leaves out.
func (c *Config) take(self *object.Node) {
	if len(c.PodCIDRs) == 0 {
		c.PodCIDRs = self.PodCIDRs
	}
	if !c.Address.IsValid() && c.Underlay == (underlay.Config{}) && c.Sockets == "" {
		c.Address = firstOf(self.Addresses)
	}
	if len(c.NodeAddresses) == 0 {
		c.NodeAddresses = slices.DeleteFunc(slices.Clone(self.Addresses), func(a netip.Addr) bool { return !reachable(a) })
	}
	if !c.PublicAddress.IsValid() {
		c.PublicAddress = nodes.Overwritten(self.Annotations, c.underlayV6())
	}
	if mac, ok := nodes.StoredMAC(self.Annotations, c.underlayV6()); ok && c.VXLAN.MAC == "" {
		c.VXLAN.MAC = mac.String()
	}
	if c.Address.IsValid() {
		c.setAddress(c.Address)
	}
}

// firstOf returns the first IPv4 address, else the first one, else none.
func firstOf(addrs []netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Is4() {
			return a
		}
	}
	if len(addrs) > 0 {
		return addrs[0]
	}
	return netip.Addr{}
}

// nodeOf waits until a source tells this node's object with ranges for its pods.
func nodeOf(ctx context.Context, source k8s.Source, name string, log *slog.Logger) (*object.Node, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	store, ended := k8s.NewStore(), make(chan error, 1)
	go func() { ended <- source.Run(ctx, store) }()
	log.Info("waiting for the Node object " + name + " with a range for its pods (spec.podCIDRs)")
	for {
		if self, _ := store.Get(object.Nodes, object.Key{Name: name}).(*object.Node); self != nil && len(self.PodCIDRs) > 0 {
			cancel()
			return self, <-ended
		}
		select {
		case err := <-ended:
			return nil, errors.Join(err, context.Cause(ctx))
		case <-store.Changed():
		}
	}
}

// selfName is the name, in the run directory, of the file with this node's object.
const selfName = "node.json"

// readSelf returns what a former daemon learned; nil if there was none.
func readSelf(runDir, name string) (*object.Node, error) {
	path := filepath.Join(runDir, selfName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var self object.Node
	if err == nil {
		err = json.Unmarshal(b, &self)
	}
	if err != nil {
		return nil, fmt.Errorf("read what was known of this node from %s: %w; remove the file", path, err)
	}
	if self.Name != name || len(self.PodCIDRs) == 0 {
		return nil, nil // that of another node
	}
	return &self, nil
}

// recordSelf writes this node's object down for the next daemon.
func (n *Node) recordSelf() error { return n.writeSelf(n.cluster.self) }

func (n *Node) writeSelf(self *object.Node) error {
	if self == nil {
		return nil
	}
	b, err := json.Marshal(self)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(n.config.RunDir, selfName), b); err != nil {
		return fmt.Errorf("write down what is known of this node: %w; make runDir writable, or choose another one", err)
	}
	return nil
}
