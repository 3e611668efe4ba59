package control

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/middleway-net/middleway/lab/manifest"
)

// cluster is a control plane with two nodes, whose pods run only in the test's head.
type cluster struct {
	*testing.T
	*Plane
	events []string
	addrs  map[types.UID]int
	slow   bool // pods that are asked to go stay
	unfit  string
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{T: t, addrs: map[types.UID]int{}}
	c.Plane = New(Config{
		Nodes: []Node{
			{Name: "node-1", Zone: "a", Addresses: addrs("192.168.254.11", "fd00:254::11"), PodCIDRs: prefixes("10.244.1.0/24", "fd00:10:244:1::/64")},
			{Name: "node-2", Zone: "b", Addresses: addrs("192.168.254.12", "fd00:254::12"), PodCIDRs: prefixes("10.244.2.0/24", "fd00:10:244:2::/64")},
		},
		ServiceCIDRs: prefixes("10.96.0.0/16", "fd00:10:96::/112"),
		DNS:          addrs("10.96.0.10", "fd00:10:96::a"),
		Event:        func(who, what string) { c.events = append(c.events, who+": "+what) },
	})
	return c
}

func addrs(all ...string) (parsed []netip.Addr) {
	for _, s := range all {
		parsed = append(parsed, netip.MustParseAddr(s))
	}
	return parsed
}

func prefixes(all ...string) (parsed []netip.Prefix) {
	for _, s := range all {
		parsed = append(parsed, netip.MustParsePrefix(s))
	}
	return parsed
}

// follow makes the followed files hold a text, and returns the mistakes.
func (c *cluster) follow(text string) (mistakes []string) {
	c.Helper()
	s, err := manifest.Parse("x.yaml", []byte(text))
	if err != nil {
		c.Fatal(err)
	}
	for _, err := range c.Follow(s.Objects) {
		mistakes = append(mistakes, err.Error())
	}
	return mistakes
}

// apply applies a text, and returns the outcomes.
func (c *cluster) apply(text string) (all []string) {
	c.Helper()
	r, err := c.Apply(ApplyRequest{Files: []File{{"y.yaml", []byte(text)}}})
	if err != nil {
		c.Fatal(err)
	}
	for _, a := range r.Applied {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s%s", a.Ref, a.Outcome, a.Error)))
	}
	return all
}

// work does once what the nodes' kubelets would do: it starts pods, finds them ready, and ends those that are to go. It reports
// whether there was something to do.
func (c *cluster) work() (did bool) {
	for _, i := range c.Instances() {
		_, started := c.addrs[i.UID]
		switch {
		case i.Deleting && !c.slow:
			c.Gone(i.UID)
			delete(c.addrs, i.UID)
			did = true
		case !i.Deleting && !started:
			number := 2 + len(c.addrs)
			c.addrs[i.UID] = number
			node := 1 + number%2
			c.Bind(i.UID, fmt.Sprintf("node-%d", node))
			c.SetStatus(i.UID, running(c.unfit == "" || !strings.HasPrefix(i.Pod.Name, c.unfit),
				fmt.Sprintf("10.244.%d.%d", node, number), fmt.Sprintf("fd00:10:244:%d::%x", node, number)))
			did = true
		}
	}
	return did
}

// settle lets the cluster work until nothing is left to do.
func (c *cluster) settle() {
	c.Helper()
	for range 1000 {
		if !c.work() {
			return
		}
	}
	c.Fatal("the cluster does not come to rest")
}

func running(ready bool, ips ...string) corev1.PodStatus {
	s := corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ips[0]}
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
	is := corev1.ConditionFalse
	if ready {
		is = corev1.ConditionTrue
	}
	s.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: is}}
	return s
}

// of returns the objects of a kind, with a name if it is not "".
func of[T Object](c *cluster, k *Kind, names ...string) (all []T) {
	c.Helper()
	objects, err := c.List(Query{Kind: k.Plural, Names: names})
	if err != nil {
		c.Fatal(err)
	}
	for _, o := range objects {
		all = append(all, o.(T))
	}
	return all
}

// endpointsOf describes the endpoints of a Service: address, and R, S, T for ready, serving, terminating.
func (c *cluster) endpointsOf(service string, family discoveryv1.AddressType) (all []string) {
	c.Helper()
	for _, s := range of[*discoveryv1.EndpointSlice](c, EndpointSlices) {
		if s.Labels[discoveryv1.LabelServiceName] != service || s.AddressType != family {
			continue
		}
		for _, e := range s.Endpoints {
			flags := ""
			for _, f := range []struct {
				letter string
				is     *bool
			}{{"R", e.Conditions.Ready}, {"S", e.Conditions.Serving}, {"T", e.Conditions.Terminating}} {
				if f.is != nil && *f.is {
					flags += f.letter
				}
			}
			all = append(all, e.Addresses[0]+" "+flags)
		}
	}
	return all
}

const (
	webPod = `apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers: [{name: main, image: nginx, ports: [{name: http, containerPort: 80}]}]
`
	webService = `apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
`
	webDeployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: main, image: nginx, ports: [{name: http, containerPort: 80}]}]
`
)

// all joins documents.
func all(texts ...string) string { return strings.Join(texts, "---\n") }

func TestOwnObjects(t *testing.T) {
	c := newCluster(t)
	var got []string
	for _, k := range Kinds {
		for _, o := range of[Object](c, k) {
			got = append(got, ref(k, nameOf(o)).String()+" "+o.GetNamespace())
		}
	}
	want := "namespace/default |namespace/kube-system |node/node-1 |node/node-2 |service/kubernetes default|service/kube-dns kube-system"
	if strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
	dns := of[*corev1.Service](c, Services, "kube-dns")[0]
	if fmt.Sprintf("%v %v %s", dns.Spec.ClusterIPs, dns.Spec.IPFamilies, *dns.Spec.IPFamilyPolicy) != "[10.96.0.10 fd00:10:96::a] [IPv4 IPv6] PreferDualStack" {
		t.Errorf("got %+v", dns.Spec)
	}
	n := of[*corev1.Node](c, Nodes, "node-2")[0]
	if n.Labels[corev1.LabelTopologyZone] != "b" || n.Spec.PodCIDR != "10.244.2.0/24" || len(n.Spec.PodCIDRs) != 2 || n.Status.Addresses[1].Address != "fd00:254::12" {
		t.Errorf("got %+v", n)
	}
}

// What is written complete is what daemons need: uid, version, time, labels and status.
func TestPodObject(t *testing.T) {
	c := newCluster(t)
	c.follow(webPod)
	pod := of[*corev1.Pod](c, Pods)[0]
	if pod.UID == "" || pod.ResourceVersion == "" || pod.CreationTimestamp.IsZero() || pod.Kind != "Pod" || pod.APIVersion != "v1" || pod.Status.Phase != corev1.PodPending {
		t.Errorf("got %+v", pod)
	}
	c.settle()
	pod = of[*corev1.Pod](c, Pods)[0]
	if pod.Spec.NodeName != "node-1" || pod.Status.PodIP != "10.244.1.2" || len(pod.Status.PodIPs) != 2 || !isReady(pod) {
		t.Errorf("got %+v %+v", pod.Spec, pod.Status)
	}
	c.slow = true
	c.follow("")
	c.settle()
	if pod = of[*corev1.Pod](c, Pods)[0]; pod.DeletionTimestamp == nil || *pod.DeletionGracePeriodSeconds != DefaultGrace {
		t.Errorf("got %+v", pod.ObjectMeta)
	}
	c.slow = false
	c.settle()
	if left := of[*corev1.Pod](c, Pods); len(left) != 0 {
		t.Errorf("got %v", left)
	}
}
