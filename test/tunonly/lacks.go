//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A report is what a machine says when it is up.
type report struct {
	Kernel     string // release
	Interfaces []string
	Modules    []string // loaded
	Findings   []finding
}

// A finding is the outcome of one try.
type finding struct {
	Name  string
	Want  bool   // whether it should be there
	There bool   // whether it is
	Said  string // by the kernel, where it is not there
}

func (f finding) String() string {
	state := "there"
	if !f.There {
		state = fmt.Sprintf("missing  %s", f.Said)
	}
	if f.There != f.Want {
		state += "  WRONG"
	}
	return fmt.Sprintf("%-30s %s", f.Name, state)
}

// examine finds out by trying what the kernel has.
func examine(ipv6 bool) report {
	var name unix.Utsname
	var r report
	if unix.Uname(&name) == nil {
		r.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if interfaces, err := os.ReadDir("/sys/class/net"); err == nil {
		for _, i := range interfaces {
			r.Interfaces = append(r.Interfaces, i.Name())
		}
	}
	if modules, err := os.ReadFile("/proc/modules"); err == nil {
		for line := range strings.Lines(string(modules)) {
			r.Modules = append(r.Modules, strings.Fields(line)[0])
		}
	}
	slices.Sort(r.Modules)

	r.try("tun, with several queues", true, nil, openTUN)
	r.try("IPv6 sockets", ipv6, unix.EAFNOSUPPORT, openSocket(unix.AF_INET6, unix.SOCK_DGRAM, 0))
	r.try("user namespaces", true, nil, enterUserNamespace)
	loopback := net.IPv4(127, 0, 0, 1)
	for _, link := range []netlink.Link{
		&netlink.Vxlan{VxlanId: 1, Port: 4789},
		&netlink.Bridge{},
		&netlink.Veth{PeerName: "try1"},
		&netlink.Dummy{},
		&netlink.Macvlan{},
		&netlink.IPVlan{},
		&netlink.Vlan{VlanId: 1},
		&netlink.Geneve{ID: 1, Remote: loopback},
		&netlink.Gretap{Local: loopback},
		&netlink.Wireguard{},
		&netlink.Ifb{},
	} {
		r.try(link.Type()+" interfaces", false, unix.EOPNOTSUPP, func() error { return addLink(link) })
	}
	r.try("nftables (netlink)", false, unix.EPROTONOSUPPORT, openSocket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER))
	r.try("iptables (socket option)", false, unix.ENOPROTOOPT, tryIPTables)
	return r
}

// try adds what came of one try. That a thing is missing counts only if the kernel said so with the error lack.
func (r *report) try(name string, want bool, lack error, f func() error) {
	got := finding{Name: name, Want: want, There: true}
	if err := f(); err != nil {
		got.There, got.Said = !want && !errors.Is(err, lack), err.Error()
	}
	r.Findings = append(r.Findings, got)
}

// wrong returns what is not as it should be.
func (r report) wrong() error {
	var errs []error
	for _, f := range r.Findings {
		if f.There != f.Want {
			errs = append(errs, fmt.Errorf("%s: there %v, want %v %s", f.Name, f.There, f.Want, f.Said))
		}
	}
	return errors.Join(errs...)
}

// addLink makes an interface and removes it at once.
func addLink(link netlink.Link) error {
	attrs := link.Attrs()
	attrs.Name, attrs.MTU, attrs.TxQLen = "try0", 1400, -1
	if lo, err := netlink.LinkByName("lo"); err == nil {
		attrs.ParentIndex = lo.Attrs().Index
	}
	if err := netlink.LinkAdd(link); err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

func openSocket(domain, kind, protocol int) func() error {
	return func() error {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
}

func enterUserNamespace() error {
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--net", "--mount", "true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: userID, Gid: userID}}
	return cmd.Run()
}

func openTUN() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	request, err := unix.NewIfreq("try%d")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_MULTI_QUEUE)
	return unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, request)
}

// tryIPTables asks for the table that iptables(8) asks for first: struct ipt_getinfo of linux/netfilter_ipv4/ip_tables.h, 84
// bytes that begin with the table's name.
func tryIPTables() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const getInfo = 64 // IPT_SO_GET_INFO
	info := [84]byte{'f', 'i', 'l', 't', 'e', 'r'}
	size := uint32(len(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, getInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
