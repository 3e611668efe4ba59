package report

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/middleway-net/middleway/lab/doctor"
	"github.com/middleway-net/middleway/node"
)

// Local says which daemon of this machine is reported on.
type Local struct {
	// RunDir is its run directory. Required.
	RunDir string
	// Metrics is where it serves metrics, "" for nowhere.
	Metrics string
	// CNI are directories in which network configurations of a container runtime may lie.
	CNI []string
	// Machine adds what is of the machine and not of one daemon: the doctor's verdict, interfaces, settings, network configurations.
	Machine bool
}

// DefaultCNI are the runtimes' directories, as a program of the node and as the daemon's container sees them.
var DefaultCNI = []string{"/etc/cni/net.d", "/host/etc/cni/net.d"}

// DefaultMetrics is where a daemon serves metrics unless it is told otherwise.
const DefaultMetrics = "http://127.0.0.1:9473/metrics"

// AddLocal adds what there is to know about a daemon of this machine, below a folder, which may be "".
func (a *Archive) AddLocal(ctx context.Context, below string, l Local) {
	name := func(s string) string { return filepath.Join(below, s) }
	st, err := part(ctx, func(ctx context.Context) (node.Status, error) { return node.ReadStatus(ctx, l.RunDir) })
	a.AddJSON(name("status.json"), st, err)
	flows, err := part(ctx, func(ctx context.Context) ([]flowCount, error) { return countFlows(ctx, l.RunDir) })
	a.AddJSON(name("flows.json"), flows, err)
	if l.Metrics != "" {
		text, err := part(ctx, func(ctx context.Context) ([]byte, error) { return fetch(ctx, l.Metrics) })
		a.Add(name("metrics.txt"), text, err)
	}
	if !l.Machine {
		return
	}
	findings, err := part(ctx, func(ctx context.Context) (*doctor.Report, error) { return doctor.Examine(ctx, nil), ctx.Err() })
	a.AddJSON(name("doctor.json"), findings, err)
	text, err := networkConfigurations(l.CNI)
	a.Add(name("cni.txt"), text, err)
	interfaces, err := interfaces()
	a.Add(name("interfaces.txt"), interfaces, err)
	a.Add(name("settings.txt"), settings(), nil)
}

// flowCount counts flows that have these in common.
type flowCount struct {
	Protocol  string `json:"protocol"`
	State     string `json:"state"`
	To        string `json:"to"` // the first word of where packets go: pod, peer, …
	OfService bool   `json:"ofService"`
	Flows     int    `json:"flows"`
}

func countFlows(ctx context.Context, runDir string) (all []flowCount, err error) {
	counts := map[flowCount]int{}
	err = node.In(runDir).Flows(ctx, node.FlowsRequest{}, func(e node.FlowEvent) error {
		to, _, _ := strings.Cut(e.To, " ")
		counts[flowCount{e.Protocol, e.State, to, e.Service != "", 0}]++
		return nil
	})
	all = []flowCount{}
	for c, n := range counts {
		c.Flows = n
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b flowCount) int { return cmp.Compare(b.Flows, a.Flows) })
	return all, err
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPart))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("HTTP status %d", resp.StatusCode)
	}
	return text, err
}

// networkConfigurations lists the files of a runtime's network configurations, in the order in which it takes them: their names, and the
// types of their plugins. What else stands in them is their plugins' matter, and may be secret.
func networkConfigurations(dirs []string) ([]byte, error) {
	var b bytes.Buffer
	var missing []error
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		fmt.Fprintf(&b, "%s\n", dir)
		for _, e := range entries {
			fmt.Fprintf(&b, "  %s%s\n", e.Name(), pluginsOf(filepath.Join(dir, e.Name())))
		}
	}
	if b.Len() > 0 {
		return b.Bytes(), nil
	}
	return nil, errors.Join(missing...)
}

// pluginsOf tells a configuration's version, name and plugins.
func pluginsOf(file string) string {
	if ext := filepath.Ext(file); ext != ".conf" && ext != ".conflist" && ext != ".json" {
		return ""
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return ": " + err.Error()
	}
	var c struct {
		Version string                  `json:"cniVersion"`
		Name    string                  `json:"name"`
		Type    string                  `json:"type"`
		Plugins []struct{ Type string } `json:"plugins"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return ": is no JSON" // the error would quote it
	}
	types := []string{c.Type}
	if c.Type == "" {
		types = nil
	}
	for _, p := range c.Plugins {
		types = append(types, p.Type)
	}
	return fmt.Sprintf(": %q of version %s, plugins %s", c.Name, c.Version, strings.Join(types, ", "))
}

func interfaces() ([]byte, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, i := range all {
		addrs, err := i.Addrs()
		fmt.Fprintf(&b, "%d %s mtu %d %v %s", i.Index, i.Name, i.MTU, i.Flags, i.HardwareAddr)
		for _, a := range addrs {
			fmt.Fprintf(&b, " %v", a)
		}
		if err != nil {
			fmt.Fprintf(&b, " %v", err)
		}
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}

// settingFiles are what of the kernel's settings matters to a node, below /proc/sys.
var settingFiles = []string{
	"kernel/osrelease", "kernel/unprivileged_userns_clone", "kernel/apparmor_restrict_unprivileged_userns", "user/max_user_namespaces", "fs/nr_open",
	"net/core/rmem_max", "net/core/wmem_max", "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/all/disable_ipv6",
	"net/ipv4/conf/all/rp_filter", "net/ipv4/conf/default/rp_filter", "net/ipv4/conf/mw0/rp_filter", "net/ipv4/ip_local_port_range",
	"net/ipv4/ping_group_range", "net/ipv4/ip_unprivileged_port_start", "net/ipv4/tcp_congestion_control",
}

func settings() []byte {
	var b bytes.Buffer
	for _, name := range settingFiles {
		value, err := os.ReadFile("/proc/sys/" + name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // this kernel has none
		case err != nil:
			value = []byte(err.Error())
		}
		fmt.Fprintf(&b, "%s = %s\n", name, strings.Join(strings.Fields(string(value)), " "))
	}
	return b.Bytes()
}
