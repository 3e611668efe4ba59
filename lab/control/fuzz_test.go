package control

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab/manifest"
)

// Whatever manifests say, one after the other, the control plane takes them or refuses them: addresses are those of its ranges, each of
// one Service, and what it has made goes with its cause.
func FuzzFollow(f *testing.F) {
	for _, seed := range [][2]string{
		{webService, webDeployment},
		{all(webService, webPod), webDeployment},
		{svc("web", "clusterIP: None"), svc("web", "type: NodePort")},
		{svc("web", "type: NodePort"), svc("web", "type: LoadBalancer", "allocateLoadBalancerNodePorts: false", "externalIPs: [203.0.113.9]")},
		{svc("web", "ipFamilyPolicy: PreferDualStack"), svc("web", "ipFamilies: [IPv4]", "ipFamilyPolicy: SingleStack")},
		{svc("web", "clusterIP: 10.96.7.7", `clusterIPs: [10.96.7.7, "fd00:10:96::7"]`), svc("web", "clusterIP: 10.96.7.7")},
		{svc("web", "type: ExternalName", "externalName: a.b"), svc("web", "clusterIP: None")},
		{svc("web", "clusterIP: None", "ipFamilyPolicy: RequireDualStack"), svc("web", "clusterIP: None", "ipFamilies: [IPv6, IPv4]")},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) { followAll(t, string(first), string(second), string(first)) })
}

// Services of all kinds, one after the other under two names.
func TestFollowRandom(t *testing.T) {
	pieces := [][]string{
		{"", "type: ClusterIP", "type: NodePort", "type: LoadBalancer", "type: ExternalName\n  externalName: a.b"},
		{"", "", "clusterIP: None", "clusterIP: 10.96.7.7", "clusterIP: fd00:10:96::7", "clusterIP: 10.96.0.1", "clusterIP: 10.96.7.7\n  clusterIPs: [10.96.7.7, 'fd00:10:96::7']"},
		{"", "", "ipFamilies: [IPv4]", "ipFamilies: [IPv6]", "ipFamilies: [IPv4, IPv6]", "ipFamilies: [IPv6, IPv4]"},
		{"", "", "ipFamilyPolicy: SingleStack", "ipFamilyPolicy: PreferDualStack", "ipFamilyPolicy: RequireDualStack"},
		{"", "selector: {app: web}"},
	}
	random := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 300 {
		var texts []string
		for range 6 {
			var both []string
			for _, name := range []string{"a", "b"} {
				var lines []string
				for _, p := range pieces {
					if piece := p[random.IntN(len(p))]; piece != "" {
						lines = append(lines, piece)
					}
				}
				text := svc(name, lines...)
				if random.IntN(3) == 0 {
					text = strings.Replace(text, "port: 80}", "port: 80, nodePort: 30111}", 1)
				}
				if _, err := manifest.Parse("x.yaml", []byte(text)); err == nil {
					both = append(both, text)
					accepted++
				}
			}
			texts = append(texts, all(both...))
		}
		if followAll(t, texts...); t.Failed() {
			t.Fatalf("after\n%s", strings.Join(texts, "\n=====\n"))
		}
	}
	if accepted < 500 {
		t.Errorf("only %d Services were right", accepted)
	}
}

// followAll makes the followed files hold one text after another, and then none.
func followAll(t *testing.T, texts ...string) {
	t.Helper()
	c := newCluster(t)
	for _, text := range texts {
		s, err := manifest.Parse("x.yaml", []byte(text))
		if err != nil || tooMany(s) {
			return
		}
		c.Follow(s.Objects)
		c.settle()
		c.checkAddresses()
	}
	c.Follow(nil)
	c.settle()
	if left := len(of[Object](c, Services)); left != 2 {
		t.Errorf("%d Services are left", left)
	}
	for _, k := range []*Kind{EndpointSlices, Deployments, ReplicaSets, Pods} {
		if left := of[Object](c, k); len(left) != 0 {
			t.Errorf("%s are left: %v", k.Plural, left)
		}
	}
	if len(c.addresses.addrs) != 3 || len(c.addresses.ports) != 0 {
		t.Errorf("taken are %v, %v", c.addresses.addrs, c.addresses.ports)
	}
}

// tooMany reports whether a set wants more pods than a test has time for.
func tooMany(s *manifest.Set) bool {
	for _, o := range s.Objects {
		if d, ok := o.(*manifest.Deployment); ok && *d.Spec.Replicas > 20 {
			return true
		}
	}
	return false
}

func (c *cluster) checkAddresses() {
	c.Helper()
	taken := map[string]string{}
	for _, s := range of[*corev1.Service](c, Services) {
		for i, ip := range s.Spec.ClusterIPs {
			if ip == corev1.ClusterIPNone {
				continue
			}
			addr := netip.MustParseAddr(ip)
			if taken[ip] != "" {
				c.Errorf("%s is that of %s and %s", ip, taken[ip], nameOf(s))
			}
			taken[ip] = nameOf(s).String()
			if r, ok := c.addresses.rangeOf(s.Spec.IPFamilies[i]); !ok || !r.Contains(addr) {
				c.Errorf("%s: %s is not of %s", nameOf(s), ip, r)
			}
		}
		for _, p := range s.Spec.Ports {
			number := fmt.Sprint(p.NodePort)
			if other := taken[number]; p.NodePort != 0 && other != "" && other != nameOf(s).String() {
				c.Errorf("node port %s is that of %s and %s", number, other, nameOf(s))
			}
			taken[number] = nameOf(s).String()
			if p.NodePort != 0 && c.addresses.ports[p.NodePort] != nameOf(s) {
				c.Errorf("node port %s of %s is free", number, nameOf(s))
			}
		}
		if n := len(s.Spec.ClusterIPs); n > 0 && s.Spec.ClusterIP != s.Spec.ClusterIPs[0] || s.Spec.ClusterIP != corev1.ClusterIPNone && n != len(s.Spec.IPFamilies) {
			c.Errorf("%s: %+v", nameOf(s), s.Spec)
		}
	}
}
