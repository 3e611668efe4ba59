package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ClusterStatus is what a daemon tells of its Kubernetes cluster.
type ClusterStatus struct {
	// Source is where the cluster's objects come from: the API server's address, or a folder's path.
	Source string `json:"source"`
	// InForce is since when the cluster is known, from the source or from the daemon's last life; null before that.
	InForce *time.Time `json:"inForce"`
	// Synced: the source has told all there is since this daemon started.
	Synced bool `json:"synced"`
	// Objects are how many are known, by kind.
	Objects map[string]int `json:"objects"`
	// Changed is when a change came into force last, Latency how long that took since the daemon heard of it; Changes counts them.
	Changed *time.Time `json:"changed"`
	Latency Duration   `json:"latency"`
	Changes uint64     `json:"changes"`
	// Unreachable says since when and why the API server does not answer; null while it does.
	Unreachable *Unreachable `json:"unreachable"`
	// LeftOut are sentences about nodes that are no peers, or of which an address is not used, by the node's name.
	LeftOut map[string]string `json:"leftOut"`
}

// Unreachable says since when and why something does not answer.
type Unreachable struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// clusterStatus returns what is known of the cluster; nil where there is none.
func (n *Node) clusterStatus() *ClusterStatus {
	c := &n.cluster
	if c.pipeline == nil {
		return nil
	}
	stats := c.pipeline.Stats()
	st := &ClusterStatus{
		Source: n.config.Kubernetes.Folder, InForce: c.inForce.Load(), Synced: stats.Synced, Objects: stats.Objects,
		Latency: Duration(stats.Latency), Changes: stats.Changes, LeftOut: map[string]string{},
	}
	if !stats.Last.IsZero() {
		st.Changed = &stats.Last
	}
	if c.api != nil {
		st.Source = c.api.Server()
		if u := c.api.Unreachable(); u != nil {
			st.Unreachable = &Unreachable{u.Since, u.Why}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(st.LeftOut, c.left)
	return st
}

// ready returns why the cluster's Services are not served yet, and its nodes not known; nil if they are.
func (c *cluster) ready() error {
	switch {
	case c.pipeline == nil || c.inForce.Load() != nil:
		return nil
	}
	return c.untold()
}

// synced returns why what is in force may be out of date since a former daemon learned it, nil if it is not.
func (c *cluster) synced() error {
	if c.pipeline == nil || c.pipeline.Stats().Synced {
		return nil
	}
	return c.untold()
}

// untold says why the source has not told all.
func (c *cluster) untold() error {
	if c.api != nil {
		if u := c.api.Unreachable(); u != nil {
			return fmt.Errorf("the API server at %s does not answer: %s", c.api.Server(), u.Why)
		}
		return fmt.Errorf("the API server at %s has not told all of the cluster yet", c.api.Server())
	}
	return errors.New("the folder with the cluster's objects is not complete yet")
}

// Words returns the status in lines of text.
func (st *ClusterStatus) Words() (lines []string) {
	line := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	switch {
	case st.InForce == nil:
		line("from %s, which has not told all yet", st.Source)
	case !st.Synced:
		line("from %s, which has not answered since the start; what was last known is in force", st.Source)
	default:
		line("from %s, known since %s", st.Source, st.InForce.Format(time.RFC3339))
	}
	if u := st.Unreachable; u != nil {
		line("the API server does not answer since %s: %s", u.Since.Format(time.RFC3339), u.Why)
	}
	changed := "no change since"
	if st.Changed != nil {
		changed = fmt.Sprintf("last change %s, in force after %v", st.Changed.Format(time.RFC3339), time.Duration(st.Latency).Round(10*time.Microsecond))
	}
	line("%d Services, %d EndpointSlices, %d nodes; %s", st.Objects["services"], st.Objects["endpointslices"], st.Objects["nodes"], changed)
	for _, node := range slices.Sorted(maps.Keys(st.LeftOut)) {
		line("node %s is left out: %s", node, st.LeftOut[node])
	}
	return lines
}
