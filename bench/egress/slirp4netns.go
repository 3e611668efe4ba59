package egress

import (
	"fmt"
	"os/exec"

	"github.com/middleway-net/middleway/bench"
	"github.com/middleway-net/middleway/lab"
)

// slirp4netns is a TAP device to libslirp, a TCP/IP stack of its own: rootless containers' way out for years.
type slirp4netns struct{}

func (slirp4netns) Name() string { return "slirp4netns" }

func (slirp4netns) Join(mtu int) (*bench.Pair, error) {
	return joinProgram(func(w *way) error {
		path, err := find("slirp4netns")
		if err != nil {
			return err
		}
		return w.program(lab.Exec(w.node, path, "--configure", fmt.Sprintf("--mtu=%d", mtu), "--cidr="+podAddr.Masked().String(), "--netns-type=path", w.From.Path(), "eth0"))
	})
}

// find finds a program of the machine.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errLacking, err)
	}
	return path, nil
}
