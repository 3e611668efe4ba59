package up

import (
	"strings"
	"sync"
	"testing"
)

// shop is a Deployment behind a Service, and who buys there.
const shop = `apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
      - name: main
        image: nginx
        ports: [{name: http, containerPort: 80}]
        readinessProbe: {httpGet: {port: http}, periodSeconds: 1}
`

// buys asks the shop from a pod again and again until the returned function is called, which tells how many were not served. Each request
// is a connection of its own.
func (f *followed) buys() (stop func() (failed []string)) {
	var asking sync.WaitGroup
	end, failed := make(chan struct{}), []string{}
	asking.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}
			if out, code := f.middleway("exec", "client", "--", "middleway", "tool", "get", "--repeat", "300", "--concurrency", "2", "http://shop/"); code != 0 {
				failed = append(failed, out)
			}
		}
	})
	return func() []string {
		close(end)
		asking.Wait()
		return failed
	}
}

// shops returns the pods of the Deployment that run and are ready, and how many others it has.
func (f *followed) shops() (ready map[string]bool, others int) {
	ready = map[string]bool{}
	for _, p := range f.status().Pods {
		if !strings.HasPrefix(p.Name, "shop-") {
			continue
		}
		if n, of := p.ReadyContainers(); n == of && p.Status == "Running" {
			ready[p.Name] = true
		} else {
			others++
		}
	}
	return ready, others
}

// A Deployment whose template or size changes loses no request: pods are asked to end when nobody sends them new connections any more.
func TestRollOutUnderLoad(t *testing.T) {
	f := newFollowed(t, "shop.yaml", shop, "client.yaml", pods("client: sleep 1000"))
	f.eventually("the shop is open", func() bool {
		ready, _ := f.shops()
		_, code := f.middleway("exec", "client", "--", "middleway", "tool", "get", "http://shop/")
		return len(ready) == 3 && code == 0
	})
	before, _ := f.shops()
	stop := f.buys()
	f.write("shop.yaml", strings.Replace(shop, "nginx", "httpd", 1))
	f.eventually("all pods are others", func() bool {
		ready, others := f.shops()
		for name := range ready {
			if before[name] {
				return false
			}
		}
		return len(ready) == 3 && others == 0
	})
	f.write("shop.yaml", strings.NewReplacer("nginx", "httpd", "replicas: 3", "replicas: 1").Replace(shop))
	f.eventually("one is left", func() bool {
		ready, others := f.shops()
		return len(ready) == 1 && others == 0
	})
	if failed := stop(); len(failed) > 0 {
		t.Errorf("%d times not all were served: %s", len(failed), failed[0])
	}
	// What Kubernetes does not let change is a mistake, and the shop stays open.
	f.write("shop.yaml", strings.NewReplacer("nginx", "httpd", "replicas: 3", "replicas: 1", "  selector: {app", "  clusterIP: 10.96.7.7\n  selector: {app").Replace(shop))
	f.told("shop.yaml, line 5, spec.clusterIP: it is 10.96.")
	if out := f.must("exec", "client", "--", "middleway", "tool", "get", "http://shop/"); !strings.Contains(out, "stand-in for httpd") {
		t.Errorf("got %s", out)
	}
	// A daemon that is killed knows its Services again.
	for _, n := range f.status().Nodes {
		f.kill(n.PID)
	}
	f.eventually("the shop is open again", func() bool {
		_, code := f.middleway("exec", "client", "--", "middleway", "tool", "get", "http://shop/")
		return code == 0
	})
	left := f.processes()
	f.must("down")
	f.gone(left)
}
