package trace

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/lab/tool"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack"
)

func TestResolvConf(t *testing.T) {
	dns := node.DNSStatus{Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Domain: "test.example"}
	two := "2"
	own := &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}, Searches: []string{"corp.example", "svc.test.example"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "edns0"}}}
	cluster := "search shop.svc.test.example svc.test.example test.example\nnameserver 10.96.0.10\noptions ndots:5\n"
	for _, tt := range []struct {
		name string
		spec corev1.PodSpec
		want string
	}{
		{"no policy", corev1.PodSpec{}, cluster},
		{"cluster first", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, cluster},
		{"of the node", corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, ""},
		{"network of the node", corev1.PodSpec{HostNetwork: true, DNSPolicy: corev1.DNSClusterFirst}, ""},
		{"network of the node, names of the cluster", corev1.PodSpec{HostNetwork: true, DNSPolicy: corev1.DNSClusterFirstWithHostNet}, cluster},
		{"its own", corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: own}, "search corp.example svc.test.example\nnameserver 192.0.2.53\noptions ndots:2 edns0\n"},
		{"both", corev1.PodSpec{DNSConfig: own}, "search shop.svc.test.example svc.test.example test.example corp.example\nnameserver 10.96.0.10\nnameserver 192.0.2.53\noptions ndots:5 ndots:2 edns0\n"},
	} {
		got := resolvConf(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}, Spec: tt.spec}, dns).String()
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// small is a cluster of one pod, one Service, and one daemon that says that each packet goes on at another node.
type small struct {
	dns *node.DNSStatus
	ask func(node.TraceRequest)
}

func (small) Pod(_ context.Context, namespace, name string) (*Pod, error) {
	switch namespace + "/" + name {
	case "shop/visitor", "shop/odd":
		return &Pod{Namespace: namespace, Name: name, Node: "node-1", IPs: []netip.Addr{netip.MustParseAddr("10.244.1.2")}, ResolvConf: func(dns node.DNSStatus) (tool.ResolvConf, error) {
			if name == "odd" {
				return tool.ResolvConf{Nameservers: []string{"192.0.2.53"}}, nil
			}
			return resolvConf(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}}, dns), nil
		}}, nil
	case "shop/big":
		return &Pod{Namespace: namespace, Name: name, Reason: "no node has room"}, nil
	}
	return nil, errors.New("there is no such pod")
}

func (small) Service(_ context.Context, namespace, name string) (*corev1.Service, error) {
	if namespace+"/"+name != "shop/web" {
		return nil, nil
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.7"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}, nil
}

func (c small) Daemon(_ context.Context, name string, _ netip.Addr) (*node.Client, error) {
	if name != "node-1" {
		return nil, errors.New("it is a node of another network")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(node.Status{DNS: c.dns}) })
	mux.HandleFunc("/trace", func(w http.ResponseWriter, r *http.Request) {
		var req node.TraceRequest
		_ = json.NewDecoder(r.Body).Decode(&req)
		c.ask(req)
		leaves := tuple("tcp", "10.244.1.2:49152", "10.244.2.2:8080")
		_ = json.NewEncoder(w).Encode(node.TraceHop{
			Node: "node-1", Peer: netip.MustParseAddr("192.168.254.12"), PeerName: "node-2",
			Trace: &stack.Trace{Packet: leaves, Verdict: "forwarded", To: "peer 192.168.254.12", LeavesAs: &leaves},
		})
	})
	return node.Over("the daemon of node-1", func(context.Context) (net.Conn, error) {
		here, there := net.Pipe()
		go func() { _ = http.Serve(&once{there}, mux) }()
		return here, nil
	}), nil
}

// once is a listener of one connection.
type once struct{ net.Conn }

func (l *once) Accept() (net.Conn, error) {
	if l.Conn == nil {
		return nil, net.ErrClosed
	}
	c := l.Conn
	l.Conn = nil
	return c, nil
}
func (l *once) Close() error   { return nil }
func (l *once) Addr() net.Addr { return &net.UnixAddr{} }

func TestFollow(t *testing.T) {
	dns := &node.DNSStatus{Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.10")}, Domain: "test.example"}
	further := "the packet goes on at 192.168.254.12, whose daemon cannot be asked from here: it is a node of another network"
	for _, tt := range []struct {
		name    string
		dns     *node.DNSStatus
		pod, to string
		want    node.TraceRequest
		notes   []string
		problem string
	}{
		{name: "address", dns: dns, pod: "visitor", to: "10.244.2.2:8080", want: node.TraceRequest{Dst: netip.MustParseAddr("10.244.2.2"), Proto: tcp, DstPort: 8080}, notes: []string{further}},
		{name: "Service", dns: dns, pod: "visitor", to: "web:http", notes: []string{further}, want: node.TraceRequest{
			Names: []string{"web.shop.svc.test.example.", "web.svc.test.example.", "web.test.example.", "web."}, Proto: tcp, DstPort: 80,
		}},
		{name: "Service without DNS", pod: "visitor", to: "web", want: node.TraceRequest{Dst: netip.MustParseAddr("10.96.0.7"), Proto: tcp, DstPort: 80},
			notes: []string{"node-1 answers no DNS (dns.off): the Service's cluster IP is meant, 10.96.0.7", further}},
		{name: "pod", dns: dns, pod: "visitor", to: "odd", want: node.TraceRequest{Dst: netip.MustParseAddr("10.244.1.2"), Proto: icmp},
			notes: []string{"no Service has this name: the pod is meant, at 10.244.1.2", further}},
		{name: "name without DNS", pod: "visitor", to: "www.example.com:80", problem: "node-1 answers no DNS (dns.off), so names cannot be followed there"},
		{name: "other DNS", dns: dns, pod: "odd", to: "web", problem: "pod shop/odd does not ask the cluster's DNS for names, but [192.0.2.53:53]"},
		{name: "no node", dns: dns, pod: "big", to: "web", problem: "pod shop/big is on no node: no node has room"},
		{name: "no port", dns: dns, pod: "visitor", to: "web:ftp", problem: `port "ftp": Service web has http (80)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked node.TraceRequest
			got, err := Follow(t.Context(), small{tt.dns, func(r node.TraceRequest) { asked = r }}, Request{Namespace: "shop", Pod: tt.pod, Destination: tt.to})
			if tt.problem != "" {
				if err == nil || !strings.Contains(err.Error(), tt.problem) {
					t.Fatalf("got %v, want %s", err, tt.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tt.want.From = "shop/visitor"
			if diff := cmp.Diff(tt.want, asked, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.notes, got.Notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
		})
	}
}
