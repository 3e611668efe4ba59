package demo

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/lab/tool"
)

// requestWait is how long an answer is waited for: TCP has asked twice by then.
const requestWait = 2 * time.Second

// visitFact is a request as both pods saw it.
type visitFact struct {
	From   string         `json:"from"`
	To     string         `json:"to"`
	Server netip.AddrPort `json:"server"`
	Client netip.AddrPort `json:"client"` // the client's own
	Seen   netip.AddrPort `json:"seen"`   // by the server
	Took   Millis         `json:"requestMs"`
}

func (f *visitFact) text() string {
	return fmt.Sprintf("%s saw %v, %s's own: no NAT", f.To, f.Seen, f.From)
}

func (r *run) http(ctx context.Context) {
	for _, p := range r.places() {
		for i, a := range p.server.Addrs() {
			r.check(ctx, p.name+" "+family(a), func(ctx context.Context) (fact, error) {
				return visit(ctx, p, i)
			})
		}
	}
}

// visit makes one request, to the server's address of a family (0, 1), and checks that nothing translated it.
func visit(ctx context.Context, p place, family int) (fact, error) {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	own, server := p.client.Addrs()[family], netip.AddrPortFrom(p.server.Addrs()[family], playground.DefaultPort)
	v, err := tool.Get(ctx, p.client.Namespace().Dial, server)
	if err != nil {
		return nil, requestError(p.client, server, err)
	}
	f := &visitFact{p.client.Name(), p.server.Name(), server, v.Client, v.Seen, Millis(v.Took)}
	if v.Client.Addr() != own || v.Seen != v.Client {
		return nil, fmt.Errorf("the server saw %v where %s (%v) asked from %v: something translated the address", v.Seen, p.client.Name(), own, v.Client)
	}
	return f, nil
}

func requestError(from *playground.Pod, to netip.AddrPort, err error) error {
	if timedOut(err) {
		return fmt.Errorf("%s got no answer from http://%v within %v", from.Name(), to, requestWait)
	}
	return err
}
