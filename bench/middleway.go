package bench

import "github.com/middleway-net/middleway/lab"

// Middleway is ours: a daemon process on each node, as shipped but for what Change changes.
type Middleway struct {
	// Title is the contestant's name. Default "middleway".
	Title string
	// Cluster is the cluster to make, but for its pods. Default: that of lab.
	Cluster lab.ClusterConfig
}

// Name is the contestant's name.
func (m Middleway) Name() string {
	if m.Title == "" {
		return "middleway"
	}
	return m.Title
}

// Join joins two pods by middleway.
func (m Middleway) Join(place Place) (*Pair, error) {
	return build(func(p *Pair) error {
		c := m.Cluster
		if c.Pods = []int{1, 1}; place == SameNode {
			c.Pods = []int{2}
		}
		cl, err := lab.NewCluster(c)
		if err != nil {
			return err
		}
		p.OnClose(cl.Close)
		from := cl.Nodes[0].Pods
		to := cl.Nodes[len(cl.Nodes)-1].Pods
		p.From, p.To, p.Addr = from[0].Namespace, to[len(to)-1].Namespace, to[len(to)-1].Addr4
		for _, n := range cl.Nodes {
			p.Daemons = append(p.Daemons, n.Daemon())
		}
		return nil
	})
}
