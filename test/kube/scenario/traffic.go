package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/middleway-net/middleway/test/kube/cluster"
)

const trafficManifest = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      tolerations: [{operator: Exists}]
      containers:
      - name: web
        image: "${IMAGE}"
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1, failureThreshold: 60}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
` + clientPod

// The pace of each kind of traffic. A request may take as long as two attempts at resolving a name of which the first is lost, 5 s each.
const (
	trafficWorkers = 4
	trafficEvery   = 20 * time.Millisecond // of a worker
	trafficTimeout = 12 * time.Second
)

// nodePort is the kind of traffic that goes through sockets of a daemon.
const nodePort = "NodePort"

// traffic is requests of each kind that a cluster's users have, all at the same time.
type traffic struct {
	*T
	kinds []kind
}

type kind struct {
	name string
	load *Running
}

// trafficOf starts it between the first two nodes, once all of it works.
func trafficOf(ctx context.Context, t *T) (*traffic, error) {
	nodes := t.Cluster.AllNodes()
	if len(nodes) < 2 {
		return nil, errors.New("it needs two nodes: kube up --nodes 2")
	}
	if err := t.Apply(ctx, strings.ReplaceAll(trafficManifest, "CLIENT", nodes[0].Name)); err != nil {
		return nil, err
	}
	if _, err := t.Kubectl(ctx, "rollout", "status", "daemonset/web", "--timeout=3m"); err != nil {
		return nil, err
	}
	if err := t.PodsReady(ctx); err != nil {
		return nil, err
	}
	client, err := t.Client(ctx, "client")
	if err != nil {
		return nil, err
	}
	loads, err := t.trafficLoads(ctx, nodes[1])
	if err != nil {
		return nil, err
	}
	traffic := &traffic{T: t}
	for _, l := range loads {
		from := client
		if l.outside {
			from = t.Outside()
		}
		first := l.Load
		first.Requests = 1
		err := Eventually(ctx, 20*time.Second, func() error {
			r, err := from.once(ctx, first)
			if err == nil && len(r.Failures) > 0 {
				err = fmt.Errorf("%s: %s", l.name, r.Failures[0].Why)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		running, err := from.Load(ctx, l.Load)
		if err != nil {
			return nil, err
		}
		traffic.kinds = append(traffic.kinds, kind{l.name, running})
	}
	return traffic, nil
}

type trafficLoad struct {
	Load
	name    string
	outside bool
}

// trafficLoads are the kinds of traffic, of which those that say so go to a node.
func (t *T) trafficLoads(ctx context.Context, far *cluster.Node) ([]trafficLoad, error) {
	pod, err := t.Kubectl(ctx, "get", "pods", "-l", "app=web", "--field-selector", "spec.nodeName="+far.Name, "-o", "jsonpath={.items[0].status.podIP}")
	if err != nil {
		return nil, err
	}
	port, err := t.Kubectl(ctx, "get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}")
	if err != nil {
		return nil, err
	}
	service, err := t.URL(ctx, "web")
	if err != nil {
		return nil, err
	}
	resolver := netip.AddrPortFrom(t.Cluster.Plan.DNSService()[0], 53).String()
	kept := Load{URL: "http://" + bracketed(pod) + ":8080/hostname", KeepAlive: true}
	all := []trafficLoad{
		{name: "pod", Load: Load{URL: kept.URL}},
		{name: "pod, kept connection", Load: kept},
		{name: "Service", Load: Load{URL: service + "/hostname"}},
		{name: "name", Load: Load{URL: "http://web." + t.Namespace + ".svc.cluster.local/hostname", Resolver: resolver}},
		{name: nodePort, Load: Load{URL: "http://" + bracketed(t.Cluster.Plan.NodeAddrs(far.Number)[0].String()) + ":" + port + "/hostname"}, outside: true},
	}
	for i := range all {
		all[i].Timeout, all[i].Every, all[i].Workers = trafficTimeout, trafficEvery, trafficWorkers
	}
	return all, nil
}

// bracketed is an address as URLs have it.
func bracketed(addr string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]"
	}
	return addr
}

// during runs what happens to the cluster under traffic, while pods come and go, and tells of each kind of traffic what came of it, as an error
// where more requests failed than may, by the kind.
func during(ctx context.Context, t *T, happens func(context.Context) error, may map[string]int) error {
	traffic, err := trafficOf(ctx, t)
	if err != nil {
		return err
	}
	t.Say("requests are under way")
	pods, err := t.passingPods(ctx)
	if err != nil {
		return errors.Join(err, traffic.end(may))
	}
	err = happens(ctx)
	if err == nil {
		t.Say("what was to happen is over")
		err = after(ctx, settle)
	}
	return errors.Join(err, pods.end(ctx), traffic.end(may))
}

// settle is how long traffic goes on after what has happened.
const settle = 3 * time.Second

func after(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (t *traffic) end(may map[string]int) error {
	var errs []error
	for _, k := range t.kinds {
		r, err := k.load.Stop()
		if err == nil {
			err = t.Measure(k.name, r, may[k.name])
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
