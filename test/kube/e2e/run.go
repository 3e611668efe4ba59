package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/test/kube/cluster"
	"github.com/middleway-net/middleway/test/kube/inspect"
)

// Options is how a run is done.
type Options struct {
	Procs    int           // tests at the same time
	Timeout  time.Duration // of the whole run
	Version  string        // Kubernetes'
	Terminal bool          // out is one
}

// Run runs the tests of a suite and says on out how far it is. The error is of the run: tests that failed are in the report.
func Run(ctx context.Context, c *cluster.Cluster, s Suite, o Options, out io.Writer) (Report, error) {
	r := Report{Suite: s.Name, Kubernetes: o.Version, Network: c.Network, Nodes: c.Nodes, Family: string(c.Family), Procs: o.Procs}
	r.Dir = filepath.Join(c.Dir, "e2e", time.Now().Format("20060102-150405")+"-"+s.Name)
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return r, err
	}
	log, err := os.Create(filepath.Join(r.Dir, "log.txt"))
	if err != nil {
		return r, err
	}
	defer log.Close()
	// The tests change the current context of their kubeconfig.
	kubeconfig := filepath.Join(r.Dir, "kubeconfig")
	text, err := os.ReadFile(c.Kubeconfig())
	if err != nil {
		return r, err
	}
	if err := os.WriteFile(kubeconfig, text, 0o600); err != nil {
		return r, err
	}

	begin := time.Now()
	progress := &live{out: out, terminal: o.Terminal, begin: begin, said: begin}
	fmt.Fprintf(out, "tests %s, %d at a time; what they say is in %s\n", s.Focus, o.Procs, log.Name())
	cmd, err := c.OutsideCommand(ctx, ginkgo(c, s, o, r.Dir, kubeconfig)...)
	if err != nil {
		return r, err
	}
	temporary, err := os.MkdirTemp("", "kube-e2e-") // each process of the tests leaves a folder
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(temporary)
	cmd.Env = append(cmd.Environ(), "TMPDIR="+temporary)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(log, progress), log
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true} // a terminal's interrupt reaches it once, through us
	cmd.WaitDelay = 5 * time.Minute                    // the tests take their namespaces away
	err = cmd.Run()
	progress.end()
	r.Seconds = time.Since(begin).Seconds()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return r, err
	}
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	junit, err := os.ReadFile(filepath.Join(r.Dir, "junit.xml"))
	if err != nil {
		return r, fmt.Errorf("ginkgo wrote no report: %w; see %s", err, log.Name())
	}
	if r.Results, err = parseJUnit(junit); err != nil {
		return r, err
	}
	if r.Findings, err = Findings(c); err != nil {
		return r, err
	}
	return r, r.write()
}

// ginkgo is the command line of the run (https://onsi.github.io/ginkgo/, and e2e.test --help after the dashes).
func ginkgo(c *cluster.Cluster, s Suite, o Options, dir, kubeconfig string) []string {
	args := []string{c.Program("ginkgo"), fmt.Sprint("--procs=", o.Procs), "--timeout=" + o.Timeout.String(), "-v", "--no-color", "--silence-skips",
		"--output-dir=" + dir, "--junit-report=junit.xml", "--focus=" + s.Focus}
	if s.Skip != "" {
		args = append(args, "--skip="+s.Skip)
	}
	return append(args, c.Program("e2e.test"), "--", "--kubeconfig="+kubeconfig, "--provider=skeleton", fmt.Sprint("--num-nodes=", c.Nodes),
		"--dns-domain=cluster.local", "--allowed-not-ready-nodes=0", "--disable-log-dump")
}

// Findings looks what every node holds that it did not at first. What runs beside middleway is a part of the cluster, and leaves
// rules of its own: there nothing is looked for, nor on nodes of a mixed cluster that have flannel.
func Findings(c *cluster.Cluster) (map[string][]inspect.Finding, error) {
	if c.Network != "middleway" && c.Network != "mixed" {
		return nil, nil
	}
	found := map[string][]inspect.Finding{}
	for _, n := range c.AllNodes() {
		if len(c.Added[n.Name]) > 0 {
			continue
		}
		f, err := n.Findings()
		if err != nil {
			return nil, err
		}
		found[n.Name] = f
	}
	return found, nil
}

func (r Report) write() error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.Dir, "report.json"), text, 0o644)
}
