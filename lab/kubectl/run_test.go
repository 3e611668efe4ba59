package kubectl

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/middleway-net/middleway/lab/control"
)

// shop is a namespace with something of most kinds.
func shop() store {
	meta := func(name string, labels ...string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Name: name, Namespace: "shop", ResourceVersion: "1", Labels: map[string]string{}}
		for _, l := range labels {
			key, value, _ := strings.Cut(l, "=")
			m.Labels[key] = value
		}
		m.CreationTimestamp = metav1.NewTime(time.Now().Add(-50 * time.Hour))
		return m
	}
	kind := func(k *control.Kind) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: k.GroupVersion().String(), Kind: k.Kind}
	}
	two := int32(2)
	pod := func(name, node, ip string, restarts int32) *corev1.Pod {
		return &corev1.Pod{
			TypeMeta: kind(control.Pods), ObjectMeta: meta(name, "app="+strings.TrimRight(name, "-12")),
			Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "server"}}},
			Status: corev1.PodStatus{
				Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: ip}},
				ContainerStatuses: []corev1.ContainerStatus{{Name: "server", Ready: true, RestartCount: restarts, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
			},
		}
	}
	s := store{objects: []control.Object{
		pod("cart-1", "node-1", "10.244.1.2", 10), pod("cart-2", "node-2", "10.244.2.2", 9), pod("front-1", "node-1", "10.244.1.3", 0),
		&corev1.Service{
			TypeMeta: kind(control.Services), ObjectMeta: meta("cart", "app=cart"),
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7"}, Ports: []corev1.ServicePort{{Port: 80, Protocol: "TCP"}}},
		},
		&appsv1.Deployment{
			TypeMeta: kind(control.Deployments), ObjectMeta: meta("cart", "app=cart"),
			Spec:   appsv1.DeploymentSpec{Replicas: &two, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "cart"}}},
			Status: appsv1.DeploymentStatus{ReadyReplicas: 2, UpdatedReplicas: 2, AvailableReplicas: 2},
		},
		&corev1.Node{TypeMeta: kind(control.Nodes), ObjectMeta: metav1.ObjectMeta{Name: "node-1"}},
	}}
	for i, o := range s.objects {
		o.SetUID(types.UID(fmt.Sprint("uid-", i)))
	}
	return s
}

func TestGet(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		get        Get
		want       string // standard output
		errOut     string
		failed     string
	}{
		{name: "a kind", args: "po", want: `
NAME      READY   STATUS    RESTARTS   AGE
cart-1    1/1     Running   10         2d2h
cart-2    1/1     Running   9          2d2h
front-1   1/1     Running   0          2d2h
`},
		{name: "names", args: "pods front-1 cart-2", want: `
NAME      READY   STATUS    RESTARTS   AGE
front-1   1/1     Running   0          2d2h
cart-2    1/1     Running   9          2d2h
`},
		{name: "a selector", args: "pods", get: Get{Selector: "app in (cart),!tier"}, want: `
NAME     READY   STATUS    RESTARTS   AGE
cart-1   1/1     Running   10         2d2h
cart-2   1/1     Running   9          2d2h
`},
		{name: "fields", args: "pods", get: Get{FieldSelector: "spec.nodeName=node-1,metadata.name!=cart-1,spec.hostNetwork="}, want: `
NAME      READY   STATUS    RESTARTS   AGE
front-1   1/1     Running   0          2d2h
`},
		{name: "all", args: "all", want: `
NAME          READY   STATUS    RESTARTS   AGE
pod/cart-1    1/1     Running   10         2d2h
pod/cart-2    1/1     Running   9          2d2h
pod/front-1   1/1     Running   0          2d2h

NAME           TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE
service/cart   ClusterIP   10.96.0.7    <none>        80/TCP    2d2h

NAME                   READY   UP-TO-DATE   AVAILABLE   AGE
deployment.apps/cart   2/2     2            2           2d2h
`},
		{name: "kinds and names with slashes", args: "svc/cart deployment.apps/cart", get: Get{NoHeaders: true}, want: `
service/cart   ClusterIP   10.96.0.7   <none>   80/TCP   2d2h
deployment.apps/cart   2/2   2     2     2d2h
`},
		{name: "one kind with slashes", args: "pod/cart-1 po/cart-2", get: Get{NoHeaders: true}, want: `
cart-1   1/1   Running   10    2d2h
cart-2   1/1   Running   9     2d2h
`},
		{name: "all namespaces, and a kind without any", args: "svc,no", get: Get{AllNamespaces: true}, want: `
NAMESPACE   NAME           TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE
shop        service/cart   ClusterIP   10.96.0.7    <none>        80/TCP    2d2h

NAME          STATUS    ROLES    AGE         VERSION
node/node-1   Unknown   <none>   <unknown>   
`},
		{name: "names alone", args: "pods,svc,deploy", get: Get{Output: "name", Selector: "app=cart"}, want: `
pod/cart-1
pod/cart-2
service/cart
deployment.apps/cart
`},
		{name: "sorted by a number", args: "pods", get: Get{SortBy: ".status.containerStatuses[0].restartCount", Output: "name"}, want: `
pod/front-1
pod/cart-2
pod/cart-1
`},
		{name: "sorted by text, some have none", args: "pods,nodes", get: Get{SortBy: "{spec.nodeName}", Output: "name"}, want: `
node/node-1
pod/cart-1
pod/front-1
pod/cart-2
`},
		{name: "a field of one", args: "svc cart", get: Get{Output: "jsonpath={.spec.clusterIP} {.spec.none}"}, want: "\n10.96.0.7 "},
		{name: "a field of many", args: "pods", get: Get{Output: `jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}`}, want: `
cart-1
cart-2
front-1
`},
		{name: "a template", args: "pods", get: Get{Output: `go-template={{range .items}}{{.metadata.name}} {{.status.none}};{{end}}`}, want: "\ncart-1 <no value>;cart-2 <no value>;front-1 <no value>;"},
		{name: "columns", args: "pods", get: Get{Output: "custom-columns=WHO:.metadata.name,WHERE:spec.nodeName,NO:{.spec.none},IMAGES:.status.podIPs[*].ip"}, want: `
WHO       WHERE    NO       IMAGES
cart-1    node-1   <none>   10.244.1.2
cart-2    node-2   <none>   10.244.2.2
front-1   node-1   <none>   10.244.1.3
`},
		{name: "nothing", args: "pods", get: Get{Namespace: "empty"}, errOut: "No resources found in empty namespace.\n"},
		{name: "nothing by default", args: "pods", get: Get{Namespace: "-"}, errOut: "No resources found in default namespace.\n"},
		{name: "nothing anywhere", args: "rs", get: Get{AllNamespaces: true}, errOut: "No resources found\n"},
		{name: "nothing without namespaces", args: "ns", errOut: "No resources found\n"},
		{name: "no names", args: "rs", get: Get{Output: "name"}},
		{name: "one of two is missing", args: "pods none cart-1", get: Get{NoHeaders: true}, want: "\ncart-1   1/1   Running   10    2d2h\n", failed: `pods "none" not found`},
		{name: "missing, with its group", args: "deploy none", failed: `deployments.apps "none" not found`},
		{name: "missing is no matter", args: "deploy none", get: Get{IgnoreNotFound: true}},
		{name: "missing as JSON", args: "deploy none", get: Get{Output: "json"}, failed: `deployments.apps "none" not found`},
		{name: "missing as JSON is no matter", args: "deploy none", get: Get{Output: "json", IgnoreNotFound: true}},
		{name: "an empty list", args: "rs", get: Get{Output: "yaml"}, want: `
apiVersion: v1
items: []
kind: List
metadata:
  resourceVersion: ""
`},
		{name: "one as JSON", args: "no node-1", get: Get{Output: "json"}, want: `
{
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "node-1",
        "uid": "uid-5"
    },
    "spec": {},
    "status": {
        "daemonEndpoints": {
            "kubeletEndpoint": {
                "Port": 0
            }
        },
        "nodeInfo": {
            "architecture": "",
            "bootID": "",
            "containerRuntimeVersion": "",
            "kernelVersion": "",
            "kubeProxyVersion": "",
            "kubeletVersion": "",
            "machineID": "",
            "operatingSystem": "",
            "osImage": "",
            "systemUUID": ""
        }
    }
}
`},

		{name: "no kind", failed: "say what: pods (po), services (svc), deployments (deploy), replicasets (rs), endpointslices, nodes (no) and namespaces (ns), or all"},
		{name: "an unknown kind", args: "podz", failed: `there is no kind "podz"; there are pods (po), services (svc), `},
		{name: "a kind of real clusters", args: "networkpolicy", failed: "networkpolicy: a real cluster has them, the playground does not; it has pods (po), "},
		{name: "one with its group", args: "statefulsets.apps", failed: "statefulsets.apps: a real cluster has them"},
		{name: "what came before EndpointSlices", args: "ep", failed: "ask for endpointslices"},
		{name: "half slashed", args: "pod/cart-1 cart-2", failed: `"cart-2": where one argument is KIND/NAME all of them are`},
		{name: "two slashes", args: "shop/pod/cart-1", failed: `"shop/pod/cart-1": want KIND/NAME, for example service/web; -n says the namespace`},
		{name: "all has no names", args: "all/cart", failed: "all has no names"},
		{name: "a name everywhere", args: "pod cart-1", get: Get{AllNamespaces: true}, failed: "a resource cannot be retrieved by name across all namespaces"},
		{name: "a name and a selector", args: "pod cart-1", get: Get{Selector: "a=b"}, failed: "name cannot be provided when a selector is specified"},
		{name: "a bad selector", args: "pod", get: Get{Selector: "a=b=c"}, failed: `-l "a=b=c": `},
		{name: "a bad field selector", args: "pod", get: Get{FieldSelector: "a"}, failed: `--field-selector "a": `},
		{name: "a bad output", args: "pod", get: Get{Output: "tree"}, failed: `-o "tree": want wide, json, yaml, name, jsonpath=EXPRESSION,`},
		{name: "a bad path", args: "pod", get: Get{Output: "jsonpath={.a"}, failed: `-o "jsonpath={.a": `},
		{name: "a path that leads nowhere", args: "pod", get: Get{Output: "jsonpath={range .ite}ms{[*]}{.k9ind}@{end}"}, failed: "the JSONPath expression leads nowhere"},
		{name: "no path", args: "pod", get: Get{Output: "jsonpath"}, failed: `an expression is missing`},
		{name: "a bad column", args: "pod", get: Get{Output: "custom-columns=A"}, failed: `column "A": want HEADER:PATH`},
		{name: "no columns", args: "pod", get: Get{Output: "custom-columns"}, failed: `columns are missing`},
		{name: "a bad template", args: "pod", get: Get{Output: "go-template={{"}, failed: `-o "go-template={{": `},
		{name: "labels of no table", args: "pod", get: Get{Output: "json", ShowLabels: true}, failed: `--show-labels adds a column, which -o json does not have`},
		{name: "a bad field to sort by", args: "pod", get: Get{SortBy: ".nothing"}, failed: `--sort-by ".nothing": no object has this field`},
		{name: "two kinds to watch", args: "pod,svc", get: Get{Watch: true}, failed: "only one kind, or one object, can be watched"},
		{name: "two objects to watch", args: "pod cart-1 cart-2", get: Get{Watch: true}, failed: "only one kind, or one object, can be watched"},
		{name: "events of what is not watched", args: "pod", get: Get{WatchEvents: true}, failed: "--output-watch-events is of --watch and --watch-only"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			switch tt.get.Namespace {
			case "":
				tt.get.Namespace = "shop"
			case "-":
				tt.get.Namespace = ""
			}
			var out, errOut bytes.Buffer
			err := tt.get.Run(t.Context(), shop(), strings.Fields(tt.args), &out, &errOut)
			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), out.String()); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
			if diff := cmp.Diff(tt.errOut, errOut.String()); diff != "" {
				t.Errorf("on standard error, want (-), got (+):\n%s", diff)
			}
			if got := fmt.Sprint(err); err != nil && (tt.failed == "" || !strings.Contains(got, tt.failed)) || err == nil && tt.failed != "" {
				t.Errorf("got error %v, want %q", err, tt.failed)
			}
		})
	}
}

func TestWatch(t *testing.T) {
	s := shop()
	old := s.objects[0].(*corev1.Pod)
	changed := old.DeepCopy()
	changed.ResourceVersion, changed.Status.ContainerStatuses[0].Ready = "2", false
	other := old.DeepCopy()
	other.Name, other.UID, other.Labels = "a-pod-with-a-longer-name", "uid-other", nil
	s.changes = []control.Event{{Type: control.Modified, Object: changed}, {Type: control.Added, Object: other}, {Type: control.Deleted, Object: changed}}
	for _, tt := range []struct {
		name string
		get  Get
		want string
	}{
		{"a table", Get{Watch: true}, `
NAME      READY   STATUS    RESTARTS   AGE
cart-1    1/1     Running   10         2d2h
front-1   1/1     Running   0          2d2h
cart-1    0/1     Running   10         2d2h
a-pod-with-a-longer-name   1/1     Running   10         2d2h
cart-1                     0/1     Running   10         2d2h
`},
		{"events, and nothing that was there", Get{WatchOnly: true, WatchEvents: true}, `
EVENT      NAME     READY   STATUS    RESTARTS   AGE
MODIFIED   cart-1   0/1     Running   10         2d2h
ADDED      a-pod-with-a-longer-name   1/1     Running   10         2d2h
DELETED    cart-1                     0/1     Running   10         2d2h
`},
		{"names", Get{Watch: true, Output: "name"}, `
pod/cart-1
pod/front-1
pod/cart-1
pod/a-pod-with-a-longer-name
pod/cart-1
`},
		{"events by template", Get{WatchOnly: true, WatchEvents: true, Output: "go-template={{.type}} {{.object.metadata.name}}\n"}, `
MODIFIED cart-1
ADDED a-pod-with-a-longer-name
DELETED cart-1
`},
		{"columns", Get{Watch: true, Output: "custom-columns=NAME:.metadata.name"}, `
NAME
cart-1
front-1
cart-1
a-pod-with-a-longer-name
cart-1
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.get.Namespace, tt.get.FieldSelector = "shop", "spec.nodeName=node-1"
			var out bytes.Buffer
			if err := tt.get.Run(t.Context(), s, []string{"pods"}, &out, &out); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, "\n"+out.String()); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
		})
	}
}
