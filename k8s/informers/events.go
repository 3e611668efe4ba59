package informers

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

// repeatPause is how often the same Event about this node, or about its pod, is written at most, by all lives of the daemon together.
const repeatPause = 5 * time.Minute

// Event says what became of an object.
type Event struct {
	Kind    object.Kind // object.Services, object.Pods, or object.Nodes with the name alone
	Object  object.Key
	Warning bool
	Reason  string // in CamelCase, for programs
	Message string // for people; the API server takes 1,024 bytes

	// Repeats: it is told again and again while it is so, of which one is written every few minutes.
	Repeats bool
}

// name names an Event. One that repeats has the same name for repeatPause, in each life of the daemon: the API server takes it once.
func (e *Event) name(now time.Time) string {
	of := strings.TrimRight(e.Object.Name[:min(len(e.Object.Name), longestEventPrefix)], "-.")
	if !e.Repeats {
		return fmt.Sprintf("%s.%x%s", of, now.UnixNano(), rand.String(4))
	}
	h := fnv.New64a()
	fmt.Fprint(h, e.Reason, "\n", e.Message, "\n", now.Unix()/int64(repeatPause/time.Second))
	return fmt.Sprintf("%s.%016x", of, h.Sum64())
}

// longestEventPrefix is how much of an object's name stands in that of an Event, in bytes: names have 253 (RFC 1123), of which the rest needs
// up to 21.
const longestEventPrefix = 232

// namespace is where an Event is kept: that of its object, and default where that has none (the API server's validation).
func (e *Event) namespace() string { return cmp.Or(e.Object.Namespace, metav1.NamespaceDefault) }

// events are those that wait to be written.
type events struct {
	queue   chan Event
	limit   flowcontrol.RateLimiter
	refused atomic.Bool // which was logged

	mu     sync.Mutex           // guards warned
	warned map[string]time.Time // when each warning was told last
}

func newEvents() *events {
	return &events{
		queue:  make(chan Event, eventsQueue),
		warned: map[string]time.Time{},
		limit:  flowcontrol.NewTokenBucketRateLimiter(float32(time.Second)/float32(eventPause), eventBurst),
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

// Warn has a warning about this node written by RunEvents, and about the pod in which this process runs, where that is known: somebody
// looks at one of the two. The same warning comes once each few minutes.
func (c *Client) Warn(reason, message string) {
	if !c.events.due(reason+"\n"+message, time.Now()) {
		return
	}
	for _, e := range c.warnings(reason, message) {
		c.Tell(e)
	}
}

// due reports whether a warning has not been told for repeatPause, and notes that it is told now.
func (e *events) due(what string, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now.Sub(e.warned[what]) < repeatPause {
		return false
	}
	maps.DeleteFunc(e.warned, func(_ string, last time.Time) bool { return now.Sub(last) >= repeatPause })
	e.warned[what] = now
	return true
}

// WarnNow is Warn for who has no time to let RunEvents do it: it waits until the API server has taken the Events, or has not.
func (c *Client) WarnNow(ctx context.Context, reason, message string) {
	for _, e := range c.warnings(reason, message) {
		c.writeOrLog(ctx, e)
	}
}

func (c *Client) warnings(reason, message string) []Event {
	all := []Event{{Kind: object.Nodes, Object: object.Key{Name: c.config.Node}, Warning: true, Reason: reason, Message: message, Repeats: true}}
	if c.config.Pod != (object.Key{}) {
		all = append(all, Event{Kind: object.Pods, Object: c.config.Pod, Warning: true, Reason: reason, Message: message, Repeats: true})
	}
	return all
}

// RunEvents writes Events until ctx ends. One that the API server does not take is lost.
func (c *Client) RunEvents(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-c.events.queue:
			c.writeOrLog(ctx, e)
		}
	}
}

// writeOrLog writes an Event. That Events are forbidden is logged once, since the log has what they would say.
func (c *Client) writeOrLog(ctx context.Context, e Event) {
	err := c.write(ctx, e)
	sentence, refused := Refusal(err)
	switch {
	case err == nil || ctx.Err() != nil:
	case refused && c.events.refused.Swap(true):
	case refused:
		c.config.Logger.Warn(sentence + "; until then only this log says what Events would")
	default:
		c.config.Logger.Warn("an event could not be written", "object", e.Object, "reason", e.Reason, "err", err)
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
	event := corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: e.namespace(), Name: e.name(now.Time)},
		InvolvedObject: about, Type: kind, Reason: e.Reason, Message: cut(e.Message),
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source:              corev1.EventSource{Component: "middleway", Host: c.config.Node},
		ReportingController: controller, ReportingInstance: c.config.Node,
	}
	err = c.core.Post().Namespace(e.namespace()).Resource("events").Body(&event).Do(ctx).Error()
	if e.Repeats && apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// longestMessage is the length of the longest message that the API server takes, in bytes.
const longestMessage = 1024

// cut cuts a message that is too long between two characters: half a one would become another one on its way, which is longer.
func cut(message string) string {
	if len(message) <= longestMessage {
		return message
	}
	end := longestMessage
	for end > 0 && !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end]
}

// reference names an object as `kubectl describe` looks for its Events: with its uid, which stripped objects do not have.
func (c *Client) reference(ctx context.Context, e Event) (corev1.ObjectReference, error) {
	if e.Kind == object.Nodes { // whose name kubelet writes in the place of the uid, and kubectl looks for
		return corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: e.Object.Name, UID: types.UID(e.Object.Name)}, nil
	}
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
	default:
		err = fmt.Errorf("events are about Services, Pods and Nodes, not %v", e.Kind)
	}
	return corev1.ObjectReference{
		APIVersion: "v1", Kind: name, Namespace: e.Object.Namespace, Name: e.Object.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion,
	}, err
}
