package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/middleway-net/middleway/test/kube/cluster"
	"github.com/middleway-net/middleway/test/kube/inspect"
	"github.com/middleway-net/middleway/test/kube/network"
)

// endManifest is a pod at one end of the border, which asks and is asked.
const endManifest = `
apiVersion: v1
kind: Pod
metadata: {name: NODE, labels: {app: steady}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  containers: [{name: web, image: "${IMAGE}", args: [netexec, --http-port=8080], readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}}]
`

// moveManifest has a Service of the pods at both ends, and one of a pod on every node.
const moveManifest = `
apiVersion: v1
kind: Service
metadata: {name: steady}
spec: {selector: {app: steady}, ports: [{port: 80, targetPort: 8080}]}
---
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
      containers: [{name: web, image: "${IMAGE}", args: [netexec, --http-port=8080], readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// moveTest is what move looks at while one node moves: pods on two others, one of middleway and one of flannel.
type moveTest struct {
	*T
	moves       *cluster.Node
	to          []string          // networks that it gets, one after the other
	ends        map[string]Client // by their pods, which are called as the nodes
	steady, web string            // URLs by the Services' addresses
}

// move moves the nodes of a mixed cluster but the first one, there and back, while pods of the others speak with each other over the border: by
// connections that last, and by new ones through a Service.
func move(ctx context.Context, t *T) error {
	nodes := t.Cluster.AllNodes()
	if !network.IsMixed(t.Cluster) || len(nodes) != 3 {
		return errors.New("it needs a mixed cluster of three nodes: kube up --network mixed --nodes 3")
	}
	if err := t.Apply(ctx, moveManifest); err != nil {
		return err
	}
	if _, err := t.Kubectl(ctx, "rollout", "status", "daemonset/web", "--timeout=3m"); err != nil {
		return err
	}
	middleway, second, last := nodes[0], nodes[1], nodes[2] // the last one has flannel
	for _, part := range []struct {
		moves, border *cluster.Node
		to            []string
	}{
		{second, last, []string{"flannel"}},
		{last, second, []string{"middleway", "flannel"}},
		{second, last, []string{"middleway"}},
	} {
		if err := t.moveOne(ctx, part.moves, []*cluster.Node{middleway, part.border}, part.to); err != nil {
			return fmt.Errorf("while %s moves: %w", part.moves.Name, err)
		}
	}
	return nil
}

// moveOne moves a node while pods of two others speak with each other.
func (t *T) moveOne(ctx context.Context, moves *cluster.Node, ends []*cluster.Node, to []string) error {
	m := moveTest{T: t, moves: moves, to: to, ends: map[string]Client{}}
	if _, err := t.Kubectl(ctx, "delete", "pod", moves.Name, "--ignore-not-found"); err != nil { // an end of before, which would be evicted
		return err
	}
	for _, n := range ends {
		if err := t.Apply(ctx, strings.ReplaceAll(endManifest, "NODE", n.Name)); err != nil {
			return err
		}
	}
	if err := t.PodsReady(ctx); err != nil {
		return err
	}
	if err := m.look(ctx, ends); err != nil {
		return err
	}
	if err := m.reached(ctx); err != nil {
		return err
	}
	loads, err := m.begin(ctx)
	if err == nil {
		err = m.run(ctx)
	}
	return errors.Join(err, m.end(loads))
}

func (m *moveTest) look(ctx context.Context, ends []*cluster.Node) (err error) {
	for _, n := range ends {
		if m.ends[n.Name], err = m.Client(ctx, n.Name); err != nil {
			return err
		}
	}
	if m.steady, err = m.URL(ctx, "steady"); err != nil {
		return err
	}
	m.web, err = m.URL(ctx, "web")
	return err
}

// lasting is how many connections last from one end to the other for the whole time.
const lasting = 4

// begin starts requests over the border, both ways.
func (m *moveTest) begin(ctx context.Context) (map[string]*Running, error) {
	loads := map[string]*Running{}
	what := m.moves.Name + " goes to " + strings.Join(m.to, " and ")
	for from, client := range m.ends {
		for to := range m.ends {
			if to == from {
				continue
			}
			ip, err := m.Kubectl(ctx, "get", "pod", to, "-o", "jsonpath={.status.podIP}")
			if err != nil {
				return loads, err
			}
			direct := fmt.Sprintf("%s to %s while %s,", from, to, what)
			l, err := client.Load(ctx, Load{URL: "http://" + ip + ":8080/hostname", KeepAlive: true, Workers: lasting, Every: 50 * time.Millisecond})
			if err != nil {
				return loads, err
			}
			loads[direct] = l
		}
		l, err := client.Load(ctx, Load{URL: m.steady + "/hostname", Workers: 2, Every: 50 * time.Millisecond})
		if err != nil {
			return loads, err
		}
		loads[fmt.Sprintf("%s to a Service while %s,", from, what)] = l
	}
	return loads, nil
}

// end ends the requests. None may have failed, and no connection that lasts may have been lost.
func (m *moveTest) end(loads map[string]*Running) error {
	var errs []error
	for name, load := range loads {
		r, err := load.Stop()
		if err == nil {
			err = m.Measure(name, r, 0)
		}
		if err == nil && r.Lost > 0 {
			err = fmt.Errorf("%s %d of %d connections that should last were lost", name, r.Lost, lasting)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// reached looks that the pods of all nodes are reached by a Service from both sides of the border and from the node that moves, and that names
// are answered there.
func (m *moveTest) reached(ctx context.Context) error {
	pod, err := m.Kubectl(ctx, "get", "pods", "-l", "app=web", "--field-selector", "spec.nodeName="+m.moves.Name, "-o", "jsonpath={.items[0].metadata.name}")
	if err != nil {
		return err
	}
	moved, err := m.Client(ctx, pod)
	if err != nil {
		return err
	}
	ip, err := m.Kubectl(ctx, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		return err
	}
	for _, c := range m.ends {
		if err := c.Backends(ctx, m.steady+"/hostname", len(m.ends)); err != nil {
			return fmt.Errorf("from a pod of %s: %w", c.Node().Name, err)
		}
	}
	for _, c := range append(slices.Collect(maps.Values(m.ends)), moved) {
		if err := c.Backends(ctx, m.web+"/hostname", len(m.Cluster.AllNodes())); err != nil {
			return fmt.Errorf("from a pod of %s: %w", c.Node().Name, err)
		}
		for _, over := range []string{"+notcp", "+tcp"} {
			out, err := c.Output(ctx, "dig", "+short", over, "@"+m.Cluster.DNSService()[0].String(), "web."+m.Namespace+".svc.cluster.local")
			if err == nil && strings.TrimSpace(out) != ip {
				err = fmt.Errorf("dig %s: got %q, want %s", over, out, ip)
			}
			if err != nil {
				return fmt.Errorf("from a pod of %s: %w", c.Node().Name, err)
			}
		}
	}
	return nil
}

// run moves the node. Its range and the addresses of its tunnel stay.
func (m *moveTest) run(ctx context.Context) error {
	before, err := m.identity(ctx)
	if err != nil {
		return err
	}
	for _, to := range m.to {
		begin := time.Now()
		if err := network.Move(ctx, m.Cluster, m.moves, to, m.Say); err != nil {
			return err
		}
		if _, err := m.Kubectl(ctx, "rollout", "status", "daemonset/web", "--timeout=3m"); err != nil {
			return err
		}
		if err := Eventually(ctx, time.Minute, func() error { return m.reached(ctx) }); err != nil {
			return err
		}
		m.Figures[m.moves.Name+" to "+to+" s"] = time.Since(begin).Seconds()
		m.Say("%s has %s, and its pods are reached", m.moves.Name, to)
		after, err := m.identity(ctx)
		if err != nil {
			return err
		}
		if before != after {
			return fmt.Errorf("%s was %+v, and with %s it is %+v", m.moves.Name, before, to, after)
		}
		// A pod's namespace, and with it the device at its other end, goes when the kernel comes round to it.
		if err := Eventually(ctx, time.Minute, func() error { return m.clean(ctx, to) }); err != nil {
			return err
		}
	}
	return nil
}

// identity is what others know a node by.
type identity struct{ PodCIDR, VTEP string }

func (m *moveTest) identity(ctx context.Context) (i identity, err error) {
	text, err := m.Kubectl(ctx, "get", "node", m.moves.Name, "-o", "json")
	if err != nil {
		return i, err
	}
	var n struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
		Spec struct {
			PodCIDR string `json:"podCIDR"`
		} `json:"spec"`
	}
	err = json.Unmarshal([]byte(text), &n)
	return identity{n.Spec.PodCIDR, n.Metadata.Annotations["flannel.alpha.coreos.com/backend-data"]}, err
}

// clean looks that the node has nothing of the network that it left.
func (m *moveTest) clean(ctx context.Context, has string) error {
	if has == "middleway" {
		found, err := m.moves.Findings()
		found = slices.DeleteFunc(found, func(f inspect.Finding) bool {
			return network.Beside(m.Cluster, "kube-proxy") && strings.Contains(f.What, "kube-proxy")
		})
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("%s holds %d rules and devices of flannel or kube-proxy, the first is %s", m.moves.Name, len(found), found[0].What)
		}
		return err
	}
	kernel, err := m.moves.Kernel()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(kernel.Devices, func(d string) bool { return strings.HasPrefix(d, "mw0 ") }); i >= 0 {
		return fmt.Errorf("%s still has middleway's device mw0", m.moves.Name)
	}
	cmd, err := m.moves.Command(ctx, "sh", "-c", "find /etc/cni/net.d /opt/cni/bin -name '*middleway*'; find /run -mindepth 2 -path '/run/middleway/*'")
	left, err := cluster.Output(cmd, err)
	if err == nil && left != "" {
		err = fmt.Errorf("%s still has files of middleway: %s", m.moves.Name, strings.ReplaceAll(strings.TrimSpace(left), "\n", ", "))
	}
	return err
}
