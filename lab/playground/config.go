package playground

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/middleway-net/middleway/lab/control"
	"github.com/middleway-net/middleway/lab/manifest"
	"github.com/middleway-net/middleway/node"
)

const (
	defaultNodes = 2
	// MaxNodes is where the address plan ends: every node has a last byte of its own, in decimal digits for IPv6.
	MaxNodes = 89
)

// upName is the state directory's own name by default.
const upName = "up"

// DirVar is the variable that names the default state directory.
const DirVar = "MIDDLEWAY_UP_DIR"

// Config describes a cluster.
type Config struct {
	// Nodes is how many there are. Default 2.
	Nodes int
	// Pods are the pods to run. Default: DefaultPods.
	Pods *manifest.Set
	// Follow are the files and directories from which Pods were read, with absolute paths, as manifest.Read had them. When they
	// change, so do the cluster's pods. Default: none.
	Follow []string
	// Dir is the state directory, where the other commands find the cluster. Default: one that nobody finds, and that ends with
	// this process.
	Dir string
	// Owner is the process that ends with the cluster, for `middleway up` the one outside its namespaces: Down kills it where the
	// cluster does not answer. Default: nobody.
	Owner int
	// Zones are those in which the nodes are, one after another, and from the first again where there are more nodes. Default: none.
	Zones []string
	// Underlay joins the nodes. Default: Auto.
	Underlay Underlay
	// Out gets a line for each thing that happens. Default: none.
	Out io.Writer
	// Color colours the lines.
	Color bool
	// Change edits each node's configuration before it starts. It is for tests, which break a node by it.
	Change func(number int, c *node.Config)
}

// DefaultDir returns the state directory of `middleway up` that is not told another: $MIDDLEWAY_UP_DIR, else up in the directory
// where a node keeps its state.
func DefaultDir() string {
	if dir := os.Getenv(DirVar); dir != "" {
		return dir
	}
	return filepath.Join(node.DefaultRunDir(), upName)
}

// checkObjects finds out whether the objects of the manifests can be there, and their pods on the nodes.
func (c *Config) checkObjects() error {
	cc := c.controlConfig()
	cc.Fits = c.fits
	plane := control.New(cc)
	if err := plane.Adopt(c.Pods.Objects); err != nil {
		return err
	}
	_, err := schedule(podsOf(plane.Instances()), make([]load, c.Nodes))
	return err
}

// Check fills in the defaults and finds what cannot work, so that nothing is made before. New does it too.
func (c *Config) Check() error {
	if c.Nodes == 0 {
		c.Nodes = defaultNodes
	}
	if c.Nodes < 1 || c.Nodes > MaxNodes {
		return fmt.Errorf("%d nodes: want 1 to %d", c.Nodes, MaxNodes)
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	for _, z := range c.Zones {
		if validation.IsValidLabelValue(z) != nil || z == "" {
			return fmt.Errorf("zone %q: want at most 63 letters, digits, -, _ and dots, for example zone-a", z)
		}
	}
	if c.Underlay == "" {
		c.Underlay = Auto
	}
	var err error
	if c.Pods == nil {
		if c.Pods, err = DefaultPods(c.Nodes); err != nil {
			return err
		}
	}
	return c.checkObjects()
}
