package informers

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/k8s/informers/informerstest"
)

func TestWithdraw(t *testing.T) {
	const mark = "middleway.net/tunnel"
	announced := map[string]string{mark: "1", "flannel.alpha.coreos.com/backend-type": "vxlan", "flannel.alpha.coreos.com/kube-subnet-manager": "true"}
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(announced)), func(key string) bool { return key == mark })
	for _, row := range []struct {
		name string
		// change makes of an announced node what it is when it is withdrawn.
		change      func(n *corev1.Node)
		take        []string // of others
		was         bool
		annotations []string
		conditions  int
	}{
		{"as announced", func(*corev1.Node) {}, others, true, []string{"somebody.example/note"}, 1},
		{"taken back before", func(n *corev1.Node) { delete(n.Annotations, mark) }, others, false, append(slices.Clone(others), "somebody.example/note"), 2},
		{"flannel has come", func(n *corev1.Node) { n.Status.Conditions[0].Reason = "FlannelIsUp" }, others, true, append(slices.Clone(others), "somebody.example/note"), 2},
		{"flannel is to come", func(*corev1.Node) {}, nil, true, append(slices.Clone(others), "somebody.example/note"), 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			api := informerstest.New(t)
			c, _ := client(t, api)
			n := node("10.244.1.0/24")
			n.Annotations = maps.Clone(announced)
			n.Annotations["somebody.example/note"] = "x"
			n.Status.Conditions = []corev1.NodeCondition{
				{Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: reasonUp}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue},
			}
			row.change(n)
			api.Set("nodes", n)
			was, err := c.Withdraw(t.Context(), mark, row.take)
			if was != row.was || err != nil {
				t.Errorf("got %t, %v; want %t", was, err, row.was)
			}
			var is corev1.Node
			if err := c.core.Get().Resource("nodes").Name("node-1").Do(t.Context()).Into(&is); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.annotations, slices.Sorted(maps.Keys(is.Annotations))); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
			if len(is.Status.Conditions) != row.conditions {
				t.Errorf("conditions %v, want %d", is.Status.Conditions, row.conditions)
			}
		})
	}
	t.Run("no such node", func(t *testing.T) {
		c, _ := client(t, informerstest.New(t))
		if was, err := c.Withdraw(t.Context(), mark, others); was || err != nil {
			t.Errorf("got %t, %v", was, err)
		}
	})
}
