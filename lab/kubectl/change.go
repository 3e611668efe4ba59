package kubectl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/middleway-net/middleway/lab/control"
)

// Changer asks the control plane for changes. Delete and Scale call told for each object.
type Changer interface {
	Apply(ctx context.Context, a control.ApplyRequest) (control.ApplyResult, error)
	Delete(ctx context.Context, d control.DeleteRequest, told func(control.Ref)) error
	Scale(ctx context.Context, s control.ScaleRequest, told func(control.Ref)) error
}

// Apply is what `apply` is asked for: objects are to be what manifests say.
type Apply struct {
	Namespace string // of objects that name none; default "default"
	Files     []control.File
	Output    string // "", or name
}

// Run applies the manifests and prints what became of each object.
func (a *Apply) Run(ctx context.Context, c Changer, out, errOut io.Writer) error {
	said, err := saidOf(a.Output)
	if err != nil {
		return err
	}
	if len(a.Files) == 0 {
		return errors.New("say what to apply: -f FILE, a directory, or - for standard input")
	}
	result, err := c.Apply(ctx, control.ApplyRequest{Namespace: a.Namespace, Files: a.Files})
	for _, w := range result.Warnings {
		fmt.Fprintln(errOut, "Warning:", w)
	}
	for _, o := range result.Applied {
		if o.Error != "" {
			err = errors.Join(err, errors.New(o.Error))
			continue
		}
		fmt.Fprintln(out, said(ref(o.Kind, o.Group, o.Name), string(o.Outcome)))
	}
	return err
}

// saidOf returns how a line about an object is written with -o.
func saidOf(output string) (func(name, what string) string, error) {
	switch output {
	case "":
		return func(name, what string) string { return name + " " + what }, nil
	case "name":
		return func(name, _ string) string { return name }, nil
	}
	return nil, fmt.Errorf("-o %q: want name, or nothing", output)
}

// Delete is what `delete` is asked for.
type Delete struct {
	Namespace      string // default "default"
	Files          []control.File
	Selector       string // of labels
	All            bool   // of the kinds that are named
	IgnoreNotFound bool
	NoWait         bool   // return when they are asked to go, not when they are gone
	GracePeriod    *int64 // seconds, in place of the pods' own; 0 kills them
	Output         string // "", or name
}

// Run deletes what the arguments name, or what the manifests have, and prints a line for each.
func (d *Delete) Run(ctx context.Context, c Changer, args []string, out io.Writer) error {
	requests, err := d.requests(args)
	if err != nil {
		return err
	}
	short := d.Output == "name"
	any := false
	for _, r := range requests {
		r.IgnoreNotFound, r.Wait, r.GracePeriod = d.IgnoreNotFound, !d.NoWait, d.GracePeriod
		err = errors.Join(err, c.Delete(ctx, r, func(o control.Ref) {
			any = true
			if short {
				fmt.Fprintln(out, ref(o.Kind, o.Group, o.Name))
				return
			}
			fmt.Fprintln(out, d.line(o))
		}))
	}
	if err == nil && !any {
		fmt.Fprintln(out, "No resources found")
	}
	return err
}

// line tells that an object is deleted.
func (d *Delete) line(o control.Ref) string {
	how := "deleted"
	if d.GracePeriod != nil && *d.GracePeriod == 0 {
		how = "force deleted"
	}
	line := fmt.Sprintf("%s %q %s", groupKind(o.Kind, o.Group), o.Name, how)
	if o.Namespace != "" {
		line += " from " + o.Namespace + " namespace"
	}
	return line
}

// requests returns one for the manifests, or one for each kind.
func (d *Delete) requests(args []string) ([]control.DeleteRequest, error) {
	if _, err := saidOf(d.Output); err != nil {
		return nil, err
	}
	if len(d.Files) > 0 {
		if len(args) > 0 || d.All || d.Selector != "" {
			return nil, errors.New("-f says what to delete; leave names, -l and --all out")
		}
		return []control.DeleteRequest{{Namespace: d.Namespace, Files: d.Files}}, nil
	}
	queries, err := chosen(args, orDefault(d.Namespace), d.Selector, d.All)
	var all []control.DeleteRequest
	for i := range queries {
		all = append(all, control.DeleteRequest{Query: &queries[i]})
	}
	return all, err
}

// chosen returns a query for each kind of what a person has chosen to change: names, or labels, or all.
func chosen(args []string, namespace, selector string, all bool) (queries []control.Query, err error) {
	wanted, err := parseResources(args)
	if err != nil {
		return nil, err
	}
	switch named := wanted[0].name != ""; {
	case all && selector != "":
		return nil, errors.New("--all takes all, -l some; give one of them")
	case named && (all || selector != ""):
		return nil, errors.New("names say which; leave -l and --all out")
	case !named && !all && selector == "":
		return nil, errors.New("say which: names, -l with labels, or --all")
	}
	for _, r := range wanted {
		kind := r.kind.Resource().String()
		i := slices.IndexFunc(queries, func(q control.Query) bool { return q.Kind == kind })
		if i < 0 {
			i = len(queries)
			queries = append(queries, control.Query{Kind: kind, Namespace: namespace, Selector: selector})
		}
		if r.name != "" {
			queries[i].Names = append(queries[i].Names, r.name)
		}
	}
	return queries, nil
}

// Scale is what `scale` is asked for.
type Scale struct {
	Namespace string // default "default"
	Selector  string
	All       bool
	Replicas  int32
	Current   *int32 // how many there must be, if it is not nil
	Output    string // "", or name
}

// Run sets the number of replicas of what the arguments name, and prints a line for each.
func (s *Scale) Run(ctx context.Context, c Changer, args []string, out io.Writer) error {
	said, err := saidOf(s.Output)
	if err != nil {
		return err
	}
	if s.Replicas < 0 {
		return fmt.Errorf("--replicas %d: want 0 or more", s.Replicas)
	}
	queries, err := chosen(args, orDefault(s.Namespace), s.Selector, s.All)
	if err != nil {
		return err
	}
	any := false
	for _, q := range queries {
		err = errors.Join(err, c.Scale(ctx, control.ScaleRequest{Query: q, Replicas: s.Replicas, Current: s.Current}, func(o control.Ref) {
			any = true
			fmt.Fprintln(out, said(ref(o.Kind, o.Group, o.Name), "scaled"))
		}))
	}
	if err == nil && !any {
		err = errors.New("nothing to scale is there")
	}
	return err
}

// orDefault returns the namespace that is meant.
func orDefault(namespace string) string {
	if namespace == "" {
		return "default"
	}
	return namespace
}
