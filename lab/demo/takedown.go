package demo

import (
	"context"
	"errors"
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
		var errs []error
		for _, s := range r.servers {
			errs = append(errs, s.Close())
		}
		cluster := r.cluster
		r.cluster = nil
		errs = append(errs, cluster.Close())
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		return &endFact{len(cluster.Nodes)}, nil
	})
}
