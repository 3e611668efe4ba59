// Package scenario puts a cluster through what happens to clusters, while somebody uses it: daemons are killed, the API server is away,
// pods come by the dozen. Every request that fails meanwhile is counted.
package scenario

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/middleway-net/middleway/test/kube/cluster"
)

// A Scenario is one story, with an error where it does not end as it should.
type Scenario struct {
	Name  string
	About string
	Run   func(ctx context.Context, t *T) error
}

// All is the scenarios that there are.
var All = []Scenario{
	{"deployment", "twenty pods of a Deployment behind a Service: how long until each pod and its name are reached", deployment},
	{"move", "in a mixed cluster nodes go to flannel and back: requests between the others, over the border of both networks, go on", move},
	{"outage", "a minute without API server: a transfer goes on over killed daemons, Services are served, and afterwards the tables are right", outage},
	{"update", "the daemons of all nodes are updated under requests of all kinds", update},
	{"mistake", "an update by which daemons cannot work stops at the first node, under requests of all kinds, and is taken back", mistake},
	{"crash", "the daemon of each node is killed under requests of all kinds", crash},
	{"restart", "kubelet and containerd of each node are killed under requests of all kinds", restart},
	{"storm", "two hundred pods are started and deleted, five times: what a pod takes to be attached, and that nothing is left of them", storm},
	{"reboot", "a node loses its power and boots: how long until its pods are reached again", reboot},
}

// Options are what a scenario is given.
type Options struct {
	Image string        // of agnhost
	For   time.Duration // how long what is away stays so; 0: as the scenario has it
}

// A T is a scenario under way: a namespace of its own in a cluster, and where it tells what happens.
type T struct {
	Cluster   *cluster.Cluster
	Namespace string
	Options

	out   io.Writer
	begin time.Time
	// Figures are what was measured, by their names with units.
	Figures map[string]float64
}

// Run runs a scenario in a namespace of its own, which is taken away afterwards.
func Run(ctx context.Context, s Scenario, c *cluster.Cluster, o Options, out io.Writer) (*T, error) {
	t := &T{Cluster: c, Namespace: "scenario-" + s.Name, Options: o, out: out, begin: time.Now(), Figures: map[string]float64{}}
	if _, err := c.Kubectl(ctx, "delete", "namespace", t.Namespace, "--ignore-not-found"); err != nil {
		return t, err
	}
	if _, err := c.Kubectl(ctx, "create", "namespace", t.Namespace); err != nil {
		return t, err
	}
	t.Say("%s: %s", s.Name, s.About)
	err := s.Run(ctx, t)
	if err != nil {
		return t, fmt.Errorf("%s: %w; its objects stay in namespace %s", s.Name, err, t.Namespace)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Figures)) {
		t.Say("%s: %.3g", name, t.Figures[name])
	}
	_, err = c.Kubectl(ctx, "delete", "namespace", t.Namespace, "--wait=false")
	t.Say("passed")
	return t, err
}

// Say tells a person what happens, with the seconds since the scenario's begin.
func (t *T) Say(format string, args ...any) {
	fmt.Fprintf(t.out, "%6.1f s  %s\n", time.Since(t.begin).Seconds(), fmt.Sprintf(format, args...))
}

// Kubectl runs kubectl in the scenario's namespace.
func (t *T) Kubectl(ctx context.Context, args ...string) (string, error) {
	return t.Cluster.Kubectl(ctx, append([]string{"-n", t.Namespace}, args...)...)
}

// Apply applies manifests to the scenario's namespace. ${IMAGE} in them is agnhost's.
func (t *T) Apply(ctx context.Context, manifests string) error {
	text := strings.ReplaceAll(manifests, "${IMAGE}", t.Image)
	cmd, err := t.Cluster.OutsideCommand(ctx, t.Cluster.Program("kubectl"), "-n", t.Namespace, "apply", "-f", "-")
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(text)
	_, err = cluster.Output(cmd, nil)
	return err
}

// PodsReady waits until all pods of the scenario are Ready.
func (t *T) PodsReady(ctx context.Context) error {
	_, err := t.Kubectl(ctx, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=3m")
	return err
}

// URL is the HTTP URL of a Service at port 80 of its address, without a path.
func (t *T) URL(ctx context.Context, service string) (string, error) {
	ip, err := t.Kubectl(ctx, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}")
	return "http://" + bracketed(ip), err
}

// Eventually asks done until it returns no error, and returns its last one after the limit.
func Eventually(ctx context.Context, limit time.Duration, done func() error) error {
	return cluster.Eventually(ctx, limit, done)
}
