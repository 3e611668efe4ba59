package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// replicas is how many pods a Deployment of the story has.
const replicas = 20

// deploymentLimit is how long all of it may take.
const deploymentLimit = time.Minute

const deploymentManifest = `
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: client, image: "${IMAGE}", args: [pause]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: "${IMAGE}"
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
`

// deployment applies a Deployment and a Service, and waits until a pod that comes with them has heard every pod by the Service's
// name.
func deployment(ctx context.Context, t *T) error {
	begin := time.Now()
	if err := t.Apply(ctx, fmt.Sprintf(deploymentManifest, replicas)); err != nil {
		return err
	}
	if _, err := t.Kubectl(ctx, "rollout", "status", "deployment/web", "--timeout=3m"); err != nil {
		return err
	}
	if err := t.PodsReady(ctx); err != nil {
		return err
	}
	t.Figures["all pods ready s"] = time.Since(begin).Seconds()
	t.Say("%d pods are Ready", replicas)

	heard := map[string]bool{}
	ask := fmt.Sprintf("for i in $(seq %d); do curl -sS --max-time 2 http://web.%s.svc.cluster.local/hostname; echo; done", 5*replicas, t.Namespace)
	err := Eventually(ctx, time.Minute, func() error {
		out, err := t.Kubectl(ctx, "exec", "client", "--", "sh", "-c", ask)
		if err != nil {
			return err
		}
		for _, name := range strings.Fields(out) {
			heard[name] = true
		}
		if len(heard) != replicas {
			return fmt.Errorf("%d of %d pods answered by the Service's name", len(heard), replicas)
		}
		return nil
	})
	if err != nil {
		return err
	}
	took := time.Since(begin)
	t.Figures["all pods heard by name s"] = took.Seconds()
	if took > deploymentLimit {
		return fmt.Errorf("it took %.0f s until all pods were reached, and should be within %.0f s", took.Seconds(), deploymentLimit.Seconds())
	}
	return nil
}
