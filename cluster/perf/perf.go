// Package perf measures a cluster's network between its nodes, pod to pod, with the same between the nodes' own addresses beside it: the
// ratio of both says what the pod network costs, whatever else the machines do. Each round measures all ways one after another, so that what
// happens meanwhile meets all of them.
//
//	middleway perf ── exec: tool perf ADDRESS -o json ──► pod net-0 on A ══ the load ══► pod net-1 on B (tool perf --serve)
//	                                                      pod host-0     ══ the load ══► pod host-1, both hostNetwork
package perf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/cluster"
	"github.com/middleway-net/middleway/cluster/stage"
)

// Prefix begins the names of this package's namespaces, and is their label.
const Prefix = "middleway-perf"

// Config says what to measure.
type Config struct {
	API *cluster.API
	// Image is what pods are made of. Default: that of the cluster's daemons.
	Image string
	// From and To are the nodes that are measured. Default: those that come first by name.
	From, To string
	// Pairs is how many pairs of nodes are measured, where From and To are not given. Default 1.
	Pairs int
	// Rounds is how often each is measured. Default 3.
	Rounds int
	// Time is how long each measurement takes, after a warm-up of 200 ms. Default 1 s.
	Time time.Duration
	// FirstPort is the first of two ports of the nodes that are taken. Default: at random, from 20000 on.
	FirstPort uint16
	// Patience is how long pods have to start. Default 90 s.
	Patience time.Duration
	// Progress is told what goes on, in a few words. Default: nobody is.
	Progress func(string)
}

func (c Config) withDefaults() Config {
	c.Pairs, c.Rounds = cmp.Or(max(c.Pairs, 0), 1), cmp.Or(max(c.Rounds, 0), 3)
	c.Time, c.Patience = cmp.Or(max(c.Time, 0), time.Second), cmp.Or(max(c.Patience, 0), 90*time.Second)
	if c.FirstPort == 0 {
		c.FirstPort = uint16(20000 + 2*rand.IntN(4000)) // below NodePorts and what kernels give to clients
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	return c
}

// run is a measurement under way.
type run struct {
	Config
	report *Report
	stage  *stage.Stage
	image  stage.Image
	pairs  [][2]string
	nodes  []*node
}

// Run sets up pods, measures, and removes them. What was measured before it was interrupted or could not go on is in the report, which is
// never nil.
func Run(ctx context.Context, c Config) (report *Report, err error) {
	c = c.withDefaults()
	r := &run{Config: c, report: &Report{Server: c.API.Server, Rounds: c.Rounds, Seconds: c.Time.Seconds(), Pairs: []*Pair{}}}
	if r.image.Reference = c.Image; c.Image == "" {
		d, err := stage.Daemons(ctx, c.API)
		if err != nil {
			return r.report, err
		}
		if r.image, err = stage.ImageOf(d); err != nil {
			return r.report, err
		}
	}
	if err := r.choose(ctx); err != nil {
		return r.report, err
	}
	if err := removeForgotten(ctx, c.API); err != nil {
		return r.report, err
	}
	c.Progress("making a namespace")
	r.stage, err = stage.Open(ctx, c.API, Prefix, false)
	if r.stage != nil {
		defer func() { err = errors.Join(err, r.stage.Close(ctx)) }()
	}
	if err == nil {
		err = r.setUp(ctx)
	}
	for _, p := range r.pairs {
		if err != nil {
			break
		}
		err = r.measurePair(ctx, r.node(p[0]), r.node(p[1]))
	}
	return r.report, err
}

// removeForgotten removes what killed runs have left.
func removeForgotten(ctx context.Context, api *cluster.API) error {
	left, err := stage.Leftovers(ctx, api, Prefix)
	if errors.Is(err, cluster.ErrForbidden) {
		return nil // it is enough to be allowed to make one
	}
	for _, l := range left {
		if l.Forgotten() && err == nil {
			err = stage.Remove(ctx, api, l)
		}
	}
	return err
}

// choose says which pairs of nodes are measured.
func (r *run) choose(ctx context.Context) error {
	var list corev1.NodeList
	query := url.Values{"labelSelector": {corev1.LabelOSStable + "=linux"}}
	if err := r.API.Get(ctx, "/api/v1/nodes", query, &list); err != nil {
		return err
	}
	var names []string
	for _, n := range list.Items {
		if slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	for _, name := range []string{r.From, r.To} {
		if name != "" && !slices.Contains(names, name) {
			return fmt.Errorf("there is no node %s that is Ready; there are %s", name, strings.Join(names, ", "))
		}
	}
	for _, from := range names {
		for _, to := range names {
			wanted := (r.From == "" || r.From == from) && (r.To == "" || r.To == to) && (from < to || r.From != "" || r.To != "")
			if from != to && wanted && len(r.pairs) < r.Pairs {
				r.pairs = append(r.pairs, [2]string{from, to})
			}
		}
	}
	if len(r.pairs) == 0 && len(names) == 1 {
		r.pairs = [][2]string{{names[0], names[0]}}
	}
	if len(r.pairs) == 0 {
		return errors.New("it takes a node that is Ready; to measure between nodes, two of them")
	}
	return nil
}

// node returns a node of a pair.
func (r *run) node(name string) *node {
	i := slices.IndexFunc(r.nodes, func(n *node) bool { return n.name == name })
	return r.nodes[i] // setUp has made them all
}
