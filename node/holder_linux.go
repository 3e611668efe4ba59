package node

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/middleway-net/middleway/tunnel/udp"
)

// portTaken says who has the tunnel's port, as far as this process can see it.
func (n *Node) portTaken(err error, port uint16) error {
	if !errors.Is(err, udp.ErrPortTaken) || n.config.Sockets != "" { // which are in another network namespace
		return err
	}
	who, remedy := vxlanDevice(port), "remove it once its network has gone (ip link del %s)"
	if who == "" {
		who, remedy = holder(port), "end it"
	} else {
		remedy = fmt.Sprintf(remedy, who)
		who += ", a VXLAN device of the kernel,"
	}
	if who == "" {
		return err
	}
	return failed(reasonPort, true, fmt.Errorf("open the tunnel: %s has this port (udp %v:%d); %s, or choose another port for all nodes by vxlan.port",
		who, n.config.Address, port, remedy))
}

// vxlanDevice returns the name of a VXLAN device of the kernel that receives on a port, "" if there is none.
func vxlanDevice(port uint16) string {
	links, err := netlink.LinkList()
	if err != nil {
		return ""
	}
	for _, l := range links {
		if v, ok := l.(*netlink.Vxlan); ok && v.Port == int(port) {
			return v.Name
		}
	}
	return ""
}

// holder names a process that has a UDP socket on a port, "" where none is seen.
func holder(port uint16) string {
	for _, table := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		for _, inode := range socketsOn(table, port) {
			if who := processWith("socket:[" + inode + "]"); who != "" {
				return who
			}
		}
	}
	return ""
}

// socketsOn returns the inodes of the sockets on a port in one of /proc/net's tables (proc_pid_net(5)).
func socketsOn(table string, port uint16) (inodes []string) {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	const local, inode = 1, 9 // columns
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) <= inode {
			continue
		}
		_, hex, _ := strings.Cut(fields[local], ":")
		if p, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(p) == port {
			inodes = append(inodes, fields[inode])
		}
	}
	return inodes
}

// processWith names a process that has an open file of that name.
func processWith(file string) string {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != file {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		return fmt.Sprintf("process %s (%s)", filepath.Base(dir), strings.TrimSpace(string(name)))
	}
	return ""
}
