package control

import (
	"net/netip"
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
		{svc("web", "ipFamilyPolicy: PreferDualStack"), svc("web", "ipFamilies: [IPv4]", "ipFamilyPolicy: SingleStack")},
		{svc("web", "clusterIP: 10.96.7.7", `clusterIPs: [10.96.7.7, "fd00:10:96::7"]`), svc("web", "clusterIP: 10.96.7.7")},
		{svc("web", "type: ExternalName", "externalName: a.b"), svc("web", "clusterIP: None")},
		{svc("web", "clusterIP: None", "ipFamilyPolicy: RequireDualStack"), svc("web", "clusterIP: None", "ipFamilies: [IPv6, IPv4]")},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		c := newCluster(t)
		for _, text := range [][]byte{first, second, first} {
			s, err := manifest.Parse("x.yaml", text)
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
	})
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
		if n := len(s.Spec.ClusterIPs); n > 0 && s.Spec.ClusterIP != s.Spec.ClusterIPs[0] || s.Spec.ClusterIP != corev1.ClusterIPNone && n != len(s.Spec.IPFamilies) {
			c.Errorf("%s: %+v", nameOf(s), s.Spec)
		}
	}
}
