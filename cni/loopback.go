package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/middleway-net/middleway/cni/link"
)

// loopbackName is the plugin under which a container runtime has each pod's lo set up: containerd executes one of that name before the pod's
// network (go-cni, WithLoNetwork) unless it is configured to do that itself (use_internal_loopback), CRI-O none.
const loopbackName = "loopback"

// IsPlugin reports whether a program that was executed under the name arg0 is to be the plugin.
func IsPlugin(arg0 string) bool {
	name := filepath.Base(arg0)
	return name == PluginName || name == loopbackName
}

// linkLoopback makes a link called loopback to the plugin beside it, and reports whether there is one then. Another program of that name
// is left as it is.
func linkLoopback(dir string) (bool, error) {
	path := filepath.Join(dir, loopbackName)
	if _, err := os.Lstat(path); err == nil {
		return ourLoopback(dir), nil
	}
	err := os.Symlink(PluginName, path)
	if errors.Is(err, fs.ErrExist) {
		return ourLoopback(dir), nil
	}
	return err == nil, err
}

// ourLoopback reports whether Install has made the plugin loopback of a directory.
func ourLoopback(dir string) bool {
	to, err := os.Readlink(filepath.Join(dir, loopbackName))
	return err == nil && to == PluginName
}

// loopbackFuncs are the plugin loopback. A pod's lo ends with its namespace, so that DEL and GC have nothing to do.
func (p *plugin) loopbackFuncs() skel.CNIFuncs {
	nothing := func(*skel.CmdArgs) error { return nil }
	return skel.CNIFuncs{Add: p.addLoopback, Check: p.checkLoopback, Del: nothing, GC: nothing, Status: nothing}
}

func (p *plugin) addLoopback(a *skel.CmdArgs) error {
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	addrs, err := link.SetUpLoopback(a.Netns)
	if err != nil {
		return fail(codeInternal, "set up the pod's lo", err)
	}
	var result types.Result
	if result = c.PrevResult; result == nil { // else what was made before is passed on
		r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, Interfaces: []*types100.Interface{{Name: loopback, Sandbox: a.Netns}}}
		for _, addr := range addrs {
			r.IPs = append(r.IPs, &types100.IPConfig{Interface: types100.Int(0), Address: *link.IPNet(addr)})
		}
		result = r
	}
	if result, err = result.GetAsVersion(c.CNIVersion); err != nil {
		return fail(codeInternal, "convert result", err)
	}
	if err := p.print(result); err != nil {
		return err
	}
	return nil
}

// loopback is the name of the interface.
const loopback = "lo"

func (p *plugin) checkLoopback(a *skel.CmdArgs) error {
	switch up, err := link.IsUp(a.Netns, loopback); {
	case err != nil:
		return fail(codeNetns, "look at the pod's lo", err)
	case !up:
		return fail(codeUnlike, "not as it should be", fmt.Sprintf("lo in %s is down", a.Netns))
	}
	return nil
}
