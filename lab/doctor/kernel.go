package doctor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// makeLink makes a device of a kind in this process's namespace, which ends with the process.
func makeLink(what string, device func(netlink.LinkAttrs) netlink.Link) func() (string, error) {
	return func() (string, error) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "doctor-" + what
		return "made", missingInKernel(netlink.LinkAdd(device(attrs)), what)
	}
}

func newVeth(a netlink.LinkAttrs) netlink.Link {
	pair := netlink.NewVeth(a)
	pair.PeerName = "doctor-peer"
	return pair
}

func newBridge(a netlink.LinkAttrs) netlink.Link { return &netlink.Bridge{LinkAttrs: a} }

func newVXLAN(a netlink.LinkAttrs) netlink.Link {
	return &netlink.Vxlan{LinkAttrs: a, VxlanId: 1, Port: int(vxlan.DefaultPort)}
}

// giveIPv6Address gives lo an address.
func giveIPv6Address() (string, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return "", fmt.Errorf("find lo: %w", err)
	}
	a := netip.MustParsePrefix("fd00:10:244:1::2/128")
	err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD})
	switch {
	case errors.Is(err, unix.EACCES):
		return "", fmt.Errorf("IPv6 is turned off in new network namespaces: %w", err)
	case err != nil:
		return "", missingInKernel(err, "IPv6")
	}
	return "an interface of a new namespace takes one", nil
}

// tableName is that of the nftables table that is made.
const tableName = "middleway-doctor"

// makeTable makes a table of nf_tables in this process's namespace, by a batch of one message (nfnetlink, NFT_MSG_NEWTABLE).
func makeTable() (string, error) {
	const noNetfilter = "nf_tables"
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return "", missingInKernel(err, noNetfilter)
	}
	defer unix.Close(fd)
	wait := unix.NsecToTimeval(trialPatience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		return "", err
	}
	table := netfilterMessage(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_ACK, unix.NFPROTO_IPV4, 0)
	table.AddData(nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(tableName)))
	batch := netfilterMessage(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES).Serialize()
	batch = append(batch, table.Serialize()...)
	batch = append(batch, netfilterMessage(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES).Serialize()...)
	if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return "", fmt.Errorf("send to nf_tables: %w", err)
	}
	return "a table was made", missingInKernel(acknowledged(fd), noNetfilter)
}

// netfilterMessage returns a message to a part of netfilter.
func netfilterMessage(kind, flags int, family uint8, resource uint16) *nl.NetlinkRequest {
	m := nl.NewNetlinkRequest(kind, flags)
	m.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0, ResId: resource<<8 | resource>>8})
	return m
}

// acknowledged reads the first answer, which carries an error number, 0 for none.
func acknowledged(fd int) error {
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return fmt.Errorf("receive from nf_tables: %w", err)
	}
	if n < unix.SizeofNlMsghdr+4 || nl.NativeEndian().Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return errors.New("nf_tables gave an answer that is none")
	}
	if number := -int32(nl.NativeEndian().Uint32(buf[unix.SizeofNlMsghdr:])); number != 0 {
		return unix.Errno(number)
	}
	return nil
}
