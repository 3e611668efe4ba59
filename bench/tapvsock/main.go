// Command tapvsock is gvisor-tap-vsock between a TAP device and the sockets of the network namespace where it runs, for bench/egress to
// compare with. Frames go from the device into the library by one read each, and back by one write, without the unix socket and the second
// process that stand between a virtual machine and it. It is a Go module of its own, so that nothing of it reaches ours.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/containers/gvisor-tap-vsock/pkg/virtualnetwork"
)

func main() {
	mtu := flag.Int("mtu", 1500, "of the device, in bytes, IP header included")
	subnet := flag.String("subnet", "10.244.1.0/24", "on the device")
	gateway := flag.String("gateway", "10.244.1.1", "our address there")
	flag.Parse()
	if err := run(*mtu, *subnet, *gateway); err != nil {
		fmt.Fprintln(os.Stderr, "tapvsock:", err)
		os.Exit(1)
	}
}

// device is the descriptor of the TAP device.
const device = 3

func run(mtu int, subnet, gateway string) error {
	n, err := virtualnetwork.New(&types.Configuration{MTU: mtu, Subnet: subnet, GatewayIP: gateway, GatewayMacAddress: "5a:94:ef:e4:0c:dd"})
	if err != nil {
		return err
	}
	if err := syscall.SetNonblock(device, true); err != nil {
		return fmt.Errorf("descriptor 3 is to be a TAP device: %w", err)
	}
	return n.AcceptBess(context.Background(), frames{os.NewFile(device, "tap")})
}

// frames is the device as a connection of which each read and each write is a frame, what the library calls BESS.
type frames struct{ *os.File }

func (frames) LocalAddr() net.Addr  { return &net.UnixAddr{Name: "tap"} }
func (frames) RemoteAddr() net.Addr { return &net.UnixAddr{Name: "tap"} }
