package playground

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/lab/manifest"
)

// reconciler makes the pods of a running cluster those that are wanted. Each pod has a worker as long as something is to be done
// with it, so that one that ends slowly keeps no other waiting.
type reconciler struct {
	cluster *Cluster
	ctx     context.Context // ended by stop
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu     sync.Mutex
	wanted map[string]*manifest.Pod
	order  map[string]int // of their manifests
	busy   map[string]bool
	ending map[*Pod]bool  // those that a worker takes down
	failed map[*Pod]bool  // those that could not be started
	adding sync.WaitGroup // of workers that start a pod

	placing sync.Mutex // held while a pod gets its node
}

func newReconciler(c *Cluster) *reconciler {
	r := &reconciler{cluster: c, busy: map[string]bool{}, ending: map[*Pod]bool{}, failed: map[*Pod]bool{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.want(c.config.Pods.Pods())
	return r
}

// want says which pods there should be.
func (r *reconciler) want(pods []*manifest.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted, r.order = map[string]*manifest.Pod{}, map[string]int{}
	for i, p := range pods {
		r.wanted[p.Key()], r.order[p.Key()] = p, i
	}
}

// follow makes the pods those that pods are by now.
func (r *reconciler) follow(pods []*manifest.Pod) {
	r.want(pods)
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := make([]string, 0, len(pods))
	for _, p := range pods {
		keys = append(keys, p.Key())
	}
	for _, p := range r.cluster.Pods() {
		if r.wanted[p.manifest.Key()] == nil {
			keys = append(keys, p.manifest.Key())
		}
	}
	for _, key := range keys {
		if !r.busy[key] && r.ctx.Err() == nil {
			r.busy[key] = true
			r.workers.Go(func() { r.work(key) })
		}
	}
}

// work does with a pod what is to be done until it is as it is wanted.
func (r *reconciler) work(key string) {
	wait := backoff{first: time.Second, most: 10 * time.Second, calm: time.Minute}
	for {
		do := r.next(key)
		if do == nil {
			return
		}
		if err := do(); err != nil && r.ctx.Err() == nil {
			r.cluster.text.event(key, err.Error())
			select {
			case <-r.ctx.Done():
			case <-time.After(max(wait.first, wait.after(0))):
			}
		}
	}
}

// next returns what is to be done with a pod; nil if there is nothing, and its worker ends.
func (r *reconciler) next(key string) func() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	have, want := r.cluster.podOf(key), r.wanted[key]
	switch {
	case r.ctx.Err() != nil:
	case have == nil && want != nil:
		r.adding.Add(1)
		return func() error { defer r.adding.Done(); return r.add(want) }
	case have != nil && want == nil:
		return r.removeLocked(have, "deleted, as its manifest is gone")
	case have != nil && r.failed[have]:
		return r.removeLocked(have, "is tried again")
	case have != nil:
		if at := have.manifest.Differs(want); at != "" {
			return r.removeLocked(have, "replaced, as "+at+" has changed, which is not done in place")
		}
		if have.manifest != want && have.manifest.Relabel(want) {
			have.event("labels or annotations changed, in place")
		}
	}
	delete(r.busy, key)
	return nil
}

// add makes a pod and starts it.
func (r *reconciler) add(m *manifest.Pod) error {
	p, err := r.place(m)
	if err != nil {
		return err
	}
	if err := p.start(r.ctx); err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed[p] = true
		return err
	}
	r.cluster.text.pod(p.Status())
	return nil
}

// place makes a pod on the node that it names, else on the one with the fewest pods.
func (r *reconciler) place(m *manifest.Pod) (*Pod, error) {
	r.placing.Lock()
	defer r.placing.Unlock()
	c := r.cluster
	count := make([]int, len(c.nodes))
	for _, p := range c.Pods() {
		count[slices.Index(c.nodes, p.node)]++
	}
	chosen, err := schedule([]*manifest.Pod{m}, count)
	if err != nil {
		return nil, err
	}
	p, err := newPod(c, c.nodes[chosen[0]], m)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	order := r.order
	r.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods = append(slices.Clone(c.pods), p) // others read the slice that was
	slices.SortStableFunc(c.pods, func(a, b *Pod) int { return cmp.Compare(order[a.manifest.Key()], order[b.manifest.Key()]) })
	return p, nil
}

// removeLocked returns what takes a pod down, as the cluster's end does.
func (r *reconciler) removeLocked(p *Pod, why string) func() error {
	r.ending[p] = true
	return func() error {
		p.event(why)
		err := p.close()
		c := r.cluster
		c.mu.Lock()
		c.pods = slices.DeleteFunc(slices.Clone(c.pods), func(other *Pod) bool { return other == p })
		c.mu.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.ending, p)
		delete(r.failed, p)
		return err
	}
}

// end ends all pods, those too that a worker takes down already.
func (r *reconciler) end() error {
	r.mu.Lock()
	r.cancel() // from now on nothing is added, and workers end
	r.mu.Unlock()
	r.adding.Wait()
	r.mu.Lock()
	var left []*Pod
	for _, p := range r.cluster.Pods() {
		if !r.ending[p] {
			left = append(left, p)
		}
	}
	r.mu.Unlock()
	var g errgroup.Group
	for _, p := range left {
		g.Go(p.close)
	}
	r.workers.Wait()
	return g.Wait()
}

// podOf returns a pod by its namespace/name, or nil.
func (c *Cluster) podOf(key string) *Pod {
	for _, p := range c.Pods() {
		if p.manifest.Key() == key {
			return p
		}
	}
	return nil
}
