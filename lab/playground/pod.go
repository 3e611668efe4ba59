package playground

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/manifest"
)

// Pod is a pod of a cluster.
type Pod struct {
	cluster    *Cluster
	node       *Node
	manifest   *manifest.Pod
	ns         *lab.Namespace // the node's with hostNetwork
	containers []*container

	mu       sync.Mutex
	addrs    []netip.Addr
	attached bool
	started  time.Time // zero before start
	problem  string    // why it does not run
	shown    corev1.PodPhase
}

// newPod makes a pod's namespace. Nothing runs before start.
func newPod(c *Cluster, n *Node, m *manifest.Pod) (*Pod, error) {
	p := &Pod{cluster: c, node: n, manifest: m}
	m.UID = newUID()
	if m.Spec.HostNetwork {
		p.ns, p.addrs = n.Namespace, n.Addresses()
	} else {
		var err error
		if p.ns, err = lab.NewNamespace(m.Key()); err != nil {
			return nil, err
		}
	}
	for i := range m.Spec.Containers {
		p.containers = append(p.containers, newContainer(p, &m.Spec.Containers[i]))
	}
	return p, nil
}

// newUID returns a random UUID (RFC 9562, section 5.4).
func newUID() types.UID {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:]))
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

// start attaches the pod and starts its containers.
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
	p.mu.Lock()
	p.started = time.Now()
	p.mu.Unlock()
	for _, c := range p.containers {
		c.begin()
	}
	return nil
}

// close ends the containers and takes the pod off the network.
func (p *Pod) close() error {
	var wg sync.WaitGroup
	for _, c := range p.containers {
		wg.Go(c.end)
	}
	wg.Wait()
	var errs []error
	for _, c := range p.containers {
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
	if p.ns != p.node.Namespace {
		errs = append(errs, p.ns.Close())
	}
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
	f := manifest.Facts{NodeName: p.node.Name(), HostIP: p.node.Addresses()[0].String()}
	for _, a := range p.Addrs() {
		f.PodIPs = append(f.PodIPs, a.String())
	}
	return f
}

// container returns a container by its name, the first one for "".
func (p *Pod) container(name string) (*container, error) {
	var names []string
	for _, c := range p.containers {
		if name == "" || c.spec.Name == name {
			return c, nil
		}
		names = append(names, c.spec.Name)
	}
	return nil, fmt.Errorf("pod %s has no container %s; it has %s", p.manifest.Key(), name, strings.Join(names, ", "))
}

// changed tells of a new phase, but for those that come with the cluster's end.
func (p *Pod) changed() {
	s := p.Status()
	p.mu.Lock()
	told := p.shown
	p.shown = s.Phase
	p.mu.Unlock()
	if told != "" && told != s.Phase && p.cluster.present() != Stopping {
		p.cluster.text.pod(s)
	}
}

// event tells what happened to the pod, but for what comes with the cluster's end.
func (p *Pod) event(what string) {
	if p.cluster.present() != Stopping {
		p.cluster.text.event(p.manifest.Key(), what)
	}
}

// Status returns what the pod is like now.
func (p *Pod) Status() PodStatus {
	s := PodStatus{
		Namespace: p.manifest.Namespace, Name: p.manifest.Name, UID: string(p.manifest.UID), Node: p.node.Name(),
		HostNetwork: p.manifest.Spec.HostNetwork, IPs: []netip.Addr{},
	}
	p.mu.Lock()
	s.Message, s.Started = p.problem, p.started
	s.IPs = append(s.IPs, p.addrs...)
	p.mu.Unlock()
	for _, c := range p.containers {
		s.Containers = append(s.Containers, c.status())
	}
	s.Phase = phase(p.manifest.Spec.RestartPolicy, s.Containers)
	return s
}
