package control

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/middleway-net/middleway/lab/manifest"
)

func (c *cluster) check(step string, got []string, want ...string) {
	c.Helper()
	if strings.Join(got, "|") != strings.Join(want, "|") {
		c.Errorf("%s: got %q, want %q", step, got, want)
	}
}

func TestApply(t *testing.T) {
	c := newCluster(t)
	c.check("first", c.apply(all(webService, webDeployment, webPod)), "service/web created", "deployment.apps/web created", "pod/web created")
	c.settle()
	c.check("again", c.apply(all(webService, webDeployment, webPod)), "service/web unchanged", "deployment.apps/web unchanged", "pod/web unchanged")
	c.check("others", c.apply(all(strings.Replace(webService, "port: 80", "port: 81", 1), strings.Replace(webDeployment, "replicas: 4", "replicas: 3", 1),
		strings.Replace(webPod, "app: web", "app: web, x: y", 1))), "service/web configured", "deployment.apps/web configured", "pod/web configured")
	c.check("a pod's spec", c.apply(strings.Replace(webPod, "nginx", "httpd", 1)),
		"pod/web y.yaml, line 5, spec.containers[0].image: it is not changed in a pod that runs; delete the pod first, or run it by a Deployment")
	c.check("one is wrong, the others are not", c.apply(all(strings.Replace(webService, "spec:", "spec:\n  clusterIP: 10.96.0.1", 1), webDeployment)),
		"service/web y.yaml, line 5, spec.clusterIP: it is "+of[*corev1.Service](c, Services, "web")[0].Spec.ClusterIP+", and stays so while the Service lives; remove the Service first",
		"deployment.apps/web configured")
	if _, err := c.Apply(ApplyRequest{Files: []File{{"z.yaml", []byte(webPod + "x: y\n")}}}); err == nil || !strings.Contains(err.Error(), "z.yaml, line 6, x: Kubernetes has no such field here") {
		t.Errorf("got %v", err)
	}
	if _, err := c.Apply(ApplyRequest{Files: []File{{"z.yaml", nil}}}); err == nil || err.Error() != "no objects passed to apply" {
		t.Errorf("got %v", err)
	}
}

// Who applies only what the playground does not run is told of it.
func TestApplyLeftOut(t *testing.T) {
	c := newCluster(t)
	_, err := c.Apply(ApplyRequest{Files: []File{{"s.yaml", []byte("apiVersion: batch/v1\nkind: Job\nmetadata: {name: db}\n")}}})
	if err == nil || !strings.HasPrefix(err.Error(), "s.yaml, line 1: kind Job is left out: ") {
		t.Errorf("got %v", err)
	}
}

// A pod that no node can run is refused, also in a Deployment.
func TestFits(t *testing.T) {
	p := New(Config{ServiceCIDRs: prefixes("10.96.0.0/16"), Fits: func(pod *manifest.Pod) error {
		if pod.Spec.NodeName != "" {
			return pod.Errorf("spec.nodeName", "there is no node %q", pod.Spec.NodeName)
		}
		return nil
	}})
	c := &cluster{T: t, Plane: p}
	c.check("apply", c.apply(all(strings.Replace(webPod, "spec:", "spec:\n  nodeName: x", 1), strings.Replace(webDeployment, "    spec:", "    spec:\n      nodeName: y", 1), webService)),
		`pod/web y.yaml, line 5, spec.nodeName: there is no node "x"`, `deployment.apps/web y.yaml, line 17, spec.template.spec.nodeName: there is no node "y"`, "service/web created")
}

func TestApplyNamespace(t *testing.T) {
	c := newCluster(t)
	r, err := c.Apply(ApplyRequest{Namespace: "prod", Files: []File{{"y.yaml", []byte(webPod)}}})
	if err != nil || r.Applied[0].Namespace != "prod" {
		t.Fatalf("got %+v, %v", r, err)
	}
	if ns := of[*corev1.Namespace](c, Namespaces, "prod")[0]; ns.Labels[corev1.LabelMetadataName] != "prod" || ns.Status.Phase != corev1.NamespaceActive {
		t.Errorf("got %+v", ns)
	}
	c.settle()
	if err := c.Delete(t.Context(), DeleteRequest{Query: &Query{Kind: "ns", Names: []string{"prod"}}}, func(Ref) {}); err != nil {
		t.Error(err)
	}
	c.settle()
	if _, err := c.List(Query{Kind: "ns", Names: []string{"prod"}}); !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	for _, own := range []string{"default", "kube-system"} {
		if err := c.Delete(t.Context(), DeleteRequest{Query: &Query{Kind: "ns", Names: []string{own}}}, func(Ref) {}); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v", own, err)
		}
	}
}

// While a file is followed it wins.
func TestFollowedFilesWin(t *testing.T) {
	c := newCluster(t)
	c.check("apply", c.apply(webService), "service/web created")
	ip := of[*corev1.Service](c, Services, "web")[0].Spec.ClusterIP
	if got := c.follow(webService); len(got) != 0 {
		t.Errorf("got %q", got)
	}
	c.check("apply what is followed", c.apply(webService), "service/web Service default/web: it is in x.yaml, which is followed; change it there")
	err := c.Delete(t.Context(), DeleteRequest{Query: &Query{Kind: "svc", Namespace: "default", Names: []string{"web"}}}, func(Ref) {})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "it is in x.yaml, which is followed; change it there") {
		t.Errorf("got %v", err)
	}
	if s := of[*corev1.Service](c, Services, "web")[0]; s.Spec.ClusterIP != ip {
		t.Errorf("got %s", s.Spec.ClusterIP)
	}
	c.follow("")
	if _, err := c.List(Query{Kind: "svc", Names: []string{"web"}}); !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
}

// What is scaled stays so until its manifest changes.
func TestScale(t *testing.T) {
	c := newCluster(t)
	replicas := func() int32 { return *of[*appsv1.Deployment](c, Deployments, "web")[0].Spec.Replicas }
	scale := func(n int32, current *int32) error {
		return c.Scale(ScaleRequest{Query: Query{Kind: "deploy", Namespace: "default", Names: []string{"web"}}, Replicas: n, Current: current}, func(Ref) {})
	}
	c.follow(webDeployment)
	c.settle()
	if err := scale(6, nil); err != nil || replicas() != 6 {
		t.Errorf("got %v, %d", err, replicas())
	}
	c.settle()
	if got := c.counts(); got != "6 6 6 6" {
		t.Errorf("got %s", got)
	}
	c.follow(all(webDeployment, webPod)) // another object of the file
	if replicas() != 6 {
		t.Errorf("got %d", replicas())
	}
	c.follow(strings.Replace(webDeployment, "nginx", "httpd", 1))
	if replicas() != 4 {
		t.Errorf("after a change: got %d", replicas())
	}
	if err := scale(1, new(int32(3))); !apierrors.IsConflict(err) || replicas() != 4 {
		t.Errorf("got %v", err)
	}
	unsaid := strings.Replace(webDeployment, "  replicas: 4\n", "", 1)
	c.follow(unsaid)
	if replicas() != 1 {
		t.Errorf("without replicas: got %d", replicas())
	}
	_ = scale(3, nil)
	c.follow(strings.Replace(unsaid, "nginx", "httpd", 1))
	if replicas() != 3 {
		t.Errorf("a manifest that does not name replicas: got %d", replicas())
	}
	if err := c.Scale(ScaleRequest{Query: Query{Kind: "pods"}}, func(Ref) {}); err == nil {
		t.Error("pods were scaled")
	}
}

func TestDelete(t *testing.T) {
	c := newCluster(t)
	c.apply(all(webService, webDeployment, webPod))
	c.settle()
	var told []string
	tell := func(r Ref) { told = append(told, r.String()) }
	err := c.Delete(t.Context(), DeleteRequest{Files: []File{{"y.yaml", []byte(all(webService, webPod))}}}, tell)
	c.check("files", told, "pod/web", "service/web")
	if err != nil {
		t.Error(err)
	}
	c.settle()
	if err := c.Delete(t.Context(), DeleteRequest{Query: &Query{Kind: "pod", Namespace: "default", Names: []string{"web"}}}, tell); !apierrors.IsNotFound(err) || err.Error() != `pods "web" not found` {
		t.Errorf("got %v", err)
	}
	if err := c.Delete(t.Context(), DeleteRequest{Query: &Query{Kind: "pod", Namespace: "default", Names: []string{"web"}}, IgnoreNotFound: true}, tell); err != nil {
		t.Errorf("got %v", err)
	}
	told = nil
	err = c.Delete(t.Context(), DeleteRequest{Query: &Query{Kind: "deployments.apps", Selector: "app=web"}}, tell)
	c.check("a selector that chooses nothing", told)
	if err != nil {
		t.Error(err)
	}
	if err := c.Delete(t.Context(), DeleteRequest{Query: &Query{Kind: "svc", Namespace: "default", Names: []string{"kubernetes"}}}, tell); !apierrors.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
	if err := c.Delete(t.Context(), DeleteRequest{Query: &Query{Kind: "nonsense"}}, tell); err == nil || err.Error() != `the server doesn't have a resource type "nonsense"` {
		t.Errorf("got %v", err)
	}
}

func TestDeleteWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.apply(webPod)
		c.settle()
		gone := make(chan error, 1)
		go func() {
			gone <- c.Delete(t.Context(), DeleteRequest{Query: &Query{Kind: "pod", Namespace: "default", Names: []string{"web"}}, Wait: true}, func(Ref) {})
		}()
		synctest.Wait()
		if len(gone) != 0 {
			t.Error("it did not wait")
		}
		c.settle()
		synctest.Wait()
		if len(gone) != 1 || <-gone != nil {
			t.Error("it waits on")
		}
	})
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.apply(webPod)
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		ended := make(chan error, 1)
		go func() {
			ended <- c.Watch(ctx, Query{Kind: "pods", Selector: "app=web"}, func(e Event) error {
				got = append(got, string(e.Type)+" "+e.Object.GetName()+" "+string(e.Object.(*corev1.Pod).Status.Phase))
				return nil
			})
		}()
		synctest.Wait()
		c.settle()
		synctest.Wait()
		c.apply(strings.Replace(webPod, "app: web", "app: shop", 1))
		synctest.Wait()
		c.check("events", got, "ADDED web Pending", "MODIFIED web Pending", "MODIFIED web Running", "DELETED web Running")
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// What is sent can be read.
func TestDecode(t *testing.T) {
	for _, k := range Kinds {
		for _, name := range append([]string{k.Plural, k.Singular(), k.Kind, strings.Trim(k.Plural+"."+k.Group, ".")}, k.Short...) {
			if KindNamed(name) != k {
				t.Errorf("%s is not %s", name, k.Kind)
			}
		}
	}
	if KindNamed("pods.apps") != nil || KindNamed("configmaps") != nil {
		t.Error("a kind that is none")
	}
	for _, bad := range []string{"", "{}", `{"apiVersion":"v1","kind":"Secret"}`, `{"apiVersion":"v1","kind":"Pod","spec":1}`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}
