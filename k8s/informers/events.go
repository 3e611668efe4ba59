package informers

import (
	"cmp"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/middleway-net/middleway/k8s/object"
)

// How many Events this node writes: as many at once, and no more than one each few seconds in the long run. What is beyond that is
// dropped, since the log has it too.
const (
	eventBurst  = 20
	eventPause  = 10 * time.Second
	eventsQueue = 64 // that wait while the API server is slow
)

// controller is who writes Events, as they call it.
const controller = "middleway.net/node"

// Event says what became of an object.
type Event struct {
	Kind    object.Kind // object.Services, object.Pods or object.Nodes
	Object  object.Key
	Warning bool
	Reason  string // in CamelCase, for programs
	Message string // for people; the API server takes 1,024 bytes
}

// events are those that wait to be written.
type events struct {
	queue chan Event
	limit flowcontrol.RateLimiter
}

func newEvents() events {
	return events{
		queue: make(chan Event, eventsQueue),
		limit: flowcontrol.NewTokenBucketRateLimiter(float32(time.Second)/float32(eventPause), eventBurst),
	}
}

// Tell has an Event written by RunEvents. It does not wait, and drops the Event where there are too many.
func (c *Client) Tell(e Event) {
	if !c.events.limit.TryAccept() {
		return
	}
	select {
	case c.events.queue <- e:
	default:
	}
}

// RunEvents writes Events until ctx ends. One that the API server does not take is lost.
func (c *Client) RunEvents(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-c.events.queue:
			if err := c.write(ctx, e); err != nil && ctx.Err() == nil {
				c.config.Logger.Warn("an event could not be written", "object", e.Object, "reason", e.Reason, "err", err)
			}
		}
	}
}

// eventPatience is how long the API server has for one Event.
const eventPatience = 10 * time.Second

func (c *Client) write(ctx context.Context, e Event) error {
	ctx, cancel := context.WithTimeout(ctx, eventPatience)
	defer cancel()
	about, err := c.reference(ctx, e)
	if err != nil {
		return err
	}
	kind, now := corev1.EventTypeNormal, metav1.Now()
	if e.Warning {
		kind = corev1.EventTypeWarning
	}
	const longest = 1024                                             // of a message (the API server's validation)
	namespace := cmp.Or(e.Object.Namespace, metav1.NamespaceDefault) // where those of Nodes are
	event := corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%x%s", e.Object.Name, now.UnixNano(), rand.String(4))},
		InvolvedObject: about, Type: kind, Reason: e.Reason, Message: e.Message[:min(len(e.Message), longest)],
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source:              corev1.EventSource{Component: "middleway", Host: c.config.Node},
		ReportingController: controller, ReportingInstance: c.config.Node,
	}
	return c.core.Post().Namespace(namespace).Resource("events").Body(&event).Do(ctx).Error()
}

// reference names an object as `kubectl describe` looks for its Events: with its uid, which stripped objects do not have.
func (c *Client) reference(ctx context.Context, e Event) (corev1.ObjectReference, error) {
	var meta metav1.ObjectMeta
	var name string
	get := c.core.Get().Namespace(e.Object.Namespace).Name(e.Object.Name)
	var err error
	switch e.Kind {
	case object.Services:
		var s corev1.Service
		err = get.Resource("services").Do(ctx).Into(&s)
		meta, name = s.ObjectMeta, "Service"
	case object.Pods:
		var p corev1.Pod
		err = get.Resource("pods").Do(ctx).Into(&p)
		meta, name = p.ObjectMeta, "Pod"
	case object.Nodes:
		var n corev1.Node
		err = c.core.Get().Resource("nodes").Name(e.Object.Name).Do(ctx).Into(&n)
		meta, name = n.ObjectMeta, "Node"
	default:
		err = fmt.Errorf("events are about Services, Pods and Nodes, not %v", e.Kind)
	}
	return corev1.ObjectReference{
		APIVersion: "v1", Kind: name, Namespace: e.Object.Namespace, Name: e.Object.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion,
	}, err
}
