package egress

import (
	"os"
	"strconv"

	"github.com/middleway-net/middleway/bench"
	"github.com/middleway-net/middleway/lab"
)

// pasta is a TAP device whose TCP is translated to sockets without a stack in between: rootless Podman's way out by default.
type pasta struct{}

func (pasta) Name() string { return "pasta" }

func (pasta) Join(mtu int) (*bench.Pair, error) {
	return joinProgram(func(w *way) error {
		path, err := find("pasta")
		if err != nil {
			return err
		}
		ns, err := os.Open(w.From.Path())
		if err != nil {
			return err
		}
		defer ns.Close()
		p := lab.Exec(w.node, path, "--foreground", "--quiet", "--stderr", "--runas", "0", "--config-net", "--ipv4-only", "--mtu", strconv.Itoa(mtu), "--ns-ifname", "eth0",
			"--interface", outsideDevice, "--address", podAddr.Addr().String(), "--netmask", "24", "--gateway", gateway.String(),
			"--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none", "--netns", "/proc/self/fd/3")
		p.Files = []*os.File{ns} // pasta gives up the capabilities that another process's path takes
		return w.program(p)
	})
}
