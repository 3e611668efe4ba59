package components

import (
	"context"
	"io"
)

// Build builds what is missing of the named components, or of all, together with what they are made from. It tells people about it on w.
// A second build waits until the first has ended. What was interrupted leaves nothing behind.
func (c Cache) Build(ctx context.Context, w io.Writer, names ...string) error {
	_, err := choose(names)
	return err
}
