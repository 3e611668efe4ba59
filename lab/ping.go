package lab

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/middleway-net/middleway/lab/tool"
)

// Ping sends one echo request with size bytes of payload from inside the namespace and waits for its reply until ctx
// ends; then the error is ctx's. An ICMP error about the request is returned as an error at once.
func (n *Namespace) Ping(ctx context.Context, dst netip.Addr, size int) (time.Duration, error) {
	answer, err := n.ping(ctx, dst, size)
	if err != nil {
		return 0, fmt.Errorf("namespace %s: ping %s: %w", n.name, dst, err)
	}
	return time.Duration(answer.RTT), nil
}

func (n *Namespace) ping(ctx context.Context, dst netip.Addr, size int) (tool.Answer, error) {
	p, err := n.Pinger(dst, tool.PingConfig{Size: size})
	if err != nil {
		return tool.Answer{}, err
	}
	defer p.Close()
	return p.Ask(ctx)
}

// Pinger returns one that asks from inside the namespace, from wherever it is used.
func (n *Namespace) Pinger(dst netip.Addr, c tool.PingConfig) (p *tool.Pinger, err error) {
	err = n.Do(func() (err error) {
		p, err = tool.NewPinger(dst, c)
		return err
	})
	return p, err
}
