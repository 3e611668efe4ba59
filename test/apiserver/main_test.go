package apiserver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/tool"
	"github.com/middleway-net/middleway/node"
)

func TestMain(m *testing.M) { lab.Main(m) }

var serviceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112")}

// targetPort is where pods serve.
const targetPort = 8080

// cluster is a lab's cluster whose daemons have a real API server.
type cluster struct {
	*lab.Cluster
	api *apiServer
	t   testing.TB
}

// newCluster starts an API server and nodes with one pod each.
func newCluster(t testing.TB, nodes int) *cluster {
	t.Helper()
	c := &cluster{t: t, api: newAPIServer(t, lab.NodeAddr4(nodes+1).Addr())}
	kubeconfig := c.api.kubeconfig("middleway", c.api.grant(t))
	for number := range nodes {
		c.register(number + 1)
	}
	var err error
	c.Cluster, err = lab.NewCluster(lab.ClusterConfig{
		Pods: slices.Repeat([]int{1}, nodes), Kernel: []*lab.Namespace{c.api.namespace},
		Change: func(_ int, n *node.Config) {
			n.Address, n.NodeAddresses, n.PodCIDRs, n.Peers = netip.Addr{}, nil, nil, nil // the API server tells them
			n.Kubernetes.Kubeconfig = kubeconfig
			n.Services.CIDRs = serviceCIDRs
			n.DNS.ResolvConf = "none"
		},
	})
	must(t, err)
	t.Cleanup(c.close)
	for _, n := range c.Nodes {
		eventually(t, 20*time.Second, n.Name()+" knows the cluster", func() bool {
			st, err := n.Status()
			return err == nil && st.Cluster != nil && st.Cluster.Synced && len(st.Peers) == nodes-1
		})
		c.serve(n.Pods[0])
	}
	return c
}

func (c *cluster) close() {
	for _, n := range c.Nodes {
		if c.t.Failed() {
			c.t.Logf("%s: %s", n.Name(), tail(n.Daemon()))
		}
	}
	if err := c.Close(); err != nil {
		c.t.Error(err)
	}
}

// register writes a node as its kubelet and the controller manager do.
func (c *cluster) register(number int) {
	c.t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", number)}}
	n.Spec.PodCIDRs = []string{lab.PodCIDR4(number).Masked().String(), lab.PodCIDR6(number).Masked().String()}
	n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	n, err := c.api.CoreV1().Nodes().Create(c.t.Context(), n, metav1.CreateOptions{})
	must(c.t, err)
	for _, a := range []netip.Prefix{lab.NodeAddr4(number), lab.NodeAddr6(number)} {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.Addr().String()})
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionTrue, Reason: "NoRouteCreated"}}
	_, err = c.api.CoreV1().Nodes().UpdateStatus(c.t.Context(), n, metav1.UpdateOptions{})
	must(c.t, err)
}

// serve answers to HTTP in a pod with the pod's name.
func (c *cluster) serve(p *lab.Pod) {
	c.t.Helper()
	l, err := p.Listen("tcp", net.JoinHostPort("", strconv.Itoa(targetPort)))
	must(c.t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, p.Name()) })}
	c.t.Cleanup(func() { s.Close() })
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.t.Error(err)
		}
	}()
}

// service creates a dual-stack Service and returns it with the addresses that the API server gives it.
func (c *cluster) service(name string) *corev1.Service {
	c.t.Helper()
	policy := corev1.IPFamilyPolicyRequireDualStack
	s, err := c.api.CoreV1().Services("default").Create(c.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.ServiceSpec{IPFamilyPolicy: &policy, Ports: []corev1.ServicePort{{Name: "web", Port: 80}}},
	}, metav1.CreateOptions{})
	must(c.t, err)
	return s
}

// endpoints makes pods the endpoints of a Service, as the EndpointSlice controller does.
func (c *cluster) endpoints(s *corev1.Service, of ...*lab.Pod) {
	c.t.Helper()
	ready, name, target := true, "web", int32(targetPort)
	slices := c.api.DiscoveryV1().EndpointSlices(s.Namespace)
	for _, f := range s.Spec.IPFamilies {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: s.Name + "-" + strings.ToLower(string(f)), Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}},
			AddressType: discoveryv1.AddressType(f), Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &target}},
		}
		for _, p := range of {
			addr := p.Addr4
			if f == corev1.IPv6Protocol {
				addr = p.Addr6
			}
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
		}
		_, err := slices.Update(c.t.Context(), slice, metav1.UpdateOptions{})
		if err != nil {
			_, err = slices.Create(c.t.Context(), slice, metav1.CreateOptions{})
		}
		must(c.t, err)
	}
}

// ask returns the name of the pod that answers at an address of a Service.
func ask(from *lab.Namespace, vip string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}}
	r, err := client.Get("http://" + net.JoinHostPort(vip, "80"))
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

// awaitAnswer waits until a pod, and no other, answers for a Service on all its addresses, to the pods and hosts of all nodes.
func (c *cluster) awaitAnswer(s *corev1.Service, want *lab.Pod) {
	c.t.Helper()
	for _, n := range c.Nodes {
		for _, from := range []*lab.Namespace{n.Namespace, n.Pods[0].Namespace} {
			for _, vip := range s.Spec.ClusterIPs {
				var got string
				var err error
				eventually(c.t, 20*time.Second, fmt.Sprintf("%s answers to %s at %s", want.Name(), from.Name(), vip), func() bool {
					got, err = ask(from, vip)
					return got == want.Name()
				})
				if err != nil {
					c.t.Errorf("%s answers %s with %v", got, from.Name(), err)
				}
			}
		}
	}
}

// resolve asks a node's DNS for a name's IPv4 address.
func (c *cluster) resolve(from *lab.Namespace, name string) string {
	c.t.Helper()
	server := netip.AddrPortFrom(lab.ClusterDNS4(), 53)
	a, err := tool.Dig(c.t.Context(), name, dnsmessage.TypeA, []netip.AddrPort{server}, tool.DigConfig{Dial: from.Dial, Tries: 5})
	if err != nil || len(a.Answers) == 0 {
		return fmt.Sprint(a, err)
	}
	return a.Answers[0].Data
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually fails the test if ok does not become true in time.
func eventually(t testing.TB, in time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(in); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", in, what)
		}
	}
}

func port(a netip.AddrPort) string { return strconv.Itoa(int(a.Port())) }

// tail returns the last lines that a process wrote.
func tail(p *lab.Process) string {
	lines := strings.Split(strings.TrimSpace(p.Tail()), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}
