package playground

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/middleway-net/middleway/lab/control"
)

// What the functions below return as an error is, where the control plane refused something, a *apierrors.StatusError with the
// reason and the message that an API server would have given.

// List returns the objects that q chooses, sorted by namespace and name.
func List(ctx context.Context, dir string, q control.Query) ([]control.Object, error) {
	var all []control.Object
	err := converse(ctx, dir, request{Verb: verbList, Query: &q}, func(r reply) error {
		for _, b := range r.Objects {
			o, err := control.Decode(b)
			if err != nil {
				return err
			}
			all = append(all, o)
		}
		return nil
	})
	return all, err
}

// Watch calls see for each object that q chooses, and then for each change, until ctx ends, see returns an error, or the cluster
// ends; the first two are returned.
func Watch(ctx context.Context, dir string, q control.Query, see func(control.Event) error) error {
	err := converse(ctx, dir, request{Verb: verbWatch, Query: &q}, func(r reply) error {
		for i, b := range r.Objects {
			o, err := control.Decode(b)
			if err != nil || i >= len(r.Events) {
				return errors.Join(errProtocol, err)
			}
			if err := see(control.Event{Type: r.Events[i], Object: o}); err != nil {
				return err
			}
		}
		return nil
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Apply makes objects what manifests say. An error is about all of them, for example a manifest that cannot be read, and nothing is
// changed then; what is about one of them is in the result.
func Apply(ctx context.Context, dir string, a control.ApplyRequest) (result control.ApplyResult, err error) {
	err = converse(ctx, dir, request{Verb: verbApply, Apply: &a}, func(r reply) error {
		if r.Applied != nil {
			result = *r.Applied
		}
		return nil
	})
	return result, err
}

// Delete asks objects to go, and calls told for each; with d.Wait it returns when they have gone.
func Delete(ctx context.Context, dir string, d control.DeleteRequest, told func(control.Ref)) error {
	return converse(ctx, dir, request{Verb: verbDelete, Delete: &d}, tellRefs(told))
}

// Scale sets the number of replicas, and calls told for each object.
func Scale(ctx context.Context, dir string, s control.ScaleRequest, told func(control.Ref)) error {
	return converse(ctx, dir, request{Verb: verbScale, Scale: &s}, tellRefs(told))
}

func tellRefs(told func(control.Ref)) func(reply) error {
	return func(r reply) error {
		for _, ref := range r.Refs {
			told(ref)
		}
		return nil
	}
}

// converse sends a request and calls hear for each reply up to the last one.
func converse(ctx context.Context, dir string, req request, hear func(reply) error) error {
	conn, err := dial(ctx, dir)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := sendRequest(conn, req); err != nil {
		return fmt.Errorf("ask the cluster in %s: %w", dir, err)
	}
	for {
		r, err := receiveReply(conn, dir)
		if r.Failure != nil {
			return &apierrors.StatusError{ErrStatus: *r.Failure}
		}
		if err != nil {
			return err
		}
		if err := hear(r); err != nil {
			return err
		}
		if r.End {
			return nil
		}
	}
}
