package informers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// Withdraw takes back what Announce wrote: mark, by which a node is one of ours, and annotations, which others write too, with the condition
// NetworkUnavailable. Where another network has told since that it is up, by that condition, the annotations are its own, and only mark goes. It reports
// whether there was anything.
func (c *Client) Withdraw(ctx context.Context, mark string, annotations []string) (bool, error) {
	var api corev1.Node
	err := c.core.Get().Resource("nodes").Name(c.config.Node).Do(ctx).Into(&api)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask for this node's object: %w", err)
	}
	if _, ours := api.Annotations[mark]; !ours {
		return false, nil
	}
	gone := map[string]any{mark: nil}
	patch := map[string]any{"metadata": map[string]any{"annotations": gone}}
	if i := slices.IndexFunc(api.Status.Conditions, isNetworkUnavailable); i < 0 || api.Status.Conditions[i].Reason == reasonUp {
		for _, a := range annotations {
			gone[a] = nil
		}
		patch["status"] = map[string]any{"conditions": []any{map[string]any{"type": corev1.NodeNetworkUnavailable, "$patch": "delete"}}}
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return false, err
	}
	err = c.core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(c.config.Node).SubResource("status").Body(text).Do(ctx).Error()
	if err != nil {
		return false, fmt.Errorf("remove this node's annotations: %w", err)
	}
	return true, nil
}

func isNetworkUnavailable(c corev1.NodeCondition) bool {
	return c.Type == corev1.NodeNetworkUnavailable
}

// reasonUp is the reason of the condition NetworkUnavailable while it is ours.
const reasonUp = "MiddlewayIsUp"
