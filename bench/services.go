package bench

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/middleway-net/middleway/k8s/folder"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/perf"
	"github.com/middleway-net/middleway/node"
)

const (
	// endpoints is how many each Service has.
	endpoints = 10
	// servicePort is that of all Services.
	servicePort = 80
	// doorPort is where the pods behind the measured Service take streams of TCP, and datagrams.
	doorPort = 5211
	// settleTimeout is how long daemons may take with what there is to do until they rest.
	settleTimeout = 2 * time.Minute
)

// ServicePair is a client's pod and the ten pods behind a Service, the first of many. The daemons take the Services from a state
// folder, as they do in the playground. The endpoints of all others are objects only.
//
//	From ── daemon ┬ 10.96.16.0:80 ──┐
//	               └ pods' addresses ┴─► ten pods: To and the doors, where one process receives at port 5211
type ServicePair struct {
	*Pair
	frontend []netip.AddrPort // of the measured Service
	pods     []netip.AddrPort // behind it
	backends []*lab.Pod
	cluster  *lab.Cluster
	folder   *folder.Writer
	services int // how many there are
}

// JoinService makes the pods and a cluster with one Service.
func JoinService(place Place) (*ServicePair, error) {
	s := &ServicePair{frontend: []netip.AddrPort{netip.AddrPortFrom(clusterIP(0), servicePort)}}
	for i := range endpoints {
		s.pods = append(s.pods, netip.AddrPortFrom(backendAddr(place, i), doorPort))
	}
	var err error
	if s.Pair, err = build(func(p *Pair) error { return s.build(p, place) }); err != nil {
		return nil, err
	}
	return s, nil
}

// backendAddr returns the address that lab gives to a backend.
func backendAddr(place Place, i int) netip.Addr {
	if place == SameNode {
		return podAddr(1, byte(3+i)) // behind the client
	}
	return podAddr(2, byte(2+i))
}

func (s *ServicePair) build(p *Pair, place Place) error {
	dir, err := lab.NewDirectory()
	if err != nil {
		return err
	}
	p.OnClose(dir.Close)
	state := filepath.Join(dir.Path(), "state")
	c := lab.ClusterConfig{Dir: dir.Path(), Pods: []int{1, endpoints}, Change: func(_ int, c *node.Config) {
		c.Kubernetes.Folder, c.Services.CIDRs = state, lab.ServiceCIDRs()[:1]
	}}
	if place == SameNode {
		c.Pods = []int{1 + endpoints}
	}
	if err := s.begin(state, len(c.Pods)); err != nil {
		return err
	}
	if s.cluster, err = lab.NewCluster(c); err != nil {
		return err
	}
	p.OnClose(s.cluster.Close)
	nodes := s.cluster.Nodes
	last := nodes[len(nodes)-1].Pods
	s.backends = last[len(last)-endpoints:]
	p.From, p.To, p.Addr = nodes[0].Pods[0].Namespace, s.backends[0].Namespace, s.backends[0].Addr4
	for _, b := range s.backends[1:] {
		p.doors = append(p.doors, b.Namespace)
	}
	for _, n := range nodes {
		p.Daemons = append(p.Daemons, n.Daemon())
	}
	return s.settle()
}

// begin writes the state folder of a cluster with one Service.
func (s *ServicePair) begin(dir string, nodes int) (err error) {
	if s.folder, err = folder.NewWriter(dir); err != nil {
		return err
	}
	for n := 1; n <= nodes; n++ {
		if err := s.folder.Put(nodeObject(n)); err != nil {
			return err
		}
	}
	if err := s.put(1); err != nil {
		return err
	}
	return s.folder.Complete()
}

// Grow adds Services until there are n, and returns when the daemons rest.
func (s *ServicePair) Grow(n int) error {
	if err := s.put(n); err != nil {
		return err
	}
	return s.settle()
}

// put writes the Services up to n and their slices. The daemons follow.
func (s *ServicePair) put(n int) error {
	for ; s.services < n; s.services++ {
		if err := s.folder.Put(serviceObject(s.services)); err != nil {
			return err
		}
		if err := s.folder.Put(s.slice(s.services, func(int) bool { return true })); err != nil {
			return err
		}
	}
	return nil
}

// SetReady makes endpoints of the measured Service ready or not.
func (s *ServicePair) SetReady(ready func(endpoint int) bool) error {
	return s.folder.Put(s.slice(0, ready))
}

// settle waits until all daemons know all Services and rest.
func (s *ServicePair) settle() error {
	deadline := time.Now().Add(settleTimeout)
	for _, n := range s.cluster.Nodes {
		for rests := false; !rests; {
			if time.Now().After(deadline) {
				return fmt.Errorf("the daemon of %s is not at rest with %d Services within %v: %s", n.Name(), s.services, settleTimeout, n.Daemon().Tail())
			}
			var err error
			if rests, err = s.rests(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// rests reports whether a daemon knows all Services, and then uses less than a twentieth of a processor for a while.
func (s *ServicePair) rests(n *lab.Node) (bool, error) {
	const while = 300 * time.Millisecond
	st, err := n.Status() // one that is busy answers later
	knows := err == nil && st.Cluster != nil && st.Cluster.Objects["services"] == s.services && st.Cluster.Objects["endpointslices"] == s.services
	before, err := n.Daemon().CPUTime()
	if err != nil {
		return false, err
	}
	select {
	case <-n.Daemon().Done():
		return false, fmt.Errorf("the daemon of %s ended: %s", n.Name(), n.Daemon().Tail())
	case <-time.After(while):
	}
	after, err := n.Daemon().CPUTime()
	return knows && after-before < while/20, err
}

// add runs a test whose streams of TCP go to one of several addresses each.
func (s *ServicePair) add(results *[]Result, t perf.Test, to []netip.AddrPort) error {
	r, err := s.run(generatorConfig{Test: t, To: to})
	if err == nil {
		*results = append(*results, r)
	}
	return err
}

// Memory returns how much of the machine's memory the client's daemon has in use, in bytes: VmRSS of proc_pid_status(5).
func (s *ServicePair) Memory() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Daemons[0].PID()))
	if err != nil {
		return 0, err
	}
	return residentSize(string(b))
}

// residentSize returns what a text of /proc/PID/status says about VmRSS.
func residentSize(status string) (int64, error) {
	_, rest, found := strings.Cut(status, "\nVmRSS:")
	size, _, kB := strings.Cut(rest, " kB\n")
	n, err := strconv.ParseInt(strings.TrimSpace(size), 10, 64)
	if !found || !kB || err != nil {
		return 0, fmt.Errorf("no VmRSS in kB in %.200q", status)
	}
	return n << 10, nil
}
