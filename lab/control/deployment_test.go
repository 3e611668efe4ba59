package control

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

func (c *cluster) deployment() *appsv1.Deployment {
	c.Helper()
	return of[*appsv1.Deployment](c, Deployments, "web")[0]
}

// counts describes a Deployment's status: replicas, updated, ready, available.
func (c *cluster) counts() string {
	s := c.deployment().Status
	return fmt.Sprint(s.Replicas, s.UpdatedReplicas, s.ReadyReplicas, s.AvailableReplicas)
}

func (c *cluster) progress() string {
	c.Helper()
	d := c.deployment()
	return conditionOf(&d.Status, appsv1.DeploymentProgressing).Reason
}

func TestDeployment(t *testing.T) {
	c := newCluster(t)
	c.follow(all(webDeployment, webService))
	if got := c.counts(); got != "4 4 0 0" {
		t.Errorf("at first: got %s", got)
	}
	c.settle()
	if got := c.counts(); got != "4 4 4 4" || c.progress() != reasonComplete {
		t.Errorf("when all run: got %s, %s", got, c.progress())
	}
	pods := of[*corev1.Pod](c, Pods)
	shape := regexp.MustCompile(`^web-[bcdf0-9ghjklmnpqrstvwxz]{8,10}-[bcdf0-9ghjklmnpqrstvwxz]{5}$`)
	hash := pods[0].Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	for _, p := range pods {
		if !shape.MatchString(p.Name) || p.Labels[appsv1.DefaultDeploymentUniqueLabelKey] != hash || p.OwnerReferences[0].Name != "web-"+hash || p.GenerateName != "web-"+hash+"-" {
			t.Errorf("got %+v", p.ObjectMeta)
		}
	}
	if got := c.endpointsOf("web", discoveryv1.AddressTypeIPv4); len(got) != 4 {
		t.Errorf("got endpoints %q", got)
	}
	// A pod that goes is replaced.
	if err := c.Delete(t.Context(), DeleteRequest{Query: &Query{Kind: "pod", Namespace: "default", Names: []string{pods[0].Name}}}, func(Ref) {}); err != nil {
		t.Fatal(err)
	}
	c.settle()
	if got := c.counts(); got != "4 4 4 4" || len(of[*corev1.Pod](c, Pods)) != 4 {
		t.Errorf("after one has gone: got %s", got)
	}
	c.follow(strings.Replace(webDeployment, "replicas: 4", "replicas: 1", 1))
	c.settle()
	if got := c.counts(); got != "1 1 1 1" {
		t.Errorf("fewer: got %s", got)
	}
	c.follow("")
	c.settle()
	if left := len(of[Object](c, Pods)) + len(of[Object](c, ReplicaSets)) + len(of[Object](c, Deployments)); left != 0 {
		t.Errorf("%d objects are left", left)
	}
}

// A rolling update keeps to its bounds at every step.
func TestRollingUpdate(t *testing.T) {
	for _, tt := range []struct {
		surge, unavailable string
		most, least        int
	}{
		{"25%", "25%", 5, 3}, {"1", "0", 5, 4}, {"0", "1", 4, 3}, {"100%", "0", 8, 4}, {"0", "100%", 4, 0}, {"0", "10%", 4, 3},
	} {
		t.Run(tt.surge+" "+tt.unavailable, func(t *testing.T) {
			c := newCluster(t)
			text := strings.Replace(webDeployment, "  replicas: 4\n", fmt.Sprintf("  replicas: 4\n  strategy: {rollingUpdate: {maxSurge: %s, maxUnavailable: %s}}\n", tt.surge, tt.unavailable), 1)
			c.follow(text)
			c.settle()
			first := c.deployment().Annotations[revisionAnnotation]
			c.follow(strings.Replace(text, "nginx", "httpd", 1))
			for c.work() {
				s := c.deployment().Status
				if int(s.Replicas) > tt.most || int(s.AvailableReplicas) < tt.least {
					t.Fatalf("%d pods, of which %d are available", s.Replicas, s.AvailableReplicas)
				}
			}
			if got := c.counts(); got != "4 4 4 4" || c.progress() != reasonComplete {
				t.Errorf("got %s, %s", got, c.progress())
			}
			for _, p := range of[*corev1.Pod](c, Pods) {
				if p.Spec.Containers[0].Image != "httpd" {
					t.Errorf("%s is of before", p.Name)
				}
			}
			if second := c.deployment().Annotations[revisionAnnotation]; first != "1" || second != "2" || len(of[Object](c, ReplicaSets)) != 2 {
				t.Errorf("revisions %s, %s; %d ReplicaSets", first, second, len(of[Object](c, ReplicaSets)))
			}
			// The way back finds the ReplicaSet of before.
			c.follow(text)
			c.settle()
			if d := c.deployment(); d.Annotations[revisionAnnotation] != "3" || len(of[Object](c, ReplicaSets)) != 2 || c.counts() != "4 4 4 4" {
				t.Errorf("back: revision %s, %d ReplicaSets, %s", d.Annotations[revisionAnnotation], len(of[Object](c, ReplicaSets)), c.counts())
			}
		})
	}
}

// A roll-out whose pods do not become ready keeps those of before, and says so after its deadline.
func TestRolloutFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		text := strings.Replace(webDeployment, "  replicas: 4\n", "  replicas: 4\n  progressDeadlineSeconds: 30\n", 1)
		c.follow(text)
		c.settle()
		c.unfit = "web"
		c.follow(strings.Replace(text, "nginx", "httpd", 1))
		c.settle()
		if got := c.counts(); got != "5 2 3 3" {
			t.Errorf("got %s", got)
		}
		time.Sleep(29 * time.Second)
		synctest.Wait()
		if c.progress() != reasonUpdated {
			t.Errorf("got %s", c.progress())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if c.progress() != reasonTimedOut || len(c.events) != 1 || !strings.Contains(c.events[0], "default/web: the roll-out has not moved for 30s") {
			t.Errorf("got %s, %q", c.progress(), c.events)
		}
		c.unfit = ""
		c.follow(text)
		c.settle()
		if got := c.counts(); got != "4 4 4 4" || c.progress() != reasonComplete {
			t.Errorf("back: got %s, %s", got, c.progress())
		}
	})
}

func TestRecreate(t *testing.T) {
	c := newCluster(t)
	text := strings.Replace(webDeployment, "  replicas: 4\n", "  replicas: 4\n  strategy: {type: Recreate}\n", 1)
	c.follow(text)
	c.settle()
	c.slow = true
	c.follow(strings.Replace(text, "nginx", "httpd", 1))
	c.settle()
	if got := c.counts(); got != "0 0 0 0" {
		t.Errorf("while the old ones end: got %s", got)
	}
	c.slow = false
	c.settle()
	if got := c.counts(); got != "4 4 4 4" {
		t.Errorf("got %s", got)
	}
}

func TestMinReadySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.follow(strings.Replace(webDeployment, "  replicas: 4\n", "  replicas: 4\n  minReadySeconds: 5\n", 1))
		c.settle()
		if got := c.counts(); got != "4 4 4 0" {
			t.Errorf("at first: got %s", got)
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if got := c.counts(); got != "4 4 4 4" || c.progress() != reasonComplete {
			t.Errorf("later: got %s, %s", got, c.progress())
		}
	})
}

func TestPaused(t *testing.T) {
	c := newCluster(t)
	c.follow(webDeployment)
	c.settle()
	paused := strings.NewReplacer("  replicas: 4\n", "  replicas: 2\n  paused: true\n", "nginx", "httpd").Replace(webDeployment)
	c.follow(paused)
	c.settle()
	if got := c.counts(); got != "2 0 2 2" || of[*corev1.Pod](c, Pods)[0].Spec.Containers[0].Image != "nginx" {
		t.Errorf("paused: got %s", got)
	}
	c.follow(strings.Replace(paused, "  paused: true\n", "", 1))
	c.settle()
	if got := c.counts(); got != "2 2 2 2" || of[*corev1.Pod](c, Pods)[0].Spec.Containers[0].Image != "httpd" {
		t.Errorf("resumed: got %s", got)
	}
}

func TestRevisionHistory(t *testing.T) {
	c := newCluster(t)
	for i := range 6 {
		c.follow(strings.NewReplacer("  replicas: 4\n", "  replicas: 4\n  revisionHistoryLimit: 2\n", "image: nginx", fmt.Sprintf("image: nginx, args: [x%d]", i)).Replace(webDeployment))
		c.settle()
	}
	if got := len(of[Object](c, ReplicaSets)); got != 3 {
		t.Errorf("%d ReplicaSets", got)
	}
}

// The selector of a Deployment stays; a file that changes it is a mistake, and what runs goes on.
func TestSelectorStays(t *testing.T) {
	c := newCluster(t)
	c.follow(webDeployment)
	c.settle()
	got := c.follow(strings.ReplaceAll(webDeployment, "app: web", "app: shop"))
	if len(got) != 1 || !strings.Contains(got[0], "x.yaml, line 6, spec.selector: it stays as it was") || c.counts() != "4 4 4 4" {
		t.Errorf("got %q, %s", got, c.counts())
	}
}
