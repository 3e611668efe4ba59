package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/middleway-net/middleway/k8s/informers"
	"github.com/middleway-net/middleway/k8s/nodes"
	"github.com/middleway-net/middleway/node/parent"
)

// withdrawPatience is how long the API server has to take what a node takes back.
const withdrawPatience = 15 * time.Second

// withdraw takes what the node has announced off its Node object, so that the others have it no more as a peer; with toFlannel merely that it is a
// middleway node.
func withdraw(c *Config, toFlannel bool, log *slog.Logger) error {
	if !c.Kubernetes.hasAPI() {
		return nil
	}
	conf := informers.Config{
		Kubeconfig: c.Kubernetes.Kubeconfig, Server: c.Kubernetes.Server, ServiceCIDRs: c.servicesOfAPI(), Node: c.Name, Agent: "middleway/" + c.Version, Logger: log,
	}
	if c.OutsideSockets != "" {
		outside, err := parent.Dial(c.OutsideSockets)
		if err != nil {
			return err
		}
		defer outside.Close()
		conf.Dial = apiDialer{outside}.DialContext
	}
	api, err := informers.New(conf)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), withdrawPatience)
	defer cancel()
	mark, annotations := nodes.Annotations()
	gone := annotations[0]
	if toFlannel {
		gone, annotations = mark, nil
	}
	was, err := api.Withdraw(ctx, mark, annotations)
	if err != nil {
		return fmt.Errorf("%w; the node itself is clean, and `kubectl annotate node %s %s-` takes its annotation back", err, c.Name, gone)
	}
	if was {
		log.Info("the node has taken back what it announced", "node", c.Name)
	}
	return nil
}
