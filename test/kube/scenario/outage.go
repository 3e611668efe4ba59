package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/middleway-net/middleway/test/kube/cluster"
)

const outageManifest = `
apiVersion: v1
kind: Pod
metadata: {name: files, labels: {app: files}}
spec:
  nodeName: SERVER
  terminationGracePeriodSeconds: 0
  containers:
  - name: files
    image: "${IMAGE}"
    command: [sh, -c, "mkdir /www && head -c 200000000 /dev/urandom >/www/blob && sha256sum /www/blob >/www/sum && exec busybox httpd -f -p 8080 -h /www"]
    readinessProbe: {httpGet: {path: /sum, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: files}
spec: {selector: {app: files}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
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
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
` + clientPod

// outageLength is how long the API server is away, unless somebody says otherwise.
const outageLength = time.Minute

// transferRate is that of the transfer, in bytes per second: it lasts 10 s, in which two daemons are killed.
const transferRate = 20_000_000

// outage stops the API server, kills the daemons at both ends of a transfer while it is under way, and looks that Services are served
// all the while, and that the tables follow when the API server is back.
func outage(ctx context.Context, t *T) error {
	nodes := t.Cluster.AllNodes()
	if len(nodes) < 2 {
		return errors.New("it needs two nodes: kube up --nodes 2")
	}
	if err := t.rollout(ctx); err != nil { // see crash
		return err
	}
	client, server := nodes[0], nodes[1]
	if err := t.Apply(ctx, strings.NewReplacer("CLIENT", client.Name, "SERVER", server.Name).Replace(outageManifest)); err != nil {
		return err
	}
	if _, err := t.Kubectl(ctx, "rollout", "status", "deployment/web", "--timeout=3m"); err != nil {
		return err
	}
	if err := t.PodsReady(ctx); err != nil {
		return err
	}
	o := outageTest{T: t, server: server}
	if err := o.look(ctx); err != nil {
		return err
	}
	if err := o.client.Backends(ctx, o.web, 2); err != nil {
		return err
	}
	load, err := o.client.Load(ctx, Load{URL: o.web, Workers: 4, Every: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	err = o.away(ctx)
	result, loadErr := load.Stop()
	if err := errors.Join(err, loadErr); err != nil {
		return err
	}
	if err := t.Measure("without API server", result, 0); err != nil {
		return err
	}
	return o.back(ctx)
}

// outageTest is what outage looks at.
type outageTest struct {
	*T
	client     Client
	server     *cluster.Node
	web, files string // URLs by the Services' addresses
	sum        string // of the file
}

// look learns while the API server is there what is not to be had later.
func (o *outageTest) look(ctx context.Context) error {
	var err error
	if o.client, err = o.Client(ctx, "client"); err != nil {
		return err
	}
	if o.web, err = o.URL(ctx, "web"); err != nil {
		return err
	}
	if o.files, err = o.URL(ctx, "files"); err != nil {
		return err
	}
	o.web += "/hostname"
	sum, err := o.client.Get(ctx, o.files+"/sum")
	o.sum, _, _ = strings.Cut(sum, " ")
	return err
}

// away is what happens while the API server is away.
func (o *outageTest) away(ctx context.Context) error {
	control := o.Cluster.AllNodes()[0]
	if err := control.Stop(ctx, "kube-apiserver"); err != nil {
		return err
	}
	gone := time.Now()
	o.Say("the API server is stopped")
	if err := o.transfer(ctx); err != nil {
		return errors.Join(err, control.Start(ctx, "kube-apiserver"))
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(gone.Add(cmp.Or(o.For, outageLength)))):
	}
	err := o.client.Backends(ctx, o.web, 2)
	return errors.Join(err, control.Start(ctx, "kube-apiserver"), o.Cluster.APIReady(ctx))
}

// transfer fetches the file, kills a daemon after each third of it, and compares what came.
func (o *outageTest) transfer(ctx context.Context) error {
	r, err := o.client.Load(ctx, Load{URL: o.files + "/blob", Requests: 1, Timeout: outageLength, Hash: true, Rate: transferRate})
	if err != nil {
		return err
	}
	for _, n := range []*cluster.Node{o.client.Node(), o.server} {
		select {
		case <-ctx.Done():
		case <-time.After(3 * time.Second):
		}
		killed, err := n.KillProgram("middleway", "node")
		if err == nil && killed == 0 {
			err = fmt.Errorf("no daemon of middleway runs on %s", n.Name)
		}
		if err != nil {
			_, stopped := r.Stop()
			return errors.Join(err, stopped)
		}
		o.Say("the daemon of %s is killed in the middle of the transfer", n.Name)
	}
	result, err := r.Wait()
	if err != nil {
		return err
	}
	if len(result.Failures) > 0 {
		return fmt.Errorf("the transfer ended early: %s", result.Failures[0].Why)
	}
	if result.Bodies[o.sum] != 1 {
		return fmt.Errorf("what was transferred is not what was sent: got %v, want %s", slices.Collect(maps.Keys(result.Bodies)), o.sum)
	}
	o.Say("the transfer went on to its end in %.1f s, and nothing of it is changed", result.Longest.Seconds())
	return nil
}

// back looks that what changes reaches the nodes again.
func (o *outageTest) back(ctx context.Context) error {
	o.Say("the API server is back")
	for _, replicas := range []int{4, 1} {
		if _, err := o.Kubectl(ctx, "scale", "deployment/web", fmt.Sprint("--replicas=", replicas)); err != nil {
			return err
		}
		if _, err := o.Kubectl(ctx, "rollout", "status", "deployment/web", "--timeout=2m"); err != nil {
			return err
		}
		o.Say("the Deployment has %d pods", replicas)
		if err := o.client.Backends(ctx, o.web, replicas); err != nil {
			return err
		}
	}
	return nil
}
