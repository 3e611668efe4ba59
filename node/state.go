package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/middleway-net/middleway/stack/flow"
)

// openState makes the run directory and opens the flow table there; its lock keeps a second daemon out.
func (n *Node) openState() error {
	_, missing := os.Stat(n.config.RunDir)
	if err := os.MkdirAll(n.config.RunDir, 0o700); err != nil {
		return fmt.Errorf("make run directory: %w; choose another one by runDir", err)
	}
	n.madeRunDir = errors.Is(missing, fs.ErrNotExist)
	flows, err := flow.Open(n.flowFile(), n.config.FlowEntries)
	switch {
	case errors.Is(err, flow.ErrInUse):
		return fmt.Errorf("another middleway node runs on %s; end it, or choose another runDir", n.config.RunDir)
	case err != nil:
		return fmt.Errorf("%w; make its directory writable, or choose another runDir", err)
	}
	n.flows = flows
	return nil
}

// flowsName is the flow table's name in the run directory.
const flowsName = "flows"

func (n *Node) flowFile() string { return filepath.Join(n.config.RunDir, flowsName) }

// removeState takes away what a failed start made, but never what a former daemon left.
func (n *Node) removeState() error {
	var errs []error
	if n.flows != nil && !n.flows.Reopened() {
		errs = append(errs, os.Remove(n.flowFile()))
	}
	if n.madeLeases {
		errs = append(errs, os.Remove(n.leaseFile()))
	}
	if n.madeRunDir {
		errs = append(errs, os.Remove(n.config.RunDir))
	}
	return errors.Join(errs...)
}
