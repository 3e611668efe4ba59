package demo

import (
	"context"
	"fmt"
)

// endFact is what was taken down.
type endFact struct {
	Daemons int `json:"daemons"` // that ended when they were asked to
}

func (f *endFact) text() string {
	return fmt.Sprintf("%d daemons ended when asked to; devices and namespaces are gone", f.Daemons)
}

func (r *run) takeDown(ctx context.Context) {
	r.check(ctx, "take down", func(context.Context) (fact, error) {
		cluster := r.cluster
		r.cluster = nil
		if err := cluster.Close(); err != nil {
			return nil, err
		}
		return &endFact{len(cluster.Nodes())}, nil
	})
}
