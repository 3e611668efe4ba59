package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/middleway-net/middleway/cni/ipam"
	"github.com/middleway-net/middleway/cni/link"
	"github.com/middleway-net/middleway/cni/netns"
)

// PluginName is what a network configuration calls the plugin in "type", and how its executable is called.
const PluginName = "middleway-cni"

// supported are the versions of the specification that the plugin speaks.
var supported = version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")

const about = `%s %s: the CNI plugin of middleway.

A container runtime executes it for a network configuration such as

  {"cniVersion": "1.1.0", "name": "middleway", "type": "middleway-cni", "socket": "/run/middleway/cni.sock"}

with CNI_COMMAND set to ADD, DEL, CHECK, GC, STATUS or VERSION, and the node daemon (middleway node) does the rest.
CNI protocol versions supported: %s
`

// plugin is one execution of the plugin.
type plugin struct {
	stderr  io.Writer
	until   time.Time
	name    string // under which it was executed
	version string // of the specification, as the configuration wants it

	mu     sync.Mutex // guards what follows
	stdout io.Writer  // nil once something was printed: a runtime reads one object
}

// Main is the plugin: it does what CNI_COMMAND says and returns the exit code. Results and errors go to standard output,
// everything else to standard error. Under the name loopback it is the plugin that sets up a pod's lo, and no daemon is asked.
func Main(release string) int {
	if os.Getenv("CNI_COMMAND") == "" {
		fmt.Fprintf(os.Stderr, about, PluginName, release, strings.Join(supported.SupportedVersions(), ", "))
		return 0
	}
	p := &plugin{stderr: os.Stderr, stdout: os.Stdout, name: filepath.Base(os.Args[0]), version: version.Current(), until: time.Now().Add(deadline)}
	// What does not heed the deadline, such as a kernel lock, ends with the process.
	time.AfterFunc(deadline+time.Second, func() {
		p.print(p.failure(coded(p.late(), codeTryAgain, "")))
		os.Exit(1)
	})
	if err := p.run(); err != nil {
		p.print(p.failure(err))
		return 1
	}
	return 0
}

func (p *plugin) run() *types.Error {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return fail(codeIO, "read network configuration", err)
	}
	p.negotiate(in)
	if os.Getenv("CNI_COMMAND") == "VERSION" {
		return p.print(struct {
			Version   string   `json:"cniVersion"`
			Supported []string `json:"supportedVersions"`
		}{p.version, supported.SupportedVersions()})
	}
	// skel reads standard input by itself; it has been read to know in which version to speak.
	r, w, err := os.Pipe()
	if err != nil {
		return fail(codeIO, "read network configuration", err)
	}
	defer r.Close()
	go func() {
		_, _ = w.Write(in) // fails where skel returns before it has read
		_ = w.Close()
	}()
	os.Stdin = r
	does := skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status}
	if p.name == loopbackName {
		does = p.loopbackFuncs()
	}
	return skel.PluginMainFuncsWithError(does, supported, "")
}

// negotiate takes over the version that a configuration wants, if it is one.
func (p *plugin) negotiate(conf []byte) {
	var v struct {
		Version string `json:"cniVersion"`
	}
	if json.Unmarshal(conf, &v) != nil || v.Version == "" {
		return
	}
	if _, _, _, err := version.ParseVersion(v.Version); err == nil {
		p.version = v.Version
	}
}

// failure is an error as the specification wants it on standard output.
func (p *plugin) failure(err *types.Error) any {
	return struct {
		Version string `json:"cniVersion"`
		*types.Error
	}{p.version, err}
}

// print prints one object, the first that it is given.
func (p *plugin) print(v any) *types.Error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stdout == nil {
		return nil
	}
	e := json.NewEncoder(p.stdout)
	e.SetIndent("", "  ")
	p.stdout = nil
	if err := e.Encode(v); err != nil {
		return fail(codeIO, "write result", err)
	}
	return nil
}

func (p *plugin) log(format string, v ...any) {
	fmt.Fprintf(p.stderr, PluginName+": "+format+"\n", v...)
}

func (p *plugin) add(a *skel.CmdArgs) error {
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	prev, err := c.previous()
	if err != nil {
		return err
	}
	r, err := attachment(opAdd, a, c)
	if err != nil {
		return err
	}
	if r.NetnsID, err = podNamespace(a); err != nil {
		return err
	}
	daemon, err := dial(c.Socket, p.until)
	if err != nil {
		return err
	}
	defer daemon.Close() // before ⑤ it makes the daemon take everything back
	g, err := ask(daemon, c.Socket, r)
	if err != nil {
		return err
	}
	q, err := link.Make(link.Config{
		Netns: r.Netns, Name: r.IfName, Addrs: g.Addrs, Gateways: g.Gateways, MTU: g.MTU, Queues: g.Queues,
		MaxSegments: g.MaxSegments, Alias: alias(r.ContainerID),
	}, g.Portable)
	switch {
	case errors.Is(err, fs.ErrExist):
		return interfaceExists(a)
	case err != nil && daemon.hungUp(): // the next daemon has begun to take this ADD back
		return noDaemon(c.Socket, fmt.Errorf("it ended during this ADD: %v", err))
	case err != nil:
		return fail(codeInternal, "make the pod's interface", err)
	}
	if _, err := ask(daemon, c.Socket, &request{Op: opDevice, Index: q.Index}, q.FDs...); err != nil {
		q.Abandon()
		return err
	}
	q.Close()
	result, err := merge(prev, *g, r.IfName, a.Netns, c.CNIVersion).GetAsVersion(c.CNIVersion)
	if err != nil {
		return fail(codeInternal, "convert result", err)
	}
	if err := p.late(); err != nil { // the daemon takes everything back
		return err
	}
	if err := p.print(result); err != nil {
		return err
	}
	// The lease is committed. A daemon that has ended since keeps it, so that it does not matter whether it hears this; one that
	// has waited for too long has not.
	_ = daemon.send(&request{Op: opDone})
	return p.late()
}

// late returns an error after the deadline: this process may have been stopped for any time.
func (p *plugin) late() error {
	if time.Now().Before(p.until) {
		return nil
	}
	return fail(codeTryAgain, "the deadline has passed", fmt.Sprintf("not done within %v", deadline))
}

// podNamespace returns which namespace CNI_NETNS names, and refuses one in which the interface cannot be made.
func podNamespace(a *skel.CmdArgs) (netns.ID, error) {
	id, err := netns.Identify(a.Netns)
	if err != nil {
		return id, fail(codeNetns, "invalid CNI_NETNS", err)
	}
	own, err := netns.Identify("/proc/self/ns/net")
	if override := strings.ToUpper(a.NetnsOverride); err == nil && own == id && override != "TRUE" && override != "1" {
		return id, fail(codeNetns, "invalid CNI_NETNS", fmt.Sprintf("%s is the plugin's own network namespace", a.Netns))
	}
	switch exists, err := link.Exists(a.Netns, a.IfName); {
	case err != nil:
		return id, fail(codeNetns, "enter the pod's network namespace", err)
	case exists:
		return id, interfaceExists(a)
	}
	return id, nil
}

func interfaceExists(a *skel.CmdArgs) error {
	return fail(codeInterface, "the interface exists", fmt.Sprintf("%s in %s is there already and was left as it is; DEL comes before another ADD", a.IfName, a.Netns))
}

// del deletes as much as can be deleted and never fails for what is missing or not needed: what it could not do it writes
// down for the daemon to do. Of the configuration it needs the socket.
func (p *plugin) del(a *skel.CmdArgs) error {
	socket, err := parseSocket(a.StdinData)
	if err != nil {
		return err
	}
	r := &request{Op: opDel, Key: ipam.Key{ContainerID: a.ContainerID, IfName: a.IfName}}
	if err := r.check(); err != nil {
		return err
	}
	if _, err := parseConf(a.StdinData); err != nil {
		p.log("DEL %v goes on: %v", r.Key, err)
	}
	if _, err := askOnce(socket, p.until.Add(-deadline/2), r); err != nil {
		p.log("DEL %v: %v", r.Key, err)
		if err := bury(socket, r.Key); err != nil && daemonWasAt(socket) {
			p.log("DEL %v: %v; its addresses stay leased until its network namespace has gone", r.Key, err)
		}
	}
	if a.Netns == "" {
		return nil
	}
	// Mostly the daemon has done that.
	if err := link.Remove(a.Netns, a.IfName, alias(a.ContainerID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.log("DEL %v: %v", r.Key, err)
	}
	return nil
}

// daemonWasAt reports whether there may ever have been a daemon with that socket.
func daemonWasAt(socket string) bool {
	_, err := os.Stat(filepath.Dir(socket))
	return !errors.Is(err, fs.ErrNotExist)
}

func (p *plugin) check(a *skel.CmdArgs) error {
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	prev, err := c.previous()
	if err != nil {
		return err
	}
	if prev == nil {
		return fail(codeConfig, "invalid network configuration", "prevResult is needed for CHECK")
	}
	r, err := attachment(opCheck, a, c)
	if err != nil {
		return err
	}
	if r.NetnsID, err = netns.Identify(a.Netns); err != nil {
		return fail(codeNetns, "invalid CNI_NETNS", err)
	}
	g, err := askOnce(c.Socket, p.until, r)
	if err != nil {
		return err
	}
	e, ok := expected(prev, *g, a.IfName, a.Netns)
	if !ok {
		return fail(codeUnlike, "not as it should be", fmt.Sprintf("prevResult does not name %s in %s", a.IfName, a.Netns))
	}
	for _, addr := range g.Addrs {
		if !slices.Contains(e.Addrs, addr) {
			return fail(codeUnlike, "not as it should be", fmt.Sprintf("%v is leased to %s, but prevResult does not name it", addr, a.IfName))
		}
	}
	e.Addrs = g.Addrs
	if err := link.Check(e); err != nil {
		return fail(codeUnlike, "not as it should be", err)
	}
	return nil
}

func (p *plugin) gc(a *skel.CmdArgs) error {
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	r := &request{Op: opGC, Network: c.Name}
	for _, v := range c.ValidAttachments {
		r.Valid = append(r.Valid, ipam.Key{ContainerID: v.ContainerID, IfName: v.IfName})
	}
	_, err = askOnce(c.Socket, p.until, r)
	return err
}

func (p *plugin) status(a *skel.CmdArgs) error {
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	_, err = askOnce(c.Socket, p.until, &request{Op: opStatus})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoDaemon):
		return fail(codeLimited, "the node daemon does not answer: pods reach nothing", coded(err, codeTryAgain, "").Details)
	}
	e := coded(err, codeUnavailable, "the node daemon cannot add pods")
	return fail(codeUnavailable, e.Msg, e.Details)
}
