package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/cluster/report"
	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/node"
)

const reportHelp = `Makes an archive for whoever is asked for help, and prints what is in it. Of a cluster these are middleway's own objects, pods, logs and
Events, the nodes, how many Services there are, and what each daemon and its machine tell: status, counts of flows, metrics, the doctor's
verdict, interfaces, settings, the list of network configurations. A part that is missing is a line of its index.txt.

Secrets are never asked for; no value of an environment, no annotation and no label of somebody else goes in, and what looks like a token, a
password or a private key is removed from all of it. With --anonymise addresses are replaced, the same by the same, and ranges by ranges;
names of nodes, pods and Services stay. Look into it before you hand it on.

Of what it is: the cluster of --kubeconfig or --context, the playground of --dir, the daemon of --run-dir or --local. Without these flags of the
playground if one runs, else of this machine's daemon if one runs, else of the kubeconfig's cluster. docs/check.md is the manual.

Exit codes: 0 the archive is written, 1 it could not be, 130 interrupted.`

type reportFlags struct {
	reach                         reach
	file, metrics                 string
	local, anonymise              bool
	output                        outputFlag
	wantsCluster, wantsPlayground bool
}

func reportCommand(r reach) *cobra.Command {
	f := reportFlags{reach: r}
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Make an archive without secrets for whoever is asked for help",
		Long:  reportHelp,
		Example: `  middleway report
  middleway report --context prod --anonymise
  middleway report --local --file - | tar -tz`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.reach.check(cmd); err != nil {
				return saidBy(cmd, err)
			}
			f.wantsCluster = f.reach.meansCluster(cmd)
			f.wantsPlayground = cmd.Flags().Changed("dir")
			if f.local && (f.wantsCluster || f.wantsPlayground) {
				return errors.New("report: --local is this machine's daemon; it goes without flags of a cluster and without --dir")
			}
			f.local = f.local || cmd.Flags().Changed("run-dir")
			return f.run(cmd)
		},
	}
	flags := cmd.Flags()
	f.reach.register(cmd)
	if !r.plugin {
		flags.StringVar(&f.metrics, "metrics", report.DefaultMetrics, "where that daemon serves metrics")
		flags.BoolVar(&f.local, "local", false, "report on this machine's daemon")
	}
	flags.StringVarP(&f.file, "file", "f", "", "file of the archive, - for standard output (default middleway-report-TIME.tar.gz)")
	flags.BoolVar(&f.anonymise, "anonymise", false, "replace addresses, the same by the same")
	f.output.register(cmd)
	return cmd
}

// subject is what a report is of.
type subject struct {
	of  string
	add func(context.Context, *report.Archive)
}

func (f *reportFlags) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	s, err := f.subject(ctx)
	if err != nil {
		return saidBy(cmd, err)
	}
	w, name, err := f.create(cmd.OutOrStdout())
	if err != nil {
		return saidBy(cmd, err)
	}
	list := cmd.OutOrStdout()
	if f.file == "-" {
		list = io.Discard // the archive is there
	}
	entries, err := f.write(ctx, w, s, list)
	if errClose := w.Close(); err == nil {
		err = errClose
	}
	if err != nil {
		return saidBy(cmd, fmt.Errorf("write %s: %w", name, err))
	}
	if f.output.json() {
		err = printJSON(list, reportJSON{name, s.of, entries})
	} else {
		fmt.Fprintf(list, "\n%s, of %s: look into it before you hand it on\n", name, s.of)
	}
	if ctx.Err() != nil {
		return &exitError{code: exitInterrupted}
	}
	return err
}

// reportJSON is what -o json prints.
type reportJSON struct {
	File    string         `json:"file"`
	Of      string         `json:"of"`
	Entries []report.Entry `json:"entries"`
}

func (f *reportFlags) write(ctx context.Context, w io.Writer, s subject, list io.Writer) (entries []report.Entry, err error) {
	var addresses func([]byte) []byte
	if f.anonymise {
		addresses = report.NewAddresses().Rewrite
	}
	a := report.New(w, addresses, func(e report.Entry) {
		entries = append(entries, e)
		switch {
		case f.output.json():
		case e.Missing != "":
			fmt.Fprintf(list, "   missing  %s: %s\n", e.Name, e.Missing)
		default:
			fmt.Fprintf(list, "%10d  %s\n", e.Bytes, e.Name)
		}
	})
	a.AddAbout(version, s.of, f.anonymise)
	s.add(ctx, a)
	return entries, a.Close()
}

// create opens the archive's file. Nobody else may read it.
func (f *reportFlags) create(stdout io.Writer) (io.WriteCloser, string, error) {
	if f.file == "-" {
		return nopCloser{stdout}, "standard output", nil
	}
	name := f.file
	if name == "" {
		name = "middleway-report-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
	}
	if problem := canBeMade("--file", name); problem != nil {
		return nil, name, problem
	}
	w, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, name, err
	}
	if err := emptied(w); err != nil {
		return nil, name, errors.Join(err, w.Close())
	}
	return w, name, nil
}

// emptied makes of a file that was there already what a new one is, a pipe or a device aside.
func emptied(f *os.File) error {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return err
	}
	if st.Mode().Perm() != 0o600 {
		if err := f.Chmod(0o600); err != nil {
			return err
		}
	}
	return f.Truncate(0)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// subject finds out what the report is of.
func (f *reportFlags) subject(ctx context.Context) (subject, error) {
	if f.local {
		return f.ofDaemon(), nil
	}
	if f.wantsCluster {
		return f.ofCluster()
	}
	st, err := playground.ReadStatus(ctx, f.reach.dir)
	if err == nil || f.wantsPlayground {
		return f.ofPlayground(st), err
	}
	if !errors.Is(err, playground.ErrNotRunning) {
		return subject{}, err
	}
	if _, err := node.ReadStatus(ctx, f.reach.runDir); err == nil {
		return f.ofDaemon(), nil
	}
	s, err := f.ofCluster()
	if err != nil {
		err = fmt.Errorf("there is nothing to report on: no playground and no daemon runs here, and %w", err)
	}
	return s, err
}

func (f *reportFlags) ofDaemon() subject {
	return subject{"the daemon in " + f.reach.runDir, func(ctx context.Context, a *report.Archive) {
		a.AddLocal(ctx, "", report.Local{RunDir: f.reach.runDir, Metrics: f.metrics, CNI: report.DefaultCNI, Machine: true})
	}}
}

func (f *reportFlags) ofCluster() (subject, error) {
	api, err := clusterOf(f.reach.config)
	if err != nil {
		return subject{}, err
	}
	return subject{"the cluster " + api.Server, func(ctx context.Context, a *report.Archive) { a.AddCluster(ctx, api) }}, nil
}

func (f *reportFlags) ofPlayground(st playground.Status) subject {
	return subject{"the playground in " + st.Dir, func(ctx context.Context, a *report.Archive) {
		a.AddJSON("playground.json", st, nil)
		for i, n := range st.Nodes {
			if ctx.Err() != nil {
				return
			}
			a.AddLocal(ctx, filepath.Join("nodes", n.Name), report.Local{RunDir: n.RunDir, Machine: i == 0})
		}
	}}
}
