package cni

import (
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/middleway-net/middleway/cni/link"
)

// scopeLink is the kernel's number of the scope of routes without a next hop (RT_SCOPE_LINK).
const scopeLink = 253

// merge appends an interface to what the plugins before us have made; prev may be nil. The result is for the given version
// of the specification.
func merge(prev *types100.Result, g grant, ifName, sandbox, cniVersion string) *types100.Result {
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	if prev != nil {
		r.Interfaces, r.IPs, r.Routes, r.DNS = prev.Interfaces, prev.IPs, prev.Routes, prev.DNS
	}
	r.Interfaces = append(r.Interfaces, &types100.Interface{Name: ifName, Sandbox: sandbox, Mtu: g.MTU})
	for _, a := range g.Addrs {
		ip := &types100.IPConfig{Interface: types100.Int(len(r.Interfaces) - 1), Address: *link.HostNet(a)}
		if gw := gatewayOf(a, g.Gateways); gw.IsValid() {
			ip.Gateway = gw.AsSlice()
		}
		r.IPs = append(r.IPs, ip)
	}
	for _, route := range link.Routes(g.Gateways) {
		to := &types.Route{Dst: *link.IPNet(route.Dst)}
		if route.Gateway.IsValid() {
			to.GW = route.Gateway.AsSlice()
		} else {
			to.Scope = types100.Int(scopeLink)
		}
		r.Routes = append(r.Routes, to)
	}
	forVersion(r, cniVersion)
	return r
}

// forVersion takes out what came with 1.1.0 where an earlier version is spoken: the library leaves it in.
func forVersion(r *types100.Result, cniVersion string) {
	if newest, err := version.GreaterThanOrEqualTo(cniVersion, "1.1.0"); err != nil || newest {
		return
	}
	for _, i := range r.Interfaces {
		i.Mtu, i.SocketPath, i.PciID = 0, "", ""
	}
	for _, route := range r.Routes {
		route.MTU, route.AdvMSS, route.Priority, route.Table, route.Scope = 0, 0, 0, nil, nil
	}
}

// expected returns what prevResult says of our interface, as far as we made it: a plugin behind us may have taken some of
// it away or changed it.
func expected(prev *types100.Result, g grant, ifName, sandbox string) (link.Expected, bool) {
	e := link.Expected{Netns: sandbox, Name: ifName, MTUs: []int{g.MTU}}
	index := -1
	for i, dev := range prev.Interfaces {
		if dev.Name == ifName && dev.Sandbox == sandbox {
			index = i
			if dev.Mtu != 0 && dev.Mtu != g.MTU {
				e.MTUs = append(e.MTUs, dev.Mtu)
			}
		}
	}
	for _, ip := range prev.IPs {
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if ok && ip.Interface != nil && *ip.Interface == index {
			e.Addrs = append(e.Addrs, a.Unmap())
		}
	}
	for _, ours := range link.Routes(g.Gateways) {
		for _, r := range prev.Routes {
			gw, _ := netip.AddrFromSlice(r.GW)
			if want := link.IPNet(ours.Dst); r.Dst.String() == want.String() && gw.Unmap() == ours.Gateway {
				e.Routes = append(e.Routes, ours)
				break
			}
		}
	}
	return e, index >= 0
}

func gatewayOf(a netip.Addr, gateways []netip.Addr) netip.Addr {
	for _, g := range gateways {
		if g.Is4() == a.Is4() {
			return g
		}
	}
	return netip.Addr{}
}
