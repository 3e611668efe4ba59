package kubectl

import (
	"context"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/middleway-net/middleway/lab/control"
)

// watch prints what there is, then what changes.
func (g *Get) watch(ctx context.Context, c Client, r resource, out io.Writer) error {
	found, err := g.list(ctx, c, []resource{r})
	if err != nil {
		return err
	}
	seen := map[types.UID]string{} // versions that were printed, or are not to be
	var events []control.Event
	for _, o := range found {
		seen[o.GetUID()] = o.GetResourceVersion()
		events = append(events, control.Event{Type: control.Added, Object: o})
	}
	print := g.printer(out, r)
	if g.WatchOnly {
		events = nil
	}
	if err := print(events...); err != nil {
		return err
	}
	return c.Watch(ctx, g.query(r), func(e control.Event) error {
		if !g.matches(e.Object) || e.Type == control.Added && seen[e.Object.GetUID()] == e.Object.GetResourceVersion() {
			return nil
		}
		return print(e)
	})
}

// printer returns what prints events one after another.
func (g *Get) printer(out io.Writer, r resource) func(events ...control.Event) error {
	if g.format.print == nil {
		t := g.table(out, r.kind, false)
		return func(events ...control.Event) error { return t.print(time.Now(), events) }
	}
	return func(events ...control.Event) error {
		for _, e := range events {
			tree := treeOf(e.Object)
			if g.WatchEvents {
				tree = map[string]any{"type": string(e.Type), "object": tree}
			}
			if err := g.format.print(out, tree); err != nil {
				return err
			}
		}
		return nil
	}
}
