package apiserver

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/lab"
)

// TestCluster: what daemons need of an API server, in the order of a cluster's life. It starts once, for that takes longest.
func TestCluster(t *testing.T) {
	c := newCluster(t, 2)
	near, far := c.Nodes[0].Pods[0], c.Nodes[1].Pods[0]

	t.Run("nodes", func(t *testing.T) {
		for _, n := range c.Nodes {
			var got *corev1.Node
			eventually(t, 20*time.Second, n.Name()+" has told of itself", func() bool {
				var err error
				got, err = c.api.CoreV1().Nodes().Get(t.Context(), n.Name(), metav1.GetOptions{})
				must(t, err)
				i := slices.IndexFunc(got.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeNetworkUnavailable })
				return i >= 0 && got.Status.Conditions[i].Status == corev1.ConditionFalse
			})
			for _, key := range []string{"flannel.alpha.coreos.com/backend-data", "flannel.alpha.coreos.com/public-ip", "middleway.net/tunnel"} {
				if got.Annotations[key] == "" {
					t.Errorf("%s has no annotation %s: %v", n.Name(), key, got.Annotations)
				}
			}
		}
	})

	web := c.service("web")
	t.Run("services", func(t *testing.T) {
		c.endpoints(web, far)
		c.awaitAnswer(web, far)
		c.endpoints(web, near)
		c.awaitAnswer(web, near)
	})

	t.Run("names", func(t *testing.T) {
		for _, from := range []*lab.Namespace{near.Namespace, far.Namespace, c.Nodes[0].Namespace} {
			if got := c.resolve(from, "web.default.svc.cluster.local."); got != web.Spec.ClusterIP {
				t.Errorf("%s: web is %s, want %s", from.Name(), got, web.Spec.ClusterIP)
			}
		}
	})

	// The API server writes the Service kubernetes and its slice itself. It is outside of the cluster: no node has its address.
	t.Run("kubernetes", func(t *testing.T) {
		s, err := c.api.CoreV1().Services("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
		must(t, err)
		client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			DialContext: near.Dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // whoever it is, it must be reached
		r, err := client.Get("https://" + s.Spec.ClusterIP + "/version")
		must(t, err)
		r.Body.Close()
		if r.TLS.PeerCertificates[0].Issuer.CommonName == "" || r.StatusCode != http.StatusUnauthorized && r.StatusCode != http.StatusOK {
			t.Errorf("the API server answers %s", r.Status)
		}
	})

	t.Run("many", func(t *testing.T) {
		const count = 300
		for i := range count {
			c.endpoints(c.service(fmt.Sprintf("many-%d", i)), near, far)
		}
		begin := time.Now()
		for _, n := range c.Nodes {
			eventually(t, 20*time.Second, n.Name()+" knows all Services", func() bool {
				st, err := n.Status()
				return err == nil && st.Cluster.Objects["services"] >= count && st.Cluster.Objects["endpointslices"] >= 2*count
			})
		}
		t.Logf("known %v after the last was written", time.Since(begin).Round(time.Millisecond))
		s, err := c.api.CoreV1().Services("default").Get(t.Context(), fmt.Sprintf("many-%d", count-1), metav1.GetOptions{})
		must(t, err)
		c.endpoints(s, far)
		c.awaitAnswer(s, far)
	})

	// What the manifest grants is enough for all of this: a daemon that had been refused anything would have said so.
	for _, n := range c.Nodes {
		if strings.Contains(n.Daemon().Tail(), "forbidden") {
			t.Errorf("%s was refused something:\n%s", n.Name(), n.Daemon().Tail())
		}
	}

	t.Run("outage", func(t *testing.T) {
		time.Sleep(1500 * time.Millisecond) // what is known is written down at least once a second
		c.api.kill()
		for _, n := range c.Nodes {
			eventually(t, 30*time.Second, n.Name()+" says that the API server is away", func() bool {
				st, err := n.Status()
				return err == nil && st.Cluster.Unreachable != nil
			})
		}
		c.awaitAnswer(web, near)
		n := c.Nodes[0]
		must(t, n.Daemon().Kill())
		must(t, n.Start())
		must(t, n.WaitReady(20*time.Second))
		c.awaitAnswer(web, near)
		if got := c.resolve(near.Namespace, "web.default.svc.cluster.local."); got != web.Spec.ClusterIP {
			t.Errorf("after a restart without API server web is %s, want %s", got, web.Spec.ClusterIP)
		}
		c.api.start()
		c.endpoints(web, far)
		c.awaitAnswer(web, far)
		must(t, c.api.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}))
		for _, n := range c.Nodes {
			eventually(t, 20*time.Second, n.Name()+" forgets web", func() bool {
				return strings.Contains(c.resolve(n.Pods[0].Namespace, "web.default.svc.cluster.local."), "NXDOMAIN")
			})
			eventually(t, 30*time.Second, n.Name()+" says that the API server is back", func() bool { // one that starts may refuse all at first
				st, err := n.Status()
				return err == nil && st.Cluster.Unreachable == nil
			})
		}
	})

	// An API server that has just started refuses all for a moment, which nobody has to mend.
	for _, n := range c.Nodes {
		if strings.Contains(n.Daemon().Tail(), "refuses what this node needs") {
			t.Errorf("%s takes a start for a refusal:\n%s", n.Name(), n.Daemon().Tail())
		}
	}
}
