package trace

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestParseTarget(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"web", "web "}, {"web:80", "web 80"}, {"web.shop:http", "web.shop http"}, {"pod/web-0:8080", "pod/web-0 8080"},
		{"10.96.0.7", "10.96.0.7 "}, {"10.96.0.7:80", "10.96.0.7 80"}, {"::ffff:10.96.0.7", "10.96.0.7 "},
		{"fd00:10:96::7", "fd00:10:96::7 "}, {"[fd00:10:96::7]", "fd00:10:96::7 "}, {"[fd00:10:96::7]:80", "fd00:10:96::7 80"},
		{"", "want an address, a Service or a pod"}, {"web:", "want an address"}, {":80", "want an address"},
		{"fd00::7:x:y", "want an address"}, {"a b:80", "want an address"}, {"fe80::1%eth0", "want an address"},
	} {
		got, err := parseTarget(tt.in)
		text := got.host + " " + got.port
		if err != nil {
			text = err.Error()
		}
		if text != tt.want && (err == nil || !strings.Contains(text, tt.want)) {
			t.Errorf("%q: got %q, want %q", tt.in, text, tt.want)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"web:80", "[fd00::1]:80", "fd00::1", "pod/a/b", "::", ":", "[", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTarget(s)
		if err == nil && (got.host == "" || strings.ContainsAny(got.host, " []")) {
			t.Errorf("%q: got %+v", s, got)
		}
	})
}

func TestEndOf(t *testing.T) {
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
		{Name: "http", Port: 80, Protocol: "TCP"}, {Name: "dns", Port: 53, Protocol: "UDP"}, {Name: "dns-tcp", Port: 53, Protocol: "TCP"}, {Name: "sctp", Port: 132, Protocol: "SCTP"},
	}}}
	unnamed := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "cart"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 6379, Protocol: "TCP"}}}}
	for _, tt := range []struct {
		port, proto string
		service     *corev1.Service
		want        string
	}{
		{"", "", nil, "1 0"}, {"80", "", nil, "6 80"}, {"80", "udp", nil, "17 80"}, {"", "icmp", nil, "1 0"}, {"9", "SCTP", nil, "132 9"},
		{"", "", service, "6 80"}, {"http", "", service, "6 80"}, {"53", "", service, "17 53"}, {"53", "tcp", service, "6 53"}, {"", "udp", service, "17 53"},
		{"dns", "", service, "17 53"}, {"132", "", service, "132 132"}, {"", "icmp", service, "1 0"}, {"81", "", service, "6 81"}, {"80", "udp", service, "17 80"},
		{"", "", unnamed, "6 6379"},
		{"", "tcp", nil, "--proto tcp wants a port"}, {"80", "icmp", nil, "a ping has no port"}, {"80", "esp", nil, `--proto "esp": want tcp, udp, sctp or icmp`},
		{"0", "", nil, "want 1 to 65535"}, {"70000", "", nil, "want 1 to 65535"}, {"http", "", nil, "only Services have ports with names"},
		{"ftp", "", service, `port "ftp": Service web has http (80), dns (53), dns-tcp (53), sctp (132)`}, {"http", "", unnamed, "Service cart has (6379)"},
		{"http", "udp", service, `port "http"`},
	} {
		got, err := endOf(tt.port, tt.proto, tt.service)
		text := fmt.Sprint(got.proto, got.port)
		if err != nil {
			text = err.Error()
		}
		if text != tt.want && (err == nil || !strings.Contains(text, tt.want)) {
			t.Errorf("port %q, proto %q: got %q, want %q", tt.port, tt.proto, text, tt.want)
		}
	}
}

func TestServiceName(t *testing.T) {
	for name, want := range map[string]string{
		"web": "shop/web", "WEB": "shop/web", "web.": "shop/web", "web.bank": "bank/web", "web.bank.svc": "bank/web", "web.bank.svc.cluster.local": "bank/web",
		"gate.bank.svc.cluster.local.": "bank/gate", "a.web.shop": "/", "web.bank.svc.example.com": "/", "shop/web-0": "/",
	} {
		n := serviceName(name, "shop", "cluster.local")
		if got := n.namespace + "/" + n.name; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
