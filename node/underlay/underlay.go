// Package underlay finds the node's way to the other nodes: the interface, its address by which peers know the node, and how
// large the packets are that it takes.
//
// Choose and ByAddress are pure functions over the interfaces of a network namespace. Interfaces, Watch and Toward ask the kernel
// about the namespace of the calling process; a rootless node has them asked about its parent's (package parent).
package underlay

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Config says how the address is found. At most one of Interface, CIDR and CanReach is set; without any, it is the interface on
// the way to everywhere (the default route), or the only one that has an address.
type Config struct {
	// Interface is its name, for example "eth0".
	Interface string `json:"interface,omitempty"`
	// CIDR is a range in which the address lies, for example 192.168.254.0/24.
	CIDR netip.Prefix `json:"cidr,omitzero"`
	// CanReach is an address that the kernel routes through the interface, for example 192.168.254.1.
	CanReach netip.Addr `json:"canReach,omitzero"`
	// IPv6: the nodes reach each other by IPv6. Default false, unless CIDR or CanReach is of that family.
	IPv6 bool `json:"ipv6,omitempty"`
}

// V6 reports whether the nodes reach each other by IPv6.
func (c Config) V6() bool {
	return c.IPv6 || c.CIDR.IsValid() && c.CIDR.Addr().Is6() || c.CanReach.Is6()
}

// Check finds the first mistake, and says which field it is and what it should be.
func (c Config) Check() error {
	given := 0
	for _, set := range []bool{c.Interface != "", c.CIDR.IsValid(), c.CanReach.IsValid()} {
		if set {
			given++
		}
	}
	switch {
	case given > 1:
		return errors.New("interface: cidr or canReach is given as well; leave one of them")
	case c.CIDR.IsValid() && (c.CIDR != c.CIDR.Masked() || c.CIDR.Addr().Is4In6()):
		return fmt.Errorf("cidr: %v is not a range like 192.168.254.0/24 or fd00:254::/64", c.CIDR)
	case c.CanReach.IsValid() && (c.CanReach.IsUnspecified() || c.CanReach.IsMulticast() || c.CanReach.Is4In6() || c.CanReach.Zone() != ""):
		return fmt.Errorf("canReach: %v is not an address like 192.168.254.1 or fd00:254::1", c.CanReach)
	case c.IPv6 && c.CIDR.IsValid() && c.CIDR.Addr().Is4():
		return fmt.Errorf("ipv6: cidr %v is IPv4; set ipv6 to false, or give a range like fd00:254::/64", c.CIDR)
	case c.IPv6 && c.CanReach.Is4():
		return fmt.Errorf("ipv6: canReach %v is IPv4; set ipv6 to false, or give an address like fd00:254::1", c.CanReach)
	}
	return nil
}

// Interface is a network interface.
type Interface struct {
	Name     string `json:"name"`
	Index    int    `json:"index"`
	MTU      int    `json:"mtu"` // bytes, IP header included
	Up       bool   `json:"up"`
	Loopback bool   `json:"loopback,omitempty"`
	Addrs    []Addr `json:"addrs,omitempty"`
}

// Addr is an address of an interface.
type Addr struct {
	Prefix netip.Prefix `json:"prefix"`
	// Passing: it is not to be relied on, being of link or host scope, tentative, deprecated or temporary (RFC 8981).
	Passing bool `json:"passing,omitempty"`
}

// Path is what the kernel says about the way toward an address.
type Path struct {
	Source netip.Addr
	MTU    int // bytes, IP header included
}

// Choice is the node's place on the underlay.
type Choice struct {
	Interface string     `json:"interface"`
	Address   netip.Addr `json:"address"`
	MTU       int        `json:"mtu"` // bytes, IP header included
	How       string     `json:"how"` // it was found
}

// notUnderlay are interfaces that carry pods, containers and tunnels, as patterns of path.Match: a node that announced such an
// address would be reached through what is to be built, or not at all. br- with twelve more characters is a network of Docker's;
// br-lan is many a router's own.
var notUnderlay = []string{
	"lo", "mw0", "flannel.*", "flannel-*", "vxlan*", "cni*", "cbr*", "docker*", "br-????????????", "veth*", "podman*", "lxcbr*",
	"lxc*", "cali*", "tunl0", "cilium_*", "weave*", "antrea-*", "kube-ipvs0", "kube-bridge", "nodelocaldns", "virbr*", "dummy*",
}

func (i Interface) mayBeUnderlay() bool {
	return !i.Loopback && !slices.ContainsFunc(notUnderlay, func(pattern string) bool {
		match, _ := path.Match(pattern, i.Name)
		return match
	})
}

// everywhere4 and everywhere6 are behind every default route. Asking for the way toward them sends nothing.
var (
	everywhere4 = netip.MustParseAddr("1.1.1.1")
	everywhere6 = netip.MustParseAddr("2606:4700:4700::1111")
)

// chooser is what the ways to choose have in common.
type chooser struct {
	interfaces []Interface
	v6         bool
	pods       []netip.Prefix
	toward     func(netip.Addr) (Path, error)
}

// Choose finds the underlay among the interfaces. Addresses in the ranges of pods are none. toward asks the kernel for a way. The
// error is one sentence with the remedy and, where there are some, the candidates.
func Choose(c Config, interfaces []Interface, pods []netip.Prefix, toward func(netip.Addr) (Path, error)) (Choice, error) {
	x := chooser{interfaces, c.V6(), pods, toward}
	switch {
	case c.Interface != "":
		return x.byName(c.Interface)
	case c.CIDR.IsValid():
		return x.byCIDR(c.CIDR)
	case c.CanReach.IsValid():
		return x.byReach(c.CanReach)
	}
	return x.byDefault()
}

// ByAddress finds the interface that has an address. Of a loopback interface, all addresses of its subnet are the machine's own.
func ByAddress(a netip.Addr, interfaces []Interface) (Choice, error) {
	for _, i := range interfaces {
		for _, own := range i.Addrs {
			if own.Prefix.Addr() != a && !(i.Loopback && a.Is4() && own.Prefix.Contains(a)) {
				continue
			}
			if !i.Up {
				return Choice{}, fmt.Errorf("address: %s, which has %v, is down; run `ip link set %s up`", i.Name, a, i.Name)
			}
			return Choice{i.Name, a, i.MTU, "address was given"}, nil
		}
	}
	x := chooser{interfaces: interfaces, v6: a.Is6()}
	return Choice{}, fmt.Errorf("address: no interface of this node has %v; set address to one that it has%s", a, x.candidates(": "))
}

func (x *chooser) family() string {
	if x.v6 {
		return "IPv6"
	}
	return "IPv4"
}

// addrs returns the addresses of an interface by which peers may know the node, in the kernel's order.
func (x *chooser) addrs(i Interface) (addrs []netip.Addr) {
	for _, own := range i.Addrs {
		a := own.Prefix.Addr()
		inPods := slices.ContainsFunc(x.pods, func(p netip.Prefix) bool { return p.Contains(a) })
		if a.Is6() == x.v6 && !own.Passing && !inPods && a.IsGlobalUnicast() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// usable returns the interfaces that could be chosen.
func (x *chooser) usable() (usable []Interface) {
	for _, i := range x.interfaces {
		if i.Up && i.mayBeUnderlay() && len(x.addrs(i)) > 0 {
			usable = append(usable, i)
		}
	}
	return usable
}

// maxCandidates bounds a sentence.
const maxCandidates = 8

// candidates lists what could be chosen, behind a separator; "" if nothing can.
func (x *chooser) candidates(separator string) string {
	var names []string
	for _, i := range x.usable() {
		names = append(names, fmt.Sprintf("%s (%s)", i.Name, joined(x.addrs(i))))
	}
	if len(names) == 0 {
		return ""
	}
	if more := len(names) - maxCandidates; more > 0 {
		names = append(names[:maxCandidates], fmt.Sprintf("%d more", more))
	}
	return separator + strings.Join(names, ", ")
}

// choices is candidates as the end of a sentence.
func (x *chooser) choices() string {
	if list := x.candidates(" one of "); list != "" {
		return list
	}
	return " an interface with a global " + x.family() + " address, of which this node has none"
}

func joined(addrs []netip.Addr) string {
	names := make([]string, len(addrs))
	for i, a := range addrs {
		names[i] = a.String()
	}
	return strings.Join(names, ", ")
}

// choose returns the address of the interface, and says if there were others.
func (x *chooser) choose(i Interface, a netip.Addr, how string) Choice {
	if n := len(x.addrs(i)); n > 1 {
		how += fmt.Sprintf("; it has %d %s addresses", n, x.family())
	}
	return Choice{i.Name, a, i.MTU, how}
}

func (x *chooser) byName(name string) (Choice, error) {
	at := slices.IndexFunc(x.interfaces, func(i Interface) bool { return i.Name == name })
	if at < 0 {
		return Choice{}, fmt.Errorf("underlay.interface: no interface of this node is called %q; choose%s", name, x.choices())
	}
	i := x.interfaces[at]
	if !i.Up {
		return Choice{}, fmt.Errorf("underlay.interface: %s is down; run `ip link set %s up`, or choose%s", name, name, x.choices())
	}
	addrs := x.addrs(i)
	if len(addrs) == 0 {
		other := chooser{interfaces: x.interfaces, v6: !x.v6, pods: x.pods}
		if len(other.addrs(i)) > 0 {
			return Choice{}, fmt.Errorf("underlay.interface: %s has no global %s address, but %s; set underlay.ipv6 to %v, or choose%s",
				name, x.family(), joined(other.addrs(i)), !x.v6, x.choices())
		}
		return Choice{}, fmt.Errorf("underlay.interface: %s has no global %s address; give it one, or choose%s", name, x.family(), x.choices())
	}
	return x.choose(i, addrs[0], "the interface's name was given"), nil
}

func (x *chooser) byCIDR(cidr netip.Prefix) (Choice, error) {
	for _, i := range x.usable() {
		for _, a := range x.addrs(i) {
			if cidr.Contains(a) {
				return x.choose(i, a, "the first address in "+cidr.String()), nil
			}
		}
	}
	for _, i := range x.interfaces {
		for _, own := range i.Addrs {
			if cidr.Contains(own.Prefix.Addr()) && !i.Up {
				return Choice{}, fmt.Errorf("underlay.cidr: %s, which has %v, is down; run `ip link set %s up`, or choose the range of%s",
					i.Name, own.Prefix.Addr(), i.Name, x.choices())
			}
		}
	}
	return Choice{}, fmt.Errorf("underlay.cidr: no interface has an address in %v; choose the range of%s", cidr, x.choices())
}

func (x *chooser) byReach(dst netip.Addr) (Choice, error) {
	way, err := x.toward(dst)
	switch {
	case errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH):
		return Choice{}, fmt.Errorf("underlay.canReach: no route leads to %v; add one, or use underlay.interface with%s", dst, x.choices())
	case err != nil:
		return Choice{}, fmt.Errorf("underlay.canReach: ask for the way to %v: %w", dst, err)
	}
	i, ok := x.owner(way.Source)
	if !ok || !i.mayBeUnderlay() || !slices.Contains(x.addrs(i), way.Source) {
		return Choice{}, fmt.Errorf("underlay.canReach: the way to %v starts at %v%s, which other nodes do not reach; choose an address behind%s",
			dst, way.Source, onInterface(i), x.choices())
	}
	c := x.choose(i, way.Source, "it is on the way to "+dst.String())
	c.MTU = min(c.MTU, way.MTU)
	return c, nil
}

func onInterface(i Interface) string {
	if i.Name == "" {
		return ""
	}
	return " on " + i.Name
}

// owner returns the interface that has an address.
func (x *chooser) owner(a netip.Addr) (Interface, bool) {
	for _, i := range x.interfaces {
		if slices.ContainsFunc(i.Addrs, func(own Addr) bool { return own.Prefix.Addr() == a }) {
			return i, true
		}
	}
	return Interface{}, false
}

// byDefault takes the interface of the default route with the source that the kernel prefers there, unless that is a passing
// one; or the only interface there is.
func (x *chooser) byDefault() (Choice, error) {
	everywhere := everywhere4
	if x.v6 {
		everywhere = everywhere6
	}
	if way, err := x.toward(everywhere); err == nil {
		i, ok := x.owner(way.Source)
		if addrs := x.addrs(i); ok && i.mayBeUnderlay() && len(addrs) > 0 {
			if !slices.Contains(addrs, way.Source) {
				way.Source = addrs[0]
			}
			return x.choose(i, way.Source, "it has the default route"), nil
		}
	}
	usable := x.usable()
	if len(usable) == 1 {
		return x.choose(usable[0], x.addrs(usable[0])[0], "it is the only interface with a global "+x.family()+" address"), nil
	}
	remedy := "set address, or underlay.interface to" + x.choices()
	if other := (chooser{interfaces: x.interfaces, v6: !x.v6, pods: x.pods}); len(usable) == 0 && len(other.usable()) > 0 {
		remedy = fmt.Sprintf("set underlay.ipv6 to %v, or give an interface an %s address", !x.v6, x.family())
	}
	return Choice{}, fmt.Errorf("address: no %s default route tells which interface leads to the other nodes; %s", x.family(), remedy)
}
