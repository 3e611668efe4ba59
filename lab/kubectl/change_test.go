package kubectl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/lab/control"
)

// changes records what is asked for, and answers as told.
type changes struct {
	asked  []string
	result control.ApplyResult
	err    error
}

func (c *changes) Apply(_ context.Context, a control.ApplyRequest) (control.ApplyResult, error) {
	c.asked = append(c.asked, fmt.Sprintf("apply %s in %q", a.Files[0].Text, a.Namespace))
	return c.result, c.err
}

func (c *changes) Delete(_ context.Context, d control.DeleteRequest, told func(control.Ref)) error {
	grace := "own"
	if d.GracePeriod != nil {
		grace = fmt.Sprint(*d.GracePeriod)
	}
	c.asked = append(c.asked, fmt.Sprintf("delete wait=%v ignore=%v grace=%s", d.Wait, d.IgnoreNotFound, grace))
	if d.Query == nil {
		c.asked = append(c.asked, fmt.Sprintf("%s in %q", d.Files[0].Text, d.Namespace))
		told(control.Ref{Kind: "Namespace", Name: "shop"})
		return c.err
	}
	c.tell(*d.Query, told)
	return c.err
}

func (c *changes) Scale(_ context.Context, s control.ScaleRequest, told func(control.Ref)) error {
	c.asked = append(c.asked, fmt.Sprintf("scale to %d", s.Replicas))
	if s.Current != nil {
		c.asked = append(c.asked, fmt.Sprintf("from %d", *s.Current))
	}
	c.tell(s.Query, told)
	return c.err
}

func (c *changes) tell(q control.Query, told func(control.Ref)) {
	c.asked = append(c.asked, fmt.Sprintf("%s %v %q in %s", q.Kind, q.Names, q.Selector, q.Namespace))
	k := control.KindNamed(q.Kind)
	for _, name := range q.Names {
		told(control.Ref{Kind: k.Kind, Group: k.Group, Namespace: q.Namespace, Name: name})
	}
}

// changeCase is a command, what the control plane is asked for, and what is printed.
type changeCase struct {
	name   string
	run    func(c *changes, out, errOut *bytes.Buffer) error
	asked  string
	want   string
	errOut string
	failed string
}

func checkChanges(t *testing.T, cases []changeCase, c changes) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			c := c
			var out, errOut bytes.Buffer
			err := tt.run(&c, &out, &errOut)
			if got := fmt.Sprint(err); err != nil && (tt.failed == "" || !strings.Contains(got, tt.failed)) || err == nil && tt.failed != "" {
				t.Errorf("got error %v, want %q", err, tt.failed)
			}
			for _, d := range []struct{ want, got string }{
				{tt.asked, strings.Join(c.asked, "\n")}, {strings.TrimPrefix(tt.want, "\n"), out.String()}, {tt.errOut, errOut.String()},
			} {
				if diff := cmp.Diff(d.want, d.got); diff != "" {
					t.Errorf("want (-), got (+):\n%s", diff)
				}
			}
		})
	}
}

var someFile = []control.File{{Name: "a.yaml", Text: []byte("a manifest")}}

func TestApply(t *testing.T) {
	apply := func(a Apply) func(*changes, *bytes.Buffer, *bytes.Buffer) error {
		return func(c *changes, out, errOut *bytes.Buffer) error { return a.Run(t.Context(), c, out, errOut) }
	}
	result := control.ApplyResult{
		Warnings: []string{"a.yaml, line 3: kind Job is left out"},
		Applied: []control.Applied{
			{Ref: control.Ref{Kind: "Service", Namespace: "shop", Name: "web"}, Outcome: control.Created},
			{Ref: control.Ref{Kind: "Deployment", Group: "apps", Namespace: "shop", Name: "web"}, Outcome: control.Configured},
			{Ref: control.Ref{Kind: "EndpointSlice", Group: "discovery.k8s.io", Namespace: "shop", Name: "web"}, Error: "a.yaml, line 9: endpoints"},
			{Ref: control.Ref{Kind: "Namespace", Name: "shop"}, Outcome: control.Unchanged},
		},
	}
	const warning = "Warning: a.yaml, line 3: kind Job is left out\n"
	checkChanges(t, []changeCase{
		{"outcomes", apply(Apply{Files: someFile, Namespace: "shop"}), `apply a manifest in "shop"`, `
service/web created
deployment.apps/web configured
namespace/shop unchanged
`, warning, "a.yaml, line 9: endpoints"},
		{"names", apply(Apply{Files: someFile, Output: "name"}), `apply a manifest in ""`, `
service/web
deployment.apps/web
namespace/shop
`, warning, "a.yaml, line 9: endpoints"},
		{name: "nothing", run: apply(Apply{}), failed: "say what to apply: -f FILE"},
		{name: "a bad output", run: apply(Apply{Files: someFile, Output: "json"}), failed: `-o "json": want name, or nothing`},
	}, changes{result: result})
	checkChanges(t, []changeCase{
		{name: "refused as a whole", run: apply(Apply{Files: someFile}), asked: `apply a manifest in ""`, failed: "no YAML"},
	}, changes{err: errors.New("a.yaml, line 1: this is no YAML")})
}

func TestDelete(t *testing.T) {
	del := func(d Delete, args string) func(*changes, *bytes.Buffer, *bytes.Buffer) error {
		return func(c *changes, out, _ *bytes.Buffer) error { return d.Run(t.Context(), c, strings.Fields(args), out) }
	}
	zero := int64(0)
	checkChanges(t, []changeCase{
		{name: "names", run: del(Delete{Namespace: "shop"}, "pod a b"), asked: "delete wait=true ignore=false grace=own\npods [a b] \"\" in shop", want: `
pod "a" deleted from shop namespace
pod "b" deleted from shop namespace
`},
		{name: "kinds", run: del(Delete{NoWait: true, IgnoreNotFound: true}, "deploy/a svc/b deploy/c"), asked: `delete wait=false ignore=true grace=own
deployments.apps [a c] "" in default
delete wait=false ignore=true grace=own
services [b] "" in default`, want: `
deployment.apps "a" deleted from default namespace
deployment.apps "c" deleted from default namespace
service "b" deleted from default namespace
`},
		{name: "at once", run: del(Delete{GracePeriod: &zero}, "po/a"), asked: "delete wait=true ignore=false grace=0\npods [a] \"\" in default", want: `
pod "a" force deleted from default namespace
`},
		{name: "manifests", run: del(Delete{Files: someFile, Namespace: "shop"}, ""), asked: "delete wait=true ignore=false grace=own\na manifest in \"shop\"", want: `
namespace "shop" deleted
`},
		{name: "names alone", run: del(Delete{Output: "name"}, "deploy a"), asked: "delete wait=true ignore=false grace=own\ndeployments.apps [a] \"\" in default", want: `
deployment.apps/a
`},
		{name: "labels of none", run: del(Delete{Selector: "a=b"}, "po,svc"), asked: `delete wait=true ignore=false grace=own
pods [] "a=b" in default
delete wait=true ignore=false grace=own
services [] "a=b" in default`, want: "No resources found\n"},
		{name: "no names", run: del(Delete{}, "pods"), failed: "say which: names, -l with labels, or --all"},
		{name: "all and some", run: del(Delete{All: true, Selector: "a=b"}, "pods"), failed: "--all takes all, -l some"},
		{name: "names and all", run: del(Delete{All: true}, "pod a"), failed: "names say which; leave -l and --all out"},
		{name: "files and names", run: del(Delete{Files: someFile}, "pod a"), failed: "-f says what to delete"},
		{name: "nothing", run: del(Delete{}, ""), failed: "say what: pods (po)"},
		{name: "a bad output", run: del(Delete{Output: "yaml"}, "pod a"), failed: `-o "yaml": want name`},
	}, changes{})
}

func TestScale(t *testing.T) {
	scale := func(s Scale, args string) func(*changes, *bytes.Buffer, *bytes.Buffer) error {
		return func(c *changes, out, _ *bytes.Buffer) error { return s.Run(t.Context(), c, strings.Fields(args), out) }
	}
	two := int32(2)
	checkChanges(t, []changeCase{
		{name: "one", run: scale(Scale{Replicas: 3, Namespace: "shop"}, "deployment/web"), asked: "scale to 3\ndeployments.apps [web] \"\" in shop", want: "deployment.apps/web scaled\n"},
		{name: "some, from two", run: scale(Scale{Current: &two}, "deploy a b"), asked: "scale to 0\nfrom 2\ndeployments.apps [a b] \"\" in default", want: `
deployment.apps/a scaled
deployment.apps/b scaled
`},
		{name: "all of none", run: scale(Scale{All: true}, "deploy"), asked: "scale to 0\ndeployments.apps [] \"\" in default", failed: "nothing to scale is there"},
		{name: "fewer than none", run: scale(Scale{Replicas: -1}, "deploy/a"), failed: "--replicas -1: want 0 or more"},
		{name: "no name", run: scale(Scale{}, "deploy"), failed: "say which"},
	}, changes{})
}
