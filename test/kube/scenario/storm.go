package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/middleway-net/middleway/test/kube/cluster"
)

// The storm: as many pods, as many times. A node takes 110, which is kubelet's default.
const (
	stormPods     = 200
	stormRounds   = 5
	stormPatience = 5 * time.Minute // for all pods of a round to come, or to go
)

const stormManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: storm}
spec:
  replicas: 0
  selector: {matchLabels: {app: storm}}
  template:
    metadata: {labels: {app: storm}}
    spec:
      terminationGracePeriodSeconds: 0
      automountServiceAccountToken: false
      enableServiceLinks: false
      containers: [{name: pause, image: "PAUSE"}]
`

// memoryGrowth is by how much the memory of a daemon may be larger after the last round than after the first.
const memoryGrowth = 1.25

// storm starts and deletes pods by the hundreds, and looks that nothing of them is left.
func storm(ctx context.Context, t *T) error {
	if len(t.Cluster.AllNodes()) < 2 {
		return errors.New("it needs two nodes: kube up --nodes 2")
	}
	if err := t.Apply(ctx, strings.ReplaceAll(stormManifest, "PAUSE", t.Cluster.Programs.Pause)); err != nil {
		return err
	}
	before, err := t.holdings(ctx)
	if err != nil {
		return err
	}
	var first []holding
	for round := 1; round <= stormRounds; round++ {
		if err := t.stormRound(ctx, round); err != nil {
			return err
		}
		if err := t.nothingLeft(ctx, before); err != nil {
			return err
		}
		if round == 1 {
			if first, err = t.holdings(ctx); err != nil {
				return err
			}
		}
	}
	last, err := t.holdings(ctx)
	if err != nil {
		return err
	}
	return errors.Join(t.attachTimes(before, last), t.memory(before, first, last))
}

// stormRound starts all pods, and deletes them.
func (t *T) stormRound(ctx context.Context, round int) error {
	begin := time.Now()
	if _, err := t.Kubectl(ctx, "scale", "deployment/storm", fmt.Sprint("--replicas=", stormPods)); err != nil {
		return err
	}
	if _, err := t.Kubectl(ctx, "rollout", "status", "deployment/storm", "--timeout="+stormPatience.String()); err != nil {
		return err
	}
	there := time.Now()
	if _, err := t.Kubectl(ctx, "scale", "deployment/storm", "--replicas=0"); err != nil {
		return err
	}
	if _, err := t.Kubectl(ctx, "wait", "pod", "-l", "app=storm", "--for=delete", "--timeout="+stormPatience.String()); err != nil {
		return err
	}
	gone := time.Now()
	t.Figures[fmt.Sprintf("round %d pods ready s", round)] = there.Sub(begin).Seconds()
	t.Figures[fmt.Sprintf("round %d pods gone s", round)] = gone.Sub(there).Seconds()
	t.Say("round %d: %d pods ready after %.1f s, gone after another %.1f s", round, stormPods, there.Sub(begin).Seconds(), gone.Sub(there).Seconds())
	return nil
}

// A holding is what a node and its daemon hold of pods.
type holding struct {
	node    string
	counts  map[string]int // of what is to be as before
	metrics samples
}

// holdings looks at all nodes.
func (t *T) holdings(ctx context.Context) ([]holding, error) {
	var all []holding
	for _, n := range t.Cluster.AllNodes() {
		h, err := look(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", n.Name, err)
		}
		all = append(all, h)
	}
	return all, nil
}

func look(ctx context.Context, n *cluster.Node) (holding, error) {
	h := holding{node: n.Name, counts: map[string]int{}}
	text, err := cluster.Output(n.Command(ctx, "curl", "-sS", "--fail", "--max-time", "5", "http://127.0.0.1:9473/metrics"))
	if err != nil {
		return h, err
	}
	h.metrics = parseSamples(text)
	for name, metric := range map[string]string{"attachments": "middleway_attachments", "open files of the daemon": "process_open_fds"} {
		h.counts[name] = int(h.metrics[metric])
	}
	for name, list := range map[string]string{
		"network namespaces": "ls /run/netns", "tombstones": "ls /run/middleway/tombstones", "devices of the node": "ls /proc/sys/net/ipv4/conf",
	} {
		out, err := cluster.Output(n.Command(ctx, "sh", "-c", list))
		if err != nil {
			return h, err
		}
		h.counts[name] = len(strings.Fields(out))
	}
	return h, nil
}

// leftPatience is how long what a pod had may stay after kubelet has told that the pod is gone. It looks itself once a minute.
const leftPatience = 75 * time.Second

// spareFiles are descriptors that a daemon may have open at one time and not at another: connections of those who ask it.
const spareFiles = 8

// nothingLeft waits until the nodes hold no more than before.
func (t *T) nothingLeft(ctx context.Context, before []holding) error {
	return Eventually(ctx, leftPatience, func() error {
		now, err := t.holdings(ctx)
		if err != nil {
			return err
		}
		for i, h := range now {
			for name, count := range h.counts {
				may := before[i].counts[name]
				if strings.HasPrefix(name, "open files") {
					may += spareFiles
				}
				if count > may {
					return fmt.Errorf("%s holds %d %s, and %d before", h.node, count, name, before[i].counts[name])
				}
			}
		}
		return nil
	})
}

// memory compares the memory of the daemons after the first round with that after the last.
func (t *T) memory(before, first, last []holding) error {
	const metric = "process_resident_memory_bytes"
	var errs []error
	for i, h := range last {
		mb := func(of []holding) float64 { return of[i].metrics[metric] / 1e6 }
		t.Figures["memory "+h.node+" MB"] = mb(last)
		t.Say("the daemon of %s has %.1f MB, %.1f MB after the first round, %.1f MB before", h.node, mb(last), mb(first), mb(before))
		if mb(last) > memoryGrowth*mb(first) {
			errs = append(errs, fmt.Errorf("the daemon of %s has grown from %.1f MB after the first round to %.1f MB", h.node, mb(first), mb(last)))
		}
	}
	return errors.Join(errs...)
}

// attachTimes tells how long the daemons took to attach the pods.
func (t *T) attachTimes(before, after []holding) error {
	var h histogram
	for i := range after {
		h.add(after[i].metrics, "middleway_cni_add_seconds", 1)
		h.add(before[i].metrics, "middleway_cni_add_seconds", -1)
	}
	count := h.count()
	t.Figures["attached"], t.Figures["attach p50 ms"], t.Figures["attach p99 ms"] = count, 1000*h.quantile(0.5), 1000*h.quantile(0.99)
	t.Say("%.0f pods attached: p50 %.1f ms, p99 %.1f ms", count, 1000*h.quantile(0.5), 1000*h.quantile(0.99))
	if count < stormPods*stormRounds {
		return fmt.Errorf("the daemons have attached %.0f pods, and %d were started: a daemon has begun anew", count, stormPods*stormRounds)
	}
	return nil
}

// samples are metrics by their names with labels, as in the text format of Prometheus.
type samples map[string]float64

func parseSamples(text string) samples {
	all := samples{}
	for line := range strings.Lines(text) {
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64); err == nil {
			all[line[:i]] = v
		}
	}
	return all
}

// histogram is how many observations were no larger than each bound, by the bounds in ascending order.
type histogram []bucket

type bucket struct{ bound, count float64 }

// add adds the histogram of a metric as many times as it says.
func (h *histogram) add(from samples, metric string, times float64) {
	for name, count := range from {
		rest, ok := strings.CutPrefix(name, metric+`_bucket{le="`)
		if !ok {
			continue
		}
		bound, err := strconv.ParseFloat(strings.TrimSuffix(rest, `"}`), 64) // +Inf is one
		if err != nil {
			continue
		}
		i := slices.IndexFunc(*h, func(b bucket) bool { return b.bound == bound })
		if i < 0 {
			*h = append(*h, bucket{bound: bound})
			i = len(*h) - 1
		}
		(*h)[i].count += times * count
	}
	slices.SortFunc(*h, func(a, b bucket) int { return cmp.Compare(a.bound, b.bound) })
}

func (h histogram) count() float64 {
	if len(h) == 0 {
		return 0
	}
	return h[len(h)-1].count
}

// quantile is the value below which a part of the observations are, on a line between the bounds of its bucket.
func (h histogram) quantile(part float64) float64 {
	rank := part * h.count()
	var lower bucket
	for _, b := range h {
		if b.count >= rank && b.count > lower.count {
			if math.IsInf(b.bound, 1) {
				return lower.bound
			}
			return lower.bound + (b.bound-lower.bound)*(rank-lower.count)/(b.count-lower.count)
		}
		lower = b
	}
	return lower.bound
}
