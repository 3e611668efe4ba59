// Package cluster brings a real Kubernetes up on one machine and takes it down: a control plane, and nodes with a kubelet and a
// container runtime each, in namespaces.
//
//	NAME-outside ── bridge ──┬── NAME-1: etcd, API server, controller manager, scheduler; containerd, kubelet, pods
//	 kubectl, e2e.test, DNS  ├── NAME-2: containerd, kubelet, pods
//	                         └── …
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/test/kube/node"
	"github.com/middleway-net/middleway/test/kube/plan"
	"github.com/middleway-net/middleway/test/kube/sandbox"
)

// Programs is where the components are.
type Programs struct {
	Bin    string   `json:"bin"`    // folder of kubelet, containerd, kubectl and the others
	CNI    string   `json:"cni"`    // folder of the reference CNI plugins
	Images []string `json:"images"` // OCI archives for the nodes' stores
	// Pause and CoreDNS are images that are in one of the archives: a pod's sandbox, and the reference's DNS server.
	Pause   string `json:"pause"`
	CoreDNS string `json:"coredns"`
}

// A Config says what cluster there is to be.
type Config struct {
	plan.Plan
	Dir      string   `json:"dir"` // of the cluster: what it keeps, logs, results
	Programs Programs `json:"programs"`
	// Network is the name of the pod network, for people and for results.
	Network string `json:"network"`
	// Deploy is the repository's folder of that name.
	Deploy string `json:"deploy"`
	// KubeletRules lets kubelets make iptables rules of their own (makeIPTablesUtilChains).
	KubeletRules bool `json:"kubeletRules"`
}

// A Network is what makes pods reach each other, Services and names. It may run programs on nodes (Node.Run), or be objects of the
// cluster.
type Network interface {
	// Install is called once, when the API server answers.
	Install(ctx context.Context, c *Cluster) error
	// Join is called for each node when it is registered and has its range of pods.
	Join(ctx context.Context, c *Cluster, n *Node) error
	// Ready is called once, when all nodes are Ready, and returns when names are answered.
	Ready(ctx context.Context, c *Cluster) error
}

// A Cluster is one that is up, or on its way.
type Cluster struct {
	Config
	// Inits are the first processes of the nodes, by the nodes' names.
	Inits map[string]int `json:"inits"`
	// Added is the components that were started on nodes by Run, by the nodes' names.
	Added map[string][]node.Component `json:"added"`

	mu  sync.Mutex // held while the fields above change
	api *api
	out io.Writer
}

// Folders of a cluster.
func (c Config) pki() string             { return filepath.Join(c.Dir, "pki") }
func (c Config) nodeDir(n string) string { return filepath.Join(c.Dir, "nodes", n) }
func (c Config) logs(n string) string    { return filepath.Join(c.Dir, "logs", n) }
func (c Config) stateFile() string       { return filepath.Join(c.Dir, "cluster.json") }

func (c Config) cgroup(n string) sandbox.Cgroup { return sandbox.Cgroup{Cluster: c.Name, Name: n} }

// Program is the path of a component.
func (c Config) Program(name string) string { return filepath.Join(c.Programs.Bin, name) }

// PKI is the file of that name among the cluster's certificates, keys and kubeconfigs.
func (c Config) PKI(name string) string { return filepath.Join(c.pki(), name) }

// Kubeconfig is that of the cluster's administrator. Its server answers in the cluster's namespaces only.
func (c Config) Kubeconfig() string { return c.PKI("admin.kubeconfig") }

// ErrDown says that no cluster of the name is there.
var ErrDown = errors.New("no such cluster is up")

// Open returns the cluster that is up in dir.
func Open(dir string) (*Cluster, error) {
	text, err := os.ReadFile(Config{Dir: dir}.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: kube up --cluster %s makes it", ErrDown, filepath.Base(dir))
	}
	if err != nil {
		return nil, err
	}
	c := &Cluster{out: io.Discard}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("%s: %w", c.stateFile(), err)
	}
	c.api, err = newAPI(c.Config)
	return c, err
}

// change changes what the state file has.
func (c *Cluster) change(f func()) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	return c.save()
}

// save writes the state file at once, not in parts.
func (c *Cluster) save() error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.stateFile()+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(c.stateFile()+".new", c.stateFile())
}

// lock keeps others from making or taking down the same cluster meanwhile. Nobody waits for it.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("cluster %s is being made or taken down by another process: wait for it, or take another --cluster", filepath.Base(dir))
	}
	return func() { f.Close() }, nil
}
