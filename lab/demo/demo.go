// Package demo shows a cluster of package playground, two nodes with its default pods, at work on this machine: the pods reach each other, and a Service by its name, a packet of theirs is taken
// apart, a node's daemon is killed under a download, and throughput stands beside the kernel's own. Every line it prints
// comes from that run.
//
// A step (steps.go) makes checks, and a check is one line: what was seen, as a fact, or the cause of its failure. The same
// facts are printed as text (text.go) or as JSON (report.go).
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/node"
)

// Config describes a demo.
type Config struct {
	// Download is the size of each download, in bytes. Default 256 MiB.
	Download int64
	// Duration is how long each contestant's throughput is measured. Default 1 s.
	Duration time.Duration
	// Underlay joins the nodes. Default: playground.Auto.
	Underlay playground.Underlay
	// JSON prints one JSON document at the end instead of lines as they come.
	JSON bool
	// Color colours the lines, Progress shows on a terminal what is being done, and ASCII does without other characters.
	Color, Progress, ASCII bool
	// Width is how many columns a line may have. Default 100.
	Width int
	// Write is the file that gets the packet that is drawn, as pcapng. Default: none.
	Write string
	// Program is what this program is called in the commands to try next. Default: middleway.
	Program string
	// Change edits each node's configuration before it starts. It is for tests, which break a node by it.
	Change func(number int, c *node.Config)
}

const (
	defaultDownload = 256 << 20
	defaultDuration = time.Second
	defaultWidth    = 100
	defaultProgram  = "middleway"
)

// ErrFailed is the error of a run in which something failed; the report has said what and why.
var ErrFailed = errors.New("the demo failed")

// Run shows the demo and writes its report to w. It needs the namespaces of lab.Enter. The error is ErrFailed if a check
// failed, and the context's if ctx ended the run; everything is taken down when it returns.
func Run(ctx context.Context, c Config, w io.Writer) error {
	c.Download, c.Duration = cmp.Or(c.Download, defaultDownload), cmp.Or(c.Duration, defaultDuration)
	c.Width, c.Program = cmp.Or(c.Width, defaultWidth), cmp.Or(c.Program, defaultProgram)
	r := &run{config: c, started: time.Now()}
	if !c.JSON {
		r.text = newText(w, c)
	}
	r.text.intro(c)
	for _, s := range early {
		r.step(ctx, s)
	}
	for _, s := range late {
		if r.cluster != nil {
			r.step(ctx, s)
		}
	}
	if r.cluster != nil { // the end is not to be interrupted
		r.step(context.WithoutCancel(ctx), step{"end", "everything is taken down", (*run).takeDown})
	}
	return r.finish(ctx, w)
}

// run is the state of a demo.
type run struct {
	config  Config
	started time.Time
	text    *text // nil for JSON
	report  Report

	cluster *playground.Cluster // nil before it is built
	name    string              // of the present step
}

func (r *run) step(ctx context.Context, s step) {
	if ctx.Err() != nil {
		return
	}
	r.name = s.name
	r.text.heading(s)
	s.run(r, ctx)
	if ctx.Err() == nil { // it was gone through
		r.report.Steps = append(r.report.Steps, s.name)
	}
}

// check runs f and reports what it saw, or why it failed. What was interrupted is not reported.
func (r *run) check(ctx context.Context, name string, f func(context.Context) (fact, error)) {
	if ctx.Err() != nil {
		return
	}
	before := r.drops()
	r.text.begin(name)
	start := time.Now()
	seen, err := f(ctx)
	c := Check{Step: r.name, Name: name, OK: err == nil, Took: Millis(time.Since(start)), Facts: seen}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		c.Error = r.explain(err, before)
	}
	r.report.Checks = append(r.report.Checks, c)
	r.text.check(c)
}

// finish prints the end of the report.
func (r *run) finish(ctx context.Context, w io.Writer) error {
	r.report.Took = Millis(time.Since(r.started))
	r.report.Interrupted = ctx.Err() != nil
	failed := len(r.report.failed()) > 0
	r.report.Passed = !failed && !r.report.Interrupted
	r.text.end(r.report, r.next())
	if r.config.JSON {
		if err := r.report.write(w); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	switch {
	case r.report.Interrupted:
		return context.Cause(ctx)
	case failed:
		return ErrFailed
	}
	return nil
}
