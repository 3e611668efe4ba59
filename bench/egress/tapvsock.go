package egress

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/middleway-net/middleway/bench"
	"github.com/middleway-net/middleway/lab"
)

// tapVsockProgram is the program of bench/tapvsock. Default: bin/tapvsock, else the one in PATH.
var tapVsockProgram string

// tapVsock is gvisor-tap-vsock, the way out of the virtual machines of Podman and others: gVisor's stack, and Go's sockets. The device is read
// and written by the library itself (bench/tapvsock); a virtual machine has a socket and a process more.
type tapVsock struct{}

func (tapVsock) Name() string { return "gvisor-tap-vsock" }

func (tapVsock) Join(mtu int) (*bench.Pair, error) {
	return joinProgram(func(w *way) error {
		path, err := findTapVsock()
		if err != nil {
			return err
		}
		tap, err := lab.OpenTAP(w.From, "eth0", net.HardwareAddr{0x02, 0x6d, 0x77, 0, 0, 1}, mtu)
		if err != nil {
			return err
		}
		defer tap.Close()
		if err := w.From.AddAddr("eth0", podAddr); err != nil {
			return err
		}
		if err := w.From.AddRoute(all, gateway, "eth0"); err != nil {
			return err
		}
		p := lab.Exec(w.node, path, fmt.Sprintf("-mtu=%d", mtu), "-subnet="+podAddr.Masked().String(), "-gateway="+gateway.String())
		p.Files = []*os.File{tap}
		return w.program(p)
	})
}

func findTapVsock() (string, error) {
	if tapVsockProgram != "" {
		return filepath.Abs(tapVsockProgram)
	}
	built, err := filepath.Abs(filepath.Join("..", "..", "bin", "tapvsock"))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(built); err == nil {
		return built, nil
	}
	return find("tapvsock")
}
