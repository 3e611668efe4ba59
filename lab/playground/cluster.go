package playground

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/control"
	"github.com/middleway-net/middleway/lab/manifest"
)

// Cluster is a cluster that runs on this machine.
type Cluster struct {
	config  Config
	started time.Time
	dir     *directory
	text    *text
	lab     *lab.Cluster
	nodes   []*Node
	pods    []*Pod
	server  *server
	outside io.Closer // ends the handing over of the machine's sockets; nil if it is the underlay's

	control    *control.Plane
	reconciler *reconciler
	follower   *manifest.Follower // nil if no files are followed

	ctx    context.Context // of everything that runs beside the caller; ended by cancel
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	asked  chan struct{} // closed when somebody has asked for the end

	mu       sync.Mutex
	state    State
	mistakes map[string]string // of files of manifests
}

// New takes the state directory and makes a cluster: its nodes answer and its pods run, or have at least been started, when it
// returns. It needs the namespaces of lab.Enter. A failure leaves nothing behind.
func New(ctx context.Context, config Config) (*Cluster, error) {
	if err := config.Check(); err != nil {
		return nil, err
	}
	dir, err := openDirectory(config.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		config: config, started: time.Now(), dir: dir, state: Starting, asked: make(chan struct{}),
		text: &text{w: config.Out, color: config.Color},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.reconciler = newReconciler(c)
	if len(config.Follow) > 0 {
		c.follower = manifest.NewFollower(config.Pods, func(o manifest.Object) error { return c.control.Check(o) }, config.Follow...)
	}
	if err := c.build(ctx); err != nil {
		left := c.Close()
		if ctx.Err() != nil && left == nil {
			return nil, fmt.Errorf("%w (%w)", ErrInterrupted, context.Cause(ctx))
		}
		return nil, errors.Join(err, left)
	}
	c.setState(Running)
	c.tasks.Go(c.reconciler.run)
	if c.follower != nil {
		c.follow()
	}
	return c, nil
}

// build makes the parts in the order in which they need each other. ctx may interrupt it.
func (c *Cluster) build(ctx context.Context) error {
	for _, step := range []func() error{
		c.dir.populate,
		func() error { return c.dir.writeOwner(c.config.Owner) },
		c.startControl,
		c.listen,
		c.openOutside,
		c.startNodes,
		c.makePods,
	} {
		if err := c.step(ctx, step); err != nil {
			return err
		}
	}
	return c.startPods(ctx)
}

// step runs a step unless the start was interrupted, by ctx or from outside.
func (c *Cluster) step(ctx context.Context, step func() error) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.asked:
		return errStopped
	default:
		return step()
	}
}

// ErrInterrupted is the error of a start that its context ended, where nothing is left of it.
var ErrInterrupted = errors.New("interrupted while it started; nothing is left of it")

var errStopped = errors.New("the cluster was taken down while it started")

func (c *Cluster) startNodes() error {
	c.text.intro(c)
	lc := lab.ClusterConfig{Pods: make([]int, c.config.Nodes), Dir: c.dir.path, Change: c.serve}
	c.config.Underlay.join(&lc)
	joined, err := lab.NewCluster(lc)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.lab = joined
	c.mu.Unlock()
	for _, n := range c.lab.Nodes {
		added, err := newNode(c, n)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.nodes = append(c.nodes, added)
		c.mu.Unlock()
		c.tasks.Go(added.supervise)
	}
	return c.text.nodes(c)
}

func (c *Cluster) makePods() error {
	instances := c.control.Instances()
	placed, err := schedule(podsOf(instances), make([]load, len(c.nodes)))
	if err != nil {
		return err
	}
	for i, instance := range instances {
		if placed[i] < 0 {
			continue // the reconciler finds it a node when one has its ports free
		}
		p, err := newPod(c, c.nodes[placed[i]], instance)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.pods = append(c.pods, p)
		c.mu.Unlock()
	}
	return nil
}

func podsOf(instances []control.Instance) (pods []*manifest.Pod) {
	for _, i := range instances {
		pods = append(pods, i.Pod)
	}
	return pods
}

// startPods attaches and starts the pods, those of one node one after another, so that addresses follow the manifests.
func (c *Cluster) startPods(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range c.nodes {
		g.Go(func() error {
			for _, p := range c.pods {
				if p.node != n {
					continue
				}
				if err := c.step(ctx, func() error { return p.start(ctx) }); err != nil {
					return err
				}
				c.text.pod(p.Status())
			}
			return nil
		})
	}
	return g.Wait()
}

// Wait returns when ctx ends, or somebody has asked for the cluster's end.
func (c *Cluster) Wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-c.asked:
	}
}

// stop asks for the end.
func (c *Cluster) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.asked:
	default:
		close(c.asked)
	}
}

// Close ends the pods, then the nodes, and removes the state directory.
func (c *Cluster) Close() error {
	c.stop()
	c.setState(Stopping)
	errs := []error{c.reconciler.end()}
	c.cancel() // daemons that end now are not started again
	if c.server != nil {
		c.server.stopServing()
	}
	c.tasks.Wait()
	if c.lab != nil {
		errs = append(errs, c.lab.Close())
	}
	if c.outside != nil {
		errs = append(errs, c.outside.Close())
	}
	err := errors.Join(append(errs, c.dir.remove())...)
	if c.server != nil {
		c.server.close(err) // those who asked for the end hear of it now
	}
	return err
}

func (c *Cluster) setState(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}

func (c *Cluster) present() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Dir is the state directory.
func (c *Cluster) Dir() string { return c.dir.path }

// Nodes returns the nodes, node-1 first.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Pods returns the pods in the order of their manifests.
func (c *Cluster) Pods() []*Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pods
}

// Underlay tells in words what joins the nodes.
func (c *Cluster) Underlay() string { return describeUnderlay(c.lab) }

// Detached reports whether Detach has started this process.
func (c *Cluster) Detached() bool { return c.dir.inherited }

// Outside reports whether the nodes are joined in the machine's own network namespace.
func (c *Cluster) Outside() bool { return c.config.Underlay.chosen() == Machine }

// Pod returns a pod by its namespace and name, or nil.
func (c *Cluster) Pod(namespace, name string) *Pod {
	for _, p := range c.Pods() {
		if p.manifest.Namespace == namespace && p.manifest.Name == name {
			return p
		}
	}
	return nil
}

// podNotFound names what there is.
func (c *Cluster) podNotFound(namespace, name string) error {
	var others string
	for _, p := range c.Pods() {
		if p.manifest.Name == name {
			others = fmt.Sprintf("; -n %s has one", p.manifest.Namespace)
		}
	}
	return fmt.Errorf("there is no pod %s in namespace %s%s; %s lists them", name, namespace, others, Hint("status", c.dir.path))
}
