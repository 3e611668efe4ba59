// Package check finds out whether a cluster's network works, as seen by pods and nodes: from and to every node, by what applications do.
// It stands beside a packet's way and knows nothing of how packets go.
//
//	Run ── stage: namespace, DaemonSets net and host, Services ──► API server
//	    ── probe.Plan, by exec ──► a pod of each DaemonSet on each node ── questions ──► pods, nodes, Services, names
//	    ◄── probe.Answer ──┘
//	    ── judge: a Check for each kind of question and family ──► Report
//
// Who asks comes to the pods by the API server and kubelet, so that a network that does not work at all is found out about too.
package check

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/cluster"
	"github.com/middleway-net/middleway/cluster/stage"
)

// Prefix begins the names of this package's namespaces, and is their label.
const Prefix = "middleway-check"

// Config says what to check.
type Config struct {
	API *cluster.API
	// Image is what pods are made of. Default: that of the cluster's daemons.
	Image string
	// Selector takes nodes with these labels only. Default: all.
	Selector map[string]string
	// Targets is how many nodes each node asks at most: itself and those that follow it by name, so that every one is asked. Default 16.
	Targets int
	// FirstPort is the first of four ports of the nodes that are taken: two of host ports, two of programs of the node. Default: at
	// random, from 20000 on.
	FirstPort uint16
	// Outside are HOST:PORT outside of the cluster that pods and nodes have to reach over TCP. Default: none, which is not checked.
	Outside []string
	// Timeout is how long each answer is waited for, over three tries. Default 6 s.
	Timeout time.Duration
	// Patience is how long pods have to start. Default 90 s.
	Patience time.Duration
	// Keep leaves the namespace when all is done.
	Keep bool
	// Progress is told what goes on, in a few words. Default: nobody is.
	Progress func(string)
}

func (c Config) withDefaults() Config {
	if c.Targets <= 0 {
		c.Targets = 16
	}
	if c.FirstPort == 0 {
		c.FirstPort = uint16(20000 + 4*rand.IntN(2000)) // below NodePorts and what kernels give to clients
	}
	if c.Timeout <= 0 {
		c.Timeout = 6 * time.Second
	}
	if c.Patience <= 0 {
		c.Patience = 90 * time.Second
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	return c
}

// run is a check under way.
type run struct {
	Config
	report  *Report
	stage   *stage.Stage
	image   stage.Image
	daemons map[string]*corev1.Pod // by node
	nodes   []*node
	service services

	mu        sync.Mutex // guards what follows, and the checks of the report
	questions []*question

	tunnel []string // what to look at where pods do not reach those of another node, once it was found out
}

// Run sets up pods, asks, and judges. What was found out before it was interrupted or could not go on is in the report, which is never nil;
// the namespace is gone then as well, unless it is to be kept.
func Run(ctx context.Context, c Config) (report *Report, err error) {
	c = c.withDefaults()
	start := time.Now()
	r := &run{Config: c, report: &Report{Server: c.API.Server, Checks: []*Check{}}}
	defer func() { r.report.Took = Millis(time.Since(start)); r.report.judge() }()
	if err := r.survey(ctx); err != nil {
		return r.report, err
	}
	c.Progress("making a namespace")
	r.stage, err = stage.Open(ctx, c.API, Prefix, c.Keep)
	if r.stage != nil {
		r.report.Namespace = r.stage.Name
		defer func() { err = errors.Join(err, r.leave(ctx)) }()
	}
	if err != nil {
		return r.report, err
	}
	if err := r.setUp(ctx); err != nil {
		return r.report, err
	}
	r.plan()
	if err := r.ask(ctx); err != nil {
		return r.report, err
	}
	r.conclude(ctx)
	return r.report, nil
}

// survey reads what there is before anything is made.
func (r *run) survey(ctx context.Context) error {
	r.Progress("asking the API server")
	if err := r.removeForgotten(ctx); err != nil {
		return err
	}
	r.image.Reference = r.Image
	d, err := stage.Daemons(ctx, r.API)
	if err == nil {
		if image, err := stage.ImageOf(d); err == nil && r.Image == "" {
			r.image = image
		}
		if r.daemons, err = stage.DaemonPods(ctx, r.API); err != nil {
			return err
		}
	}
	if r.image.Reference == "" {
		if err == nil {
			_, err = stage.ImageOf(d)
		}
		return err
	}
	r.report.Image = r.image.Reference
	return r.findNodes(ctx)
}

// removeForgotten removes what killed runs have left, and says what may still be somebody's.
func (r *run) removeForgotten(ctx context.Context) error {
	left, err := stage.Leftovers(ctx, r.API, Prefix)
	if errors.Is(err, cluster.ErrForbidden) {
		return nil // it is enough to be allowed to make one
	}
	if err != nil {
		return err
	}
	for _, l := range left {
		age := l.Age.Round(time.Minute)
		if !l.Forgotten() {
			r.note("namespace %s of a run %v ago is there: `middleway check --cleanup` removes it", l.Name, age)
			continue
		}
		if err := stage.Remove(ctx, r.API, l); err != nil {
			return err
		}
		r.note("namespace %s of a run %v ago was left: removed", l.Name, age)
	}
	return nil
}

func (r *run) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

// leave removes the namespace.
func (r *run) leave(ctx context.Context) error {
	if r.Keep {
		r.note("namespace %s stays: `middleway check --cleanup` removes it", r.stage.Name)
		return nil
	}
	r.Progress("removing the namespace")
	return r.stage.Close(ctx)
}

// Cleanup removes the namespaces of all runs, those that were to be kept too, and returns their names.
func Cleanup(ctx context.Context, api *cluster.API) (names []string, err error) {
	left, err := stage.Leftovers(ctx, api, Prefix)
	if err != nil {
		return nil, err
	}
	for _, l := range left {
		if err := stage.Remove(ctx, api, l); err != nil {
			return names, err
		}
		names = append(names, l.Name)
	}
	return names, nil
}

// targets are the nodes that the i-th one asks.
func (r *run) targets(i int) []*node {
	n := min(r.Targets, len(r.nodes))
	return slices.Concat(r.nodes, r.nodes)[i : i+n]
}
