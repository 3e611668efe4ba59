package informers

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s/object"
)

func (s *apiServer) events() (all []*corev1.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, o := range s.objects {
		if strings.HasPrefix(key, "events/") {
			all = append(all, o.(*corev1.Event))
		}
	}
	return all
}

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
	api := newAPIServer(t)
	web := service("web", "10.96.0.20")
	web.UID = "4711"
	api.set("services", web)
	c, log := api.client(t)
	tell(t, c)
	c.Tell(taken("gone"))
	eventually(t, "word of the Event about nothing", func() bool { return log.count("could not be written") == 1 })
	c.Tell(taken("web"))
	eventually(t, "the Event", func() bool { return len(api.events()) > 0 })
	got := api.events()[0]
	about := got.InvolvedObject
	about.ResourceVersion = ""
	if diff := cmp.Diff(corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: "default", Name: "web", UID: "4711"}, about); diff != "" {
		t.Errorf("about (-want +got):\n%s", diff)
	}
	if got.Type != "Warning" || got.Reason != "PortNotAvailable" || got.Message != "node node-1 cannot open its port" || got.ReportingInstance != "node-1" || got.Count != 1 {
		t.Errorf("got %+v", got)
	}
}

// An Event of a Node, which has no namespace, is in the default one.
func TestEventOfNode(t *testing.T) {
	api := newAPIServer(t)
	api.set("nodes", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "4712"}})
	c, _ := api.client(t)
	tell(t, c)
	c.Tell(Event{Kind: object.Nodes, Object: object.Key{Name: "node-1"}, Warning: true, Reason: "PortNotAvailable", Message: "taken"})
	eventually(t, "the Event", func() bool { return len(api.events()) > 0 })
	got := api.events()[0]
	if a := got.InvolvedObject; got.Namespace != "default" || a.Kind != "Node" || a.Name != "node-1" || a.Namespace != "" || a.UID != "4712" {
		t.Errorf("in %q, about %+v", got.Namespace, a)
	}
}

// However many Events there would be, the API server gets few, and who tells does not wait.
func TestEventsAreFew(t *testing.T) {
	api := newAPIServer(t)
	for i := range 3 * eventBurst {
		api.set("services", service(fmt.Sprint("web-", i), "10.96.0.20"))
	}
	c, _ := api.client(t)
	for i := range 3 * eventBurst { // nobody writes them yet
		c.Tell(taken(fmt.Sprint("web-", i)))
	}
	tell(t, c)
	eventually(t, "the Events", func() bool { return len(api.events()) >= eventBurst })
	c.Tell(taken("web-0"))
	if got := len(api.events()); got > eventBurst+1 {
		t.Errorf("%d Events, want at most %d", got, eventBurst+1)
	}
}
