package playground

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/control"
	"github.com/middleway-net/middleway/lab/manifest"
)

// Pod is a pod of a cluster.
type Pod struct {
	cluster    *Cluster
	node       *Node
	manifest   *manifest.Pod // may be that of an earlier pod, which could not be started
	uid        string
	ns         *lab.Namespace // the node's with hostNetwork
	names      names
	hostname   *lab.Hostname
	inits      []*container // in the order in which they run
	containers []*container
	stop       chan struct{} // closed by close
	done       chan struct{} // closed when run has ended
	over       chan struct{} // closed when no container runs any more, nor will
	finish     func()        // closes over

	reporting sync.Mutex // held while the control plane is told

	mu       sync.Mutex
	addrs    []netip.Addr
	attached bool
	running  bool // run was begun
	stopping bool
	started  time.Time // zero before start
	problem  string    // why it does not run
	shown    corev1.PodPhase
}

// newPod makes a pod's namespaces. Nothing runs before start.
func newPod(c *Cluster, n *Node, i control.Instance) (*Pod, error) {
	p := &Pod{cluster: c, node: n, manifest: i.Pod, uid: string(i.UID), stop: make(chan struct{}), done: make(chan struct{}), over: make(chan struct{})}
	p.finish = sync.OnceFunc(func() { close(p.over) })
	if err := p.makeNamespaces(); err != nil {
		return nil, errors.Join(err, p.closeNamespaces())
	}
	p.makeContainers()
	c.control.Bind(i.UID, n.Name())
	return p, nil
}

func (p *Pod) makeNamespaces() (err error) {
	if p.names, err = namesOf(p.manifest, p.node.Name()); err != nil {
		return err
	}
	if p.manifest.Spec.HostNetwork {
		p.ns, p.addrs = p.node.Namespace, p.node.Addresses()
	} else if p.ns, err = lab.NewNamespace(p.manifest.Key()); err != nil {
		return err
	}
	p.hostname, err = p.ns.NewHostname(p.names.host)
	return err
}

func (p *Pod) closeNamespaces() error {
	var errs []error
	if p.hostname != nil {
		errs = append(errs, p.hostname.Close())
	}
	if p.ns != nil && p.ns != p.node.Namespace {
		errs = append(errs, p.ns.Close())
	}
	return errors.Join(errs...)
}

func (p *Pod) makeContainers() {
	spec := &p.manifest.Spec
	for i := range spec.InitContainers {
		r := initial
		if manifest.IsSidecar(&spec.InitContainers[i]) {
			r = sidecar
		}
		p.inits = append(p.inits, newContainer(p, &spec.InitContainers[i], r))
	}
	for i := range spec.Containers {
		p.containers = append(p.containers, newContainer(p, &spec.Containers[i], regular))
	}
}

// Namespace is the network namespace in which the pod's containers run.
func (p *Pod) Namespace() *lab.Namespace { return p.ns }

// Node is the pod's node.
func (p *Pod) Node() *Node { return p.node }

// Name returns the pod's name without its namespace.
func (p *Pod) Name() string { return p.manifest.Name }

// Addrs returns the pod's addresses, none before it is attached.
func (p *Pod) Addrs() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addrs
}

// start attaches the pod and starts its containers: it returns when each was started once, or the first one where others have to
// wait for it.
func (p *Pod) start(ctx context.Context) error {
	if !p.manifest.Spec.HostNetwork {
		addrs, err := p.node.network.add(ctx, p)
		if err != nil {
			p.setProblem(err.Error())
			return fmt.Errorf("attach pod %s on %s: %w", p.manifest.Key(), p.node.Name(), err)
		}
		p.mu.Lock()
		p.addrs, p.attached = addrs, true
		p.mu.Unlock()
	}
	if err := p.makeFiles(); err != nil {
		p.setProblem(err.Error())
		return err
	}
	p.mu.Lock()
	p.started, p.running = time.Now(), true
	p.mu.Unlock()
	p.report()
	begun := make(chan struct{})
	go func() {
		defer close(p.done)
		p.run(sync.OnceFunc(func() { close(begun) }))
	}()
	<-begun
	return nil
}

// run runs the init containers one after another, then the containers, and when all of these have ended for good, ends the sidecars.
// It calls begun when start need not wait any more.
func (p *Pod) run(begun func()) {
	defer p.finishLogs()
	defer begun()
	for _, c := range p.inits {
		c.begin()
		begun()
		done := c.done
		if c.role == sidecar {
			done = c.up
		}
		select {
		case <-p.stop:
			return
		case <-done:
		}
		if c.role == initial && !c.succeeded() {
			p.endSidecars(time.Time{})
			p.finish()
			return
		}
	}
	for _, c := range p.containers {
		c.begin()
	}
	begun()
	for _, c := range p.containers {
		select {
		case <-p.stop:
			return
		case <-c.done:
		}
	}
	p.endSidecars(time.Time{})
	p.finish()
}

// finishLogs tells those who follow the logs of containers that have not begun that they will not.
func (p *Pod) finishLogs() {
	for _, c := range p.all() {
		if !c.hasBegun() {
			c.out.Finish()
		}
	}
}

// endSidecars ends them in the order in which kubelet does it, the last one first.
func (p *Pod) endSidecars(deadline time.Time) {
	for _, c := range slices.Backward(p.inits) {
		if c.role == sidecar {
			c.end(deadline)
		}
	}
}

// close ends the containers and takes the pod off the network. It is called once, when start has returned or was not called. Seconds in own take the place of the pod's own.
func (p *Pod) close(own *int64) error {
	p.mu.Lock()
	p.stopping = true
	running := p.running
	p.mu.Unlock()
	close(p.stop)
	grace := defaultGrace
	for _, s := range []*int64{p.manifest.Spec.TerminationGracePeriodSeconds, own} {
		if s != nil {
			grace = seconds(*s)
		}
	}
	deadline := time.Now().Add(grace)
	var wg sync.WaitGroup
	for _, c := range p.all() {
		if c.role != sidecar {
			wg.Go(func() { c.end(deadline) })
		}
	}
	wg.Wait()
	p.endSidecars(deadline)
	if running {
		<-p.done
	}
	p.finish()
	var errs []error
	for _, c := range p.all() {
		errs = append(errs, c.out.Close())
	}
	_ = os.Remove(p.cluster.dir.join(outputDir, p.manifest.Namespace, p.manifest.Name)) // nothing is in it unless that was told
	if p.attached {
		ctx, cancel := context.WithTimeout(context.Background(), detachWait)
		defer cancel()
		if err := p.node.network.del(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("detach pod %s: %w", p.manifest.Key(), err))
		}
	}
	errs = append(errs, p.closeNamespaces(), os.RemoveAll(p.join()))
	return errors.Join(errs...)
}

// detachWait bounds the plugin's DEL.
const detachWait = 20 * time.Second

func (p *Pod) setProblem(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problem = s
}

// facts are what the pod's variables may ask for.
func (p *Pod) facts() manifest.Facts {
	f := manifest.Facts{
		UID: p.uid, NodeName: p.node.Name(), HostIP: p.node.Addresses()[0].String(), Services: p.cluster.control.Variables(&p.manifest.Pod),
	}
	for _, a := range p.Addrs() {
		f.PodIPs = append(f.PodIPs, a.String())
	}
	return f
}

// all returns the containers and, after them, the init containers.
func (p *Pod) all() []*container { return slices.Concat(p.containers, p.inits) }

// container returns a container by its name, the first one for "".
func (p *Pod) container(name string) (*container, error) {
	var names []string
	for _, c := range p.all() {
		if name == "" || c.spec.Name == name {
			return c, nil
		}
		names = append(names, c.spec.Name)
	}
	return nil, fmt.Errorf("pod %s has no container %s; it has %s", p.manifest.Key(), name, strings.Join(names, ", "))
}

// changed tells of what may be another state: the control plane, and of a new phase the person, but for those that come with the pod's
// end.
func (p *Pod) changed() {
	p.report()
	s := p.Status()
	p.mu.Lock()
	told, stopping := p.shown, p.stopping
	p.shown = s.Phase
	p.mu.Unlock()
	if told != "" && told != s.Phase && !stopping && p.cluster.present() != Stopping {
		p.cluster.text.pod(s)
	}
}

// event tells what happened to the pod, but for what comes with its end.
func (p *Pod) event(what string) {
	p.mu.Lock()
	stopping := p.stopping
	p.mu.Unlock()
	if !stopping && p.cluster.present() != Stopping {
		p.cluster.text.event(p.manifest.Key(), what)
	}
}

// Status returns what the pod is like now.
func (p *Pod) Status() PodStatus {
	s := PodStatus{
		Namespace: p.manifest.Namespace, Name: p.manifest.Name, UID: p.uid, Node: p.node.Name(),
		HostNetwork: p.manifest.Spec.HostNetwork, IPs: []netip.Addr{},
	}
	p.mu.Lock()
	s.Message, s.Started = p.problem, p.started
	s.IPs = append(s.IPs, p.addrs...)
	stopping := p.stopping
	p.mu.Unlock()
	for _, c := range p.inits {
		s.InitContainers = append(s.InitContainers, c.status())
	}
	for _, c := range p.containers {
		s.Containers = append(s.Containers, c.status())
	}
	s.markInitializing()
	s.Phase = s.phase(p.manifest.Spec.RestartPolicy)
	s.Status = s.word()
	if stopping && s.Phase != corev1.PodSucceeded && s.Phase != corev1.PodFailed {
		s.Status = "Terminating"
	}
	return s
}
