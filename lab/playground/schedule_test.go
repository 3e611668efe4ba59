package playground

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/lab/manifest"
)

// podsOn makes pods that name these nodes, "" for none; "node-1 80" wants a host port there.
func podsOn(t *testing.T, nodes ...string) []*manifest.Pod {
	t.Helper()
	var b strings.Builder
	for i, n := range nodes {
		ports := "[]"
		if node, number, ok := strings.Cut(n, " "); ok {
			n, ports = node, fmt.Sprintf("[{containerPort: 8080, hostPort: %s}]", number)
		}
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p%d}\nspec: {nodeName: %q, containers: [{name: c, command: [x], ports: %s}]}\n", i, n, ports)
	}
	s, err := manifest.Parse("x.yaml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return s.Pods()
}

func TestSchedule(t *testing.T) {
	for _, tt := range []struct {
		name string
		have []int
		pods []string
		want []int
	}{
		{"none", []int{0, 0}, nil, []int{}},
		{"spread", []int{0, 0}, []string{"", "", ""}, []int{0, 1, 0}},
		{"named", make([]int, 3), []string{"node-3", "node-1"}, []int{2, 0}},
		{"around those that are named later", []int{0, 0}, []string{"", "node-1", "node-1", ""}, []int{1, 0, 0, 1}},
		{"one node", []int{0}, []string{"", "node-1"}, []int{0, 0}},
		{"beside others", []int{2, 1, 2}, []string{"", ""}, []int{1, 0}},
		{"a host port on each node", []int{0, 0}, []string{" 80", " 80", " 80"}, []int{0, 1, -1}},
		{"a host port is the first need", []int{0, 5}, []string{" 80", " 80"}, []int{0, 1}},
		{"host ports of two", []int{0}, []string{" 80", " 81"}, []int{0, 0}},
		{"a host port that a named one takes", []int{0, 0}, []string{" 80", "node-1 80", "node-1 80"}, []int{1, 0, -1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			have := make([]load, len(tt.have))
			for i, n := range tt.have {
				have[i].pods = n
			}
			got, err := schedule(podsOn(t, tt.pods...), have)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	for nodes, want := range map[int]string{1: "the only one is node-1", 4: "there are node-1 to node-4, and --nodes makes more"} {
		_, err := schedule(podsOn(t, "", "node-9"), make([]load, nodes))
		if want := `x.yaml, line 10, spec.nodeName: there is no node "node-9"; ` + want; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestWaits(t *testing.T) {
	for pod, want := range map[string]string{" 80": "waits for hostPort TCP 80: no node has it free", "node-2 80": "waits for hostPort TCP 80: node-2 does not have it free"} {
		have := make([]load, 2)
		for i := range have {
			have[i].add(podsOn(t, " 80")[0])
		}
		if got := waits(podsOn(t, pod)[0], have).Error(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestDefaultPods(t *testing.T) {
	s, err := DefaultPods(3)
	if err != nil || len(s.Pods()) != 6 || len(s.Warnings) != 0 {
		t.Fatalf("got %v, %+v", err, s)
	}
	if p := s.Pods()[5]; p.Name != "pod-3-2" || p.Spec.NodeName != "node-3" {
		t.Errorf("got %s on %s", p.Name, p.Spec.NodeName)
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{first: time.Second, most: 5 * time.Second, calm: time.Minute}
	for i, want := range []time.Duration{0, 1, 2, 4, 5, 5} {
		if got := b.after(0); got != want*time.Second {
			t.Errorf("try %d: got %v, want %d s", i, got, want)
		}
	}
	if got := b.after(time.Minute); got != 0 {
		t.Errorf("after a calm run: got %v", got)
	}
	for range 100 {
		if got := b.after(0); got < 0 || got > 5*time.Second {
			t.Fatalf("got %v", got)
		}
	}
}

func TestGrace(t *testing.T) {
	c := container{pod: &Pod{manifest: podsOn(t, "")[0]}}
	if got := c.grace(); got != 10*time.Second {
		t.Errorf("got %v, want the default of 10 s", got)
	}
	for seconds, want := range map[int64]time.Duration{0: 0, 30: 30 * time.Second, 60: time.Minute, 1 << 62: time.Minute} {
		c.pod.manifest.Spec.TerminationGracePeriodSeconds = &seconds
		if got := c.grace(); got != want {
			t.Errorf("%d s: got %v, want %v", seconds, got, want)
		}
	}
}
