package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const passingManifest = `
apiVersion: v1
kind: Pod
metadata: {name: passing-NODE, labels: {app: passing}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 0
  automountServiceAccountToken: false
  tolerations: [{operator: Exists}]
  containers:
  - name: web
    image: "${IMAGE}"
    args: [netexec, --http-port=8080]
    readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1, failureThreshold: 60}
---
`

// passingPatience is how long a pod that passes may take to be Ready, or to go, while what it needs is away.
const passingPatience = 2 * time.Minute

// passing is pods that come and go on every node, one after the other, until end is called.
type passing struct {
	t       *T
	ending  chan struct{}
	ended   chan error
	before  []holding
	rounds  int
	slowest time.Duration // until a round's pods were Ready
}

// passingPods has pods come and go from now on.
func (t *T) passingPods(ctx context.Context) (*passing, error) {
	before, err := t.holdings(ctx)
	if err != nil {
		return nil, err
	}
	p := &passing{t: t, before: before, ending: make(chan struct{}), ended: make(chan error, 1)}
	go func() { p.ended <- p.run(ctx) }()
	return p, nil
}

func (p *passing) run(ctx context.Context) error {
	var pods strings.Builder
	for _, n := range p.t.Cluster.AllNodes() {
		pods.WriteString(strings.ReplaceAll(passingManifest, "NODE", n.Name))
	}
	timeout := "--timeout=" + passingPatience.String()
	for {
		begin := time.Now()
		if err := p.t.Apply(ctx, pods.String()); err != nil {
			return err
		}
		if _, err := p.t.Kubectl(ctx, "wait", "pod", "-l", "app=passing", "--for=condition=Ready", timeout); err != nil {
			return err
		}
		p.slowest = max(p.slowest, time.Since(begin))
		if _, err := p.t.Kubectl(ctx, "delete", "pod", "-l", "app=passing", timeout); err != nil {
			return err
		}
		p.rounds++
		select {
		case <-p.ending:
			return nil
		default:
		}
	}
}

// end waits for the last pods to go, and looks that nothing of any is left.
func (p *passing) end(ctx context.Context) error {
	close(p.ending)
	if err := <-p.ended; err != nil {
		return fmt.Errorf("pods that come and go: %w", err)
	}
	nodes := len(p.before)
	p.t.Figures["pods that came and went"], p.t.Figures["pods ready at last s"] = float64(p.rounds*nodes), p.slowest.Seconds()
	p.t.Say("%d pods came and went on %d nodes meanwhile, Ready within %.1f s", p.rounds*nodes, nodes, p.slowest.Seconds())
	return p.t.nothingLeft(ctx, p.before)
}
