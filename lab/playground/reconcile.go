package playground

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"

	"github.com/middleway-net/middleway/lab/control"
	"github.com/middleway-net/middleway/lab/manifest"
)

// reconciler makes the pods of a running cluster those that the control plane has, as the nodes' kubelets would. Each pod has a worker
// as long as something is to be done with it, so that one that ends slowly keeps no other waiting.
type reconciler struct {
	cluster *Cluster
	ctx     context.Context // ended by end
	cancel  context.CancelFunc
	changed chan struct{} // holds one when the control plane's pods may be others
	workers sync.WaitGroup

	mu     sync.Mutex
	wanted map[types.UID]control.Instance
	busy   map[types.UID]bool
	ending map[*Pod]bool  // those that a worker takes down
	failed map[*Pod]bool  // those that could not be started
	adding sync.WaitGroup // of workers that start a pod

	placing sync.Mutex // held while a pod gets its node
}

func newReconciler(c *Cluster) *reconciler {
	r := &reconciler{cluster: c, busy: map[types.UID]bool{}, ending: map[*Pod]bool{}, failed: map[*Pod]bool{}, changed: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// wake tells that the control plane's pods may be others. It does not block.
func (r *reconciler) wake() {
	select {
	case r.changed <- struct{}{}:
	default: // it is awake
	}
}

// run follows the control plane until the end.
func (r *reconciler) run() {
	for {
		r.look()
		select {
		case <-r.ctx.Done():
			return
		case <-r.changed:
		}
	}
}

// look starts workers for the pods at which something may be to do.
func (r *reconciler) look() {
	instances := r.cluster.control.Instances()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = map[types.UID]control.Instance{}
	for _, i := range instances {
		r.wanted[i.UID] = i
	}
	for _, i := range instances {
		have := r.cluster.podOf(i.UID)
		if have != nil && !i.Deleting && !r.failed[have] {
			continue
		}
		if !r.busy[i.UID] && r.ctx.Err() == nil {
			r.busy[i.UID] = true
			r.workers.Go(func() { r.work(i.UID) })
		}
	}
}

// work does with a pod what is to be done until it is as it is wanted.
func (r *reconciler) work(uid types.UID) {
	wait := backoff{first: time.Second, most: 10 * time.Second, calm: time.Minute}
	told := ""
	for {
		do, key := r.next(uid)
		if do == nil {
			return
		}
		if err := do(); err != nil && r.ctx.Err() == nil {
			if err.Error() != told {
				told = err.Error()
				r.cluster.text.event(key, told)
			}
			select {
			case <-r.ctx.Done():
			case <-time.After(max(wait.first, wait.after(0))):
			}
		}
	}
}

// next returns what is to be done with a pod; nil if there is nothing, and its worker ends.
func (r *reconciler) next(uid types.UID) (do func() error, key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have, want := r.cluster.podOf(uid), r.wanted[uid]
	switch {
	case r.ctx.Err() != nil, want.Pod == nil:
	case have == nil && want.Deleting:
		delete(r.wanted, uid)
		return func() error { r.cluster.control.Gone(uid); return nil }, want.Pod.Key()
	case have == nil:
		r.adding.Add(1)
		return func() error { defer r.adding.Done(); return r.add(want) }, want.Pod.Key()
	case want.Deleting:
		return r.removeLocked(have, want), want.Pod.Key()
	case r.failed[have]:
		return r.removeLocked(have, control.Instance{Why: "is tried again"}), want.Pod.Key()
	}
	delete(r.busy, uid)
	return nil, ""
}

// add makes a pod and starts it.
func (r *reconciler) add(i control.Instance) error {
	p, err := r.place(i)
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

// place makes a pod on the node that it names, else on the one with the fewest pods that has its host ports free.
func (r *reconciler) place(i control.Instance) (*Pod, error) {
	r.placing.Lock()
	defer r.placing.Unlock()
	c := r.cluster
	have := make([]load, len(c.nodes))
	for _, p := range c.Pods() {
		have[slices.Index(c.nodes, p.node)].add(p.manifest)
	}
	chosen, err := schedule([]*manifest.Pod{i.Pod}, have)
	if err != nil {
		return nil, err
	}
	if chosen[0] < 0 {
		return nil, waits(i.Pod, have)
	}
	p, err := newPod(c, c.nodes[chosen[0]], i)
	if err != nil {
		return nil, err
	}
	order := map[string]int{}
	for at, other := range c.control.Instances() {
		order[string(other.UID)] = at
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods = append(slices.Clone(c.pods), p) // others read the slice that was
	slices.SortStableFunc(c.pods, func(a, b *Pod) int { return order[a.uid] - order[b.uid] })
	return p, nil
}

// drain is what the nodes' daemons have to hear that a pod is to end: its endpoints are terminating before its containers are asked to
// end, so that no new connection meets one that listens no more.
const drain = 100 * time.Millisecond

// removeLocked returns what takes a pod down, as the cluster's end does.
func (r *reconciler) removeLocked(p *Pod, i control.Instance) func() error {
	r.ending[p] = true
	return func() error {
		p.event(i.Why)
		c := r.cluster
		if i.Deleting && c.control.Endpoint(types.UID(p.uid)) {
			r.drain()
		}
		err := p.close(i.Grace)
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

// drain waits until the daemons have heard of what is in the state by now, unless the end comes before.
func (r *reconciler) drain() {
	ctx, cancel := context.WithTimeout(r.ctx, time.Second)
	defer cancel()
	if r.cluster.control.Written(ctx) == nil {
		sleep(r.ctx, drain)
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
		g.Go(func() error { return p.close(nil) })
	}
	r.workers.Wait()
	return g.Wait()
}

// podOf returns a pod by its UID, or nil.
func (c *Cluster) podOf(uid types.UID) *Pod {
	for _, p := range c.Pods() {
		if p.uid == string(uid) {
			return p
		}
	}
	return nil
}
