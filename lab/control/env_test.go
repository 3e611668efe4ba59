package control

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestVariables(t *testing.T) {
	c := newCluster(t)
	c.follow(all(
		"apiVersion: v1\nkind: Service\nmetadata: {name: my-shop}\nspec: {clusterIP: 10.96.7.7, ports: [{name: http-alt, port: 80}, {name: dns, port: 53, protocol: UDP}]}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: six}\nspec: {clusterIP: 'fd00:10:96::7', ports: [{port: 80}]}\n",
		svc("headless", "clusterIP: None"), svc("name", "type: ExternalName", "externalName: a.b"), strings.Replace(svc("far"), "name: far", "name: far, namespace: other", 1)))
	const kubernetes = "KUBERNETES_SERVICE_HOST=10.96.0.1 KUBERNETES_SERVICE_PORT=443 KUBERNETES_SERVICE_PORT_HTTPS=443"
	for _, tt := range []struct {
		name, namespace string
		links           *bool
		prefix, want    string
	}{
		{"a Service's", "default", nil, "MY_SHOP", "MY_SHOP_PORT=tcp://10.96.7.7:80 MY_SHOP_PORT_53_UDP=udp://10.96.7.7:53 MY_SHOP_PORT_53_UDP_ADDR=10.96.7.7 MY_SHOP_PORT_53_UDP_PORT=53 MY_SHOP_PORT_53_UDP_PROTO=udp " +
			"MY_SHOP_PORT_80_TCP=tcp://10.96.7.7:80 MY_SHOP_PORT_80_TCP_ADDR=10.96.7.7 MY_SHOP_PORT_80_TCP_PORT=80 MY_SHOP_PORT_80_TCP_PROTO=tcp " +
			"MY_SHOP_SERVICE_HOST=10.96.7.7 MY_SHOP_SERVICE_PORT=80 MY_SHOP_SERVICE_PORT_DNS=53 MY_SHOP_SERVICE_PORT_HTTP_ALT=80"},
		{"IPv6", "default", nil, "SIX_PORT", "SIX_PORT=tcp://[fd00:10:96::7]:80 SIX_PORT_80_TCP=tcp://[fd00:10:96::7]:80 SIX_PORT_80_TCP_ADDR=fd00:10:96::7 SIX_PORT_80_TCP_PORT=80 SIX_PORT_80_TCP_PROTO=tcp"},
		{"headless", "default", nil, "HEADLESS", ""},
		{"ExternalName", "default", nil, "NAME", ""},
		{"another namespace's", "default", nil, "FAR", ""},
		{"in the other namespace", "other", nil, "FAR_SERVICE_HOST", "FAR_SERVICE_HOST=" + of[*corev1.Service](c, Services, "far")[0].Spec.ClusterIP},
		{"kubernetes everywhere", "other", nil, "KUBERNETES_SERVICE", kubernetes},
		{"without links", "default", new(false), "", kubernetes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := c.Variables(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: tt.namespace}, Spec: corev1.PodSpec{EnableServiceLinks: tt.links}})
			var got []string
			for _, k := range slices.Sorted(maps.Keys(env)) {
				if strings.HasPrefix(k, tt.prefix) && (tt.prefix != "" || !strings.HasPrefix(k, "KUBERNETES_PORT")) {
					got = append(got, fmt.Sprintf("%s=%s", k, env[k]))
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, " "), tt.want)
			}
		})
	}
}
