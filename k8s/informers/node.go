package informers

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/middleway-net/middleway/k8s/object"
)

// Pauses before this node's object is asked for again, ever longer.
const (
	shortestNodePause = 250 * time.Millisecond
	longestNodePause  = 5 * time.Second
)

// ownObject is what health calls this node's object.
const ownObject = "this node"

// waiting says what this node waits for.
type waiting struct {
	reason   string // of an Event; "" if the API server does not take one, or has it already
	sentence string
}

// Node returns this node's object as soon as it is there and has ranges for its pods, which a controller of the cluster gives it. Each time
// it waits for something else, tell hears a sentence about it, and an Event is written where that is of use. It returns an error only when
// ctx ends.
func (c *Client) Node(ctx context.Context, tell func(waits string)) (*object.Node, error) {
	ctx, end := context.WithCancel(ctx)
	var events sync.WaitGroup
	events.Go(func() { _ = c.RunEvents(ctx) })
	defer events.Wait()
	defer end()
	told, pause := "", shortestNodePause
	for {
		n, waits := c.node(ctx)
		if n != nil {
			return n, nil
		}
		if waits.reason != "" {
			c.Warn(waits.reason, waits.sentence)
		}
		if waits.sentence != told {
			tell(waits.sentence)
			told, pause = waits.sentence, shortestNodePause
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
		pause = min(2*pause, longestNodePause)
	}
}

// Reasons of Events about this node's object.
const (
	ReasonNoNode   = "NodeNotRegistered"
	ReasonNoRange  = "PodCIDRMissing"
	ReasonBadRange = "PodCIDRNotUsable"
)

// node asks for this node's object, or says what it waits for.
func (c *Client) node(ctx context.Context) (*object.Node, waiting) {
	var api corev1.Node
	err := c.core.Get().Resource("nodes").Name(c.config.Node).Do(ctx).Into(&api)
	if ctx.Err() == nil && !apierrors.IsNotFound(err) {
		c.health.note(ownObject, err)
	}
	name := c.config.Node
	switch {
	case apierrors.IsNotFound(err):
		c.health.note(ownObject, nil)
		return nil, waiting{ReasonNoNode, fmt.Sprintf("waiting for the Node object %s, which kubelet makes; --name has to be the name that kubelet has", name)}
	case err != nil:
		return nil, waiting{"", "waiting for the API server at " + c.server}
	case len(api.Spec.PodCIDRs) == 0 && api.Spec.PodCIDR == "":
		return nil, waiting{ReasonNoRange, fmt.Sprintf("waiting for a pod range of node %s (spec.podCIDRs); the controller manager gives one where it runs with --allocate-node-cidrs", name)}
	}
	n, err := object.FromNode(&api)
	if err != nil {
		return nil, waiting{ReasonBadRange, fmt.Sprintf("waiting for a Node object %s that can be used: %v; delete the Node, so that kubelet and the controller manager make it anew", name, err)}
	}
	return n, waiting{}
}

// Announce writes this node's annotations into its object, and that its network is there (condition NetworkUnavailable is False).
func (c *Client) Announce(ctx context.Context, annotations map[string]string) error {
	now := metav1.Now()
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": annotations},
		"status": map[string]any{"conditions": []corev1.NodeCondition{{
			Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: reasonUp,
			Message: "middleway is running on this node", LastTransitionTime: now, LastHeartbeatTime: now,
		}}},
	})
	if err != nil {
		return err
	}
	err = c.core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(c.config.Node).SubResource("status").Body(patch).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("write this node's annotations: %w", err)
	}
	return nil
}
