package informers

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/middleway-net/middleway/k8s/informers/informerstest"
	"github.com/middleway-net/middleway/k8s/object"
)

// tell runs what writes Events until the test ends.
func tell(t *testing.T, c *Client) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.RunEvents(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func taken(name string) Event {
	return Event{
		Kind: object.Services, Object: object.Key{Namespace: "default", Name: name}, Warning: true,
		Reason: "PortNotAvailable", Message: "node node-1 cannot open its port",
	}
}

// An Event is about its object, of which kubectl describe asks for the uid.
func TestEvent(t *testing.T) {
	api := informerstest.New(t)
	web := service("web", "10.96.0.20")
	web.UID = "4711"
	api.Set("services", web)
	c, log := client(t, api)
	tell(t, c)
	c.Tell(taken("gone"))
	eventually(t, "word of the Event about nothing", func() bool { return log.count("could not be written") == 1 })
	c.Tell(taken("web"))
	eventually(t, "the Event", func() bool { return len(api.Events()) > 0 })
	got := api.Events()[0]
	about := got.InvolvedObject
	about.ResourceVersion = ""
	if diff := cmp.Diff(corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: "default", Name: "web", UID: "4711"}, about); diff != "" {
		t.Errorf("about (-want +got):\n%s", diff)
	}
	if got.Type != "Warning" || got.Reason != "PortNotAvailable" || got.Message != "node node-1 cannot open its port" || got.ReportingInstance != "node-1" || got.Count != 1 {
		t.Errorf("got %+v", got)
	}
}

// An Event of a Node, which has no namespace, is in the default one, and there need not be such a Node.
func TestEventOfNode(t *testing.T) {
	api := informerstest.New(t)
	c, _ := client(t, api)
	tell(t, c)
	c.Tell(Event{Kind: object.Nodes, Object: object.Key{Name: "node-1"}, Warning: true, Reason: "PortNotAvailable", Message: "taken"})
	eventually(t, "the Event", func() bool { return len(api.Events()) > 0 })
	got := api.Events()[0]
	if a := got.InvolvedObject; got.Namespace != "default" || a.Kind != "Node" || a.Name != "node-1" || a.Namespace != "" || a.UID != "node-1" {
		t.Errorf("in %q, about %+v", got.Namespace, a)
	}
}

// A message that is too long is cut, between characters.
func TestEventIsCut(t *testing.T) {
	for message, want := range map[string]int{
		strings.Repeat("a", longestMessage):         longestMessage,
		strings.Repeat("a", longestMessage+1):       longestMessage,
		strings.Repeat("a", longestMessage-1) + "é": longestMessage - 1,
	} {
		if got := cut(message); len(got) != want || !utf8.ValidString(got) {
			t.Errorf("%d bytes become %d, want %d: …%q", len(message), len(got), want, got[len(got)-3:])
		}
	}
}

// The name of an Event is one, however long that of its object is.
func TestEventNames(t *testing.T) {
	for _, of := range []string{"web", strings.Repeat("a", 253), strings.Repeat("a", longestEventPrefix-1) + ".b" + strings.Repeat("c", 60)} {
		e := Event{Object: object.Key{Name: of}}
		for range 2 {
			if name := e.name(time.Unix(1e9, 0)); len(validation.IsDNS1123Subdomain(name)) > 0 || !strings.HasPrefix(name, of[:3]) {
				t.Errorf("%s is called %s: %v", of, name, validation.IsDNS1123Subdomain(name))
			}
			e.Repeats = true
		}
	}
}

// However many Events there would be, the API server gets few, and who tells does not wait.
func TestEventsAreFew(t *testing.T) {
	api := informerstest.New(t)
	for i := range 3 * eventBurst {
		api.Set("services", service(fmt.Sprint("web-", i), "10.96.0.20"))
	}
	c, _ := client(t, api)
	for i := range 3 * eventBurst { // nobody writes them yet
		c.Tell(taken(fmt.Sprint("web-", i)))
	}
	tell(t, c)
	eventually(t, "the Events", func() bool { return len(api.Events()) >= eventBurst })
	c.Tell(taken("web-0"))
	if got := len(api.Events()); got > eventBurst+1 {
		t.Errorf("%d Events, want at most %d", got, eventBurst+1)
	}
}

// A warning about the node is also one about its pod, and comes once in a while, whoever repeats it: this life of the daemon or the next.
func TestWarn(t *testing.T) {
	api := informerstest.New(t)
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "middleway", Name: "middleway-x", UID: "42"}}
	api.Set("pods", pod)
	for life := range 2 {
		c, log := client(t, api)
		c.config.Pod = object.Key{Namespace: "middleway", Name: "middleway-x"}
		tell(t, c)
		for range 3 * eventBurst { // which would be too many
			c.Warn("TunnelPortTaken", "somebody has the port")
		}
		eventually(t, "both Events", func() bool { return api.Posts() == 2*(life+1) })
		c.WarnNow(t.Context(), "TunnelPortTaken", "somebody has the port")
		if log.text.Len() > 0 {
			t.Error("log:", log.text.String())
		}
	}
	got := map[string]string{}
	for _, e := range api.Events() {
		got[e.InvolvedObject.Kind+" "+e.Namespace+"/"+e.InvolvedObject.Name+" "+string(e.InvolvedObject.UID)] = e.Type + " " + e.Reason + ": " + e.Message
	}
	want := map[string]string{
		"Node default/node-1 node-1":   "Warning TunnelPortTaken: somebody has the port",
		"Pod middleway/middleway-x 42": "Warning TunnelPortTaken: somebody has the port",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Events (-want +got):\n%s", diff)
	}
}

// What is told again is taken again after a while, and another message at once.
func TestWarnings(t *testing.T) {
	e, now := newEvents(), time.Unix(1e9, 0)
	for _, row := range []struct {
		what  string
		after time.Duration
		want  bool
	}{
		{"a", 0, true}, {"a", time.Second, false}, {"b", time.Second, true}, {"a", repeatPause - time.Nanosecond, false}, {"a", repeatPause, true}, {"a", repeatPause + time.Second, false},
	} {
		if got := e.due(row.what, now.Add(row.after)); got != row.want {
			t.Errorf("%s after %v: %v, want %v", row.what, row.after, got, row.want)
		}
	}
	again := Event{Object: object.Key{Name: "node-1"}, Reason: "A", Message: "a", Repeats: true}
	if a, b := again.name(now), again.name(now.Add(repeatPause)); a == b {
		t.Errorf("an Event is called %s for ever", a)
	}
}

// Each right that is missing is a sentence in the log and, where Events may be written, one of these.
func TestRightsMissing(t *testing.T) {
	for _, refuse := range []string{"nodes", "namespaces", "pods", "services", "endpointslices"} {
		t.Run(refuse, func(t *testing.T) {
			t.Parallel()
			api := informerstest.New(t)
			api.Refuse(refuse)
			c, log := client(t, api)
			run(t, c)
			tell(t, c)
			eventually(t, "an Event", func() bool { return len(api.Events()) == 1 })
			want := "the API server refuses what this node needs: " + refuse + " is forbidden; allow it in the ClusterRole, as deploy/middleway.yaml does"
			if e := api.Events()[0]; e.Reason != ReasonRights || e.Message != want || e.InvolvedObject.Kind != "Node" {
				t.Errorf("got %s: %s about a %s, want %s: %s", e.Reason, e.Message, e.InvolvedObject.Kind, ReasonRights, want)
			}
			if got := log.count(want); got != 1 {
				t.Errorf("the log has it %d times, want once:\n%s", got, log.text.String())
			}
		})
	}
	t.Run("events", func(t *testing.T) {
		api := informerstest.New(t)
		api.Refuse("events")
		c, log := client(t, api)
		c.WarnNow(t.Context(), "A", "a")
		c.WarnNow(t.Context(), "B", "b")
		if got := log.count("events is forbidden; allow it in the ClusterRole, as deploy/middleway.yaml does; until then only this log says what Events would"); got != 1 {
			t.Errorf("the log has it %d times, want once:\n%s", got, log.text.String())
		}
	})
	t.Run("this node", func(t *testing.T) {
		api := informerstest.New(t)
		api.Refuse("nodes")
		api.Set("nodes", node("10.244.1.0/24"))
		c, log := client(t, api)
		got := make(chan *object.Node, 1)
		go func() {
			n, _ := c.Node(t.Context(), func(string) {})
			got <- n
		}()
		eventually(t, "an Event", func() bool { return len(api.Events()) == 1 })
		api.Refuse("")
		if n := <-got; n == nil || log.count("refuses what this node needs") != 1 || log.count("answers again") != 1 {
			t.Errorf("got %v:\n%s", n, log.text.String())
		}
	})
}

// What a node waits for is an Event of its own.
func TestNodeWaitsWithEvents(t *testing.T) {
	api := informerstest.New(t)
	c, _ := client(t, api)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := c.Node(ctx, func(string) {}); done <- err }()
	for i, row := range []struct {
		reason string
		ranges []string
		want   string
	}{
		{ReasonNoNode, nil, "waiting for the Node object node-1, which kubelet makes; --name has to be the name that kubelet has"},
		{ReasonNoRange, []string{}, "waiting for a pod range of node node-1 (spec.podCIDRs); the controller manager gives one where it runs with --allocate-node-cidrs"},
		{ReasonBadRange, []string{"10.244.1.0"}, "waiting for a Node object node-1 that can be used: "},
	} {
		if row.ranges != nil {
			api.Set("nodes", node(row.ranges...))
		}
		eventually(t, row.reason, func() bool { return len(api.Events()) == i+1 })
		found := false
		for _, e := range api.Events() {
			found = found || e.Reason == row.reason && strings.HasPrefix(e.Message, row.want) && e.Type == "Warning"
		}
		if !found {
			t.Errorf("no Event %s: %s among %v", row.reason, row.want, api.Events())
		}
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("an ended wait returned no error")
	}
}
