package informers

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/middleway-net/middleway/k8s/object"
)

// nodePause is how long to wait before this node's object is asked for again.
const nodePause = time.Second

// Node returns this node's object as soon as it is there and has ranges for its pods, which a controller of the cluster gives it. It
// returns an error only when ctx ends.
func (c *Client) Node(ctx context.Context) (*object.Node, error) {
	told := ""
	for {
		n, waits := c.node(ctx)
		if waits == "" {
			return n, nil
		}
		if waits != told {
			c.config.Logger.Info(waits)
			told = waits
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(nodePause):
		}
	}
}

// node asks for this node's object, and says what it waits for.
func (c *Client) node(ctx context.Context) (n *object.Node, waits string) {
	var api corev1.Node
	err := c.core.Get().Resource("nodes").Name(c.config.Node).Do(ctx).Into(&api)
	if ctx.Err() == nil && !apierrors.IsNotFound(err) {
		c.health.note("this node", err)
	}
	switch {
	case apierrors.IsNotFound(err):
		c.health.note("this node", nil)
		return nil, fmt.Sprintf("waiting for the Node object %s, which kubelet makes; --name has to be the name that kubelet has", c.config.Node)
	case err != nil:
		return nil, "waiting for the API server at " + c.server
	case len(api.Spec.PodCIDRs) == 0 && api.Spec.PodCIDR == "":
		return nil, fmt.Sprintf("waiting for a pod range of node %s (spec.podCIDRs); the controller manager gives one where it runs with --allocate-node-cidrs", c.config.Node)
	}
	n, err = object.FromNode(&api)
	if err != nil {
		return n, err.Error()
	}
	return n, ""
}

// Announce writes this node's annotations into its object, and that its network is there (condition NetworkUnavailable is False).
func (c *Client) Announce(ctx context.Context, annotations map[string]string) error {
	now := metav1.Now()
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": annotations},
		"status": map[string]any{"conditions": []corev1.NodeCondition{{
			Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "MiddlewayIsUp",
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
