package scenario

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

const rebootManifest = `
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
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
` + clientPod

// reboot takes the power from the last node and gives it back, and looks that its pods are reached again from another node.
func reboot(ctx context.Context, t *T) error {
	nodes := t.Cluster.AllNodes()
	if len(nodes) < 2 {
		return errors.New("it needs two nodes: kube up --nodes 2")
	}
	first, last := nodes[0], nodes[len(nodes)-1]
	if err := t.Apply(ctx, strings.ReplaceAll(rebootManifest, "CLIENT", first.Name)); err != nil {
		return err
	}
	if _, err := t.Kubectl(ctx, "rollout", "status", "daemonset/web", "--timeout=3m"); err != nil {
		return err
	}
	if err := t.PodsReady(ctx); err != nil {
		return err
	}
	client, err := t.Client(ctx, "client")
	if err != nil {
		return err
	}
	url, err := t.URL(ctx, "web")
	if err != nil {
		return err
	}
	if err := client.Backends(ctx, url+"/hostname", len(nodes)); err != nil {
		return err
	}
	before, err := t.holdings(ctx)
	if err != nil {
		return err
	}
	if err := last.Crash(); err != nil {
		return err
	}
	t.Say("%s has lost its power", last.Name)
	begin := time.Now()
	if err := last.Boot(ctx); err != nil {
		return err
	}
	if err := t.podOn(ctx, last.Name, begin); err != nil {
		return err
	}
	t.Say("%s runs its pod again", last.Name)
	if err := client.Backends(ctx, url+"/hostname", len(nodes)); err != nil {
		return err
	}
	t.Figures["from power to all pods reached s"] = time.Since(begin).Seconds()
	return t.nothingLeft(ctx, before)
}

// podOn waits until the container on a node has begun after a time, and its pod is Ready.
func (t *T) podOn(ctx context.Context, node string, after time.Time) error {
	return Eventually(ctx, 3*time.Minute, func() error {
		out, err := t.Kubectl(ctx, "get", "pods", "-l", "app=web", "--field-selector", "spec.nodeName="+node, "-o",
			`jsonpath={.items[*].status.containerStatuses[0].state.running.startedAt} {.items[*].status.containerStatuses[0].ready}`)
		if err != nil {
			return err
		}
		began, ready, _ := strings.Cut(strings.TrimSpace(out), " ")
		at, err := time.Parse(time.RFC3339, began)
		if err != nil || at.Before(after.Truncate(time.Second)) || ready != "true" {
			return fmt.Errorf("the pod on %s: container began %q, ready %q", node, began, ready)
		}
		return nil
	})
}
