package demo

import (
	"context"

	"github.com/middleway-net/middleway/lab/doctor"
)

// machine finds out what this machine has of what middleway uses. It is no check: what is missing is no failure, and what
// cannot be done without was seen before.
func (r *run) machine(ctx context.Context) {
	r.text.begin("trying")
	r.report.Machine = doctor.Examine(ctx, nil)
	r.text.machine(r.report.Machine.Compact())
}
