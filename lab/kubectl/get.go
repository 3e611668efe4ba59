// Package kubectl is how the playground's objects are shown and asked for on a terminal: the words, columns and messages are
// kubectl's, so that what a person has learnt there holds here, and the other way round.
//
//	arguments, flags ──► Get ──► Client ──► control plane of the playground
//	                      │
//	                      └► table, JSON, YAML, … of objects of k8s.io/api
//
// The tables of testdata are what kubectl v1.37 prints for the objects beside them.
package kubectl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/middleway-net/middleway/lab/control"
)

// Client asks the control plane.
type Client interface {
	// List returns what q chooses, sorted by namespace and name. A name that is not there is an error (apierrors.IsNotFound).
	List(ctx context.Context, q control.Query) ([]control.Object, error)
	// Watch tells of what there is, then of each change, until ctx ends or see returns an error.
	Watch(ctx context.Context, q control.Query, see func(control.Event) error) error
}

// Get is what `get` is asked for.
type Get struct {
	Namespace      string // default "default"
	AllNamespaces  bool
	Selector       string // of labels
	FieldSelector  string // like metadata.name=web, of any field that has one value
	SortBy         string // path of a field, like .metadata.creationTimestamp
	Output         string // "", or wide, json, yaml, name, jsonpath=…, go-template=…, custom-columns=…
	ShowLabels     bool
	LabelColumns   []string
	NoHeaders      bool
	IgnoreNotFound bool
	// Watch goes on with what changes; WatchOnly leaves out what there is before. WatchEvents tells what has happened.
	Watch, WatchOnly, WatchEvents bool

	fields fields.Selector
	format format
}

// Run prints what the arguments name, for example pods, or svc/web.
func (g *Get) Run(ctx context.Context, c Client, args []string, out, errOut io.Writer) error {
	wanted, err := parseResources(args)
	if err != nil {
		return err
	}
	if err := g.check(wanted); err != nil {
		return err
	}
	if g.Watch || g.WatchOnly {
		return g.watch(ctx, c, wanted[0], out)
	}
	found, failed := g.list(ctx, c, wanted)
	if err := sortBy(g.SortBy, found); err != nil {
		return err
	}
	if g.format.print != nil {
		if len(found) == 0 && (failed != nil || g.IgnoreNotFound) {
			return failed
		}
		return errors.Join(g.format.print(out, listOf(found, single(wanted))), failed)
	}
	printed, err := g.tables(out, wanted, found)
	if err == nil && failed == nil && !printed && !g.IgnoreNotFound {
		_, err = fmt.Fprintln(errOut, g.nothing(wanted))
	}
	return errors.Join(err, failed)
}

// check refuses what goes with nothing else.
func (g *Get) check(wanted []resource) error {
	named := slices.ContainsFunc(wanted, func(r resource) bool { return r.name != "" })
	kinds := len(slices.Compact(kindsOf(wanted)))
	_, err := labels.Parse(g.Selector)
	if err != nil {
		return fmt.Errorf("-l %q: %w; want for example app=web or tier in (a, b)", g.Selector, err)
	}
	if g.fields, err = fields.ParseSelector(g.FieldSelector); err != nil {
		return fmt.Errorf("--field-selector %q: %w; want for example status.phase=Running", g.FieldSelector, err)
	}
	if g.format, err = parseFormat(g.Output, g.NoHeaders); err != nil {
		return err
	}
	switch {
	case named && g.AllNamespaces:
		return errors.New("a resource cannot be retrieved by name across all namespaces; leave the name or -A out")
	case named && (g.Selector != "" || g.FieldSelector != ""):
		return errors.New("name cannot be provided when a selector is specified; leave one of them out")
	case (g.Watch || g.WatchOnly) && (kinds > 1 || named && len(wanted) > 1):
		return errors.New("only one kind, or one object, can be watched")
	case g.ShowLabels && g.format.print != nil:
		return fmt.Errorf("--show-labels adds a column, which -o %s does not have", g.Output)
	case g.WatchEvents && !g.Watch && !g.WatchOnly:
		return errors.New("--output-watch-events is of --watch and --watch-only")
	}
	return nil
}

// list asks for everything; of what it does not get it tells the errors.
func (g *Get) list(ctx context.Context, c Client, wanted []resource) (found []control.Object, failed error) {
	for _, r := range wanted {
		objects, err := c.List(ctx, g.query(r))
		if err != nil && !(g.IgnoreNotFound && apierrors.IsNotFound(err)) {
			failed = errors.Join(failed, err)
		}
		found = append(found, slices.DeleteFunc(objects, func(o control.Object) bool { return !g.matches(o) })...)
	}
	return found, failed
}

func (g *Get) query(r resource) control.Query {
	q := control.Query{Kind: r.kind.Resource().String(), Selector: g.Selector}
	if !g.AllNamespaces {
		q.Namespace = orDefault(g.Namespace)
	}
	if r.name != "" {
		q.Names = []string{r.name}
	}
	return q
}

// tables prints a table for each kind, with an empty line between two.
func (g *Get) tables(out io.Writer, wanted []resource, found []control.Object) (printed bool, err error) {
	kinds := slices.Compact(kindsOf(wanted))
	now := time.Now()
	for _, k := range kinds {
		events := eventsOf(k, found)
		if len(events) == 0 {
			continue
		}
		if printed && !g.NoHeaders {
			if _, err := fmt.Fprintln(out); err != nil {
				return printed, err
			}
		}
		t := g.table(out, k, len(kinds) > 1)
		if err := t.print(now, events); err != nil {
			return printed, err
		}
		printed = true
	}
	return printed, nil
}

func (g *Get) table(out io.Writer, k *control.Kind, withKind bool) *table {
	return &table{w: out, form: formOf(k), columns: columns{
		wide: g.format.wide, namespace: g.AllNamespaces, kind: withKind,
		labels: g.ShowLabels, label: g.LabelColumns, noHeaders: g.NoHeaders, event: g.WatchEvents,
	}}
}

// eventsOf returns the objects of a kind as what a watch would begin with.
func eventsOf(k *control.Kind, objects []control.Object) (events []control.Event) {
	for _, o := range objects {
		if control.KindOf(o) == k {
			events = append(events, control.Event{Type: control.Added, Object: o})
		}
	}
	return events
}

// nothing says where nothing was found.
func (g *Get) nothing(wanted []resource) string {
	for _, r := range wanted {
		if g.AllNamespaces || !r.kind.Namespaced {
			return "No resources found"
		}
	}
	return fmt.Sprintf("No resources found in %s namespace.", orDefault(g.Namespace))
}
