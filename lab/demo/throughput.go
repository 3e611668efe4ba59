package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/perf"
	"github.com/middleway-net/middleway/lab/playground"
)

// rounds is how often each contestant has its turn: what else happens on the machine then meets all of them.
const rounds = 2

// contestant is a way from one pod to another.
type contestant struct {
	name     string
	from, to *lab.Namespace
	addr     netip.Addr // of to
}

// rateFact is throughput beside the kernel's.
type rateFact struct {
	Congestion string  `json:"congestion"` // control of all contestants
	Seconds    float64 `json:"seconds"`    // of each contestant
	Middleway  float64 `json:"middlewayGbits"`
	Kernel     string  `json:"kernel"`                // what it is compared with
	KernelRate float64 `json:"kernelGbits,omitempty"` // 0 if it is missing
	Ratio      float64 `json:"ratio,omitempty"`       // Middleway to KernelRate
	Missing    string  `json:"missing,omitempty"`     // why there is nothing to compare with
}

func (f *rateFact) text() string {
	if f.Missing != "" {
		return fmt.Sprintf("middleway %.1f Gbit/s; %s", f.Middleway, f.Missing)
	}
	return fmt.Sprintf("middleway %.1f Gbit/s, %s %.1f: %.2f of it (%s)", f.Middleway, f.Kernel, f.KernelRate, f.Ratio, f.Congestion)
}

func (r *run) throughput(ctx context.Context) {
	baselines := []baseline{kernelBridge, kernelVXLAN}
	for i, p := range r.places() {
		r.check(ctx, p.name, func(ctx context.Context) (fact, error) {
			kernel, err := baselines[i](r.config.Underlay == playground.Userspace)
			defer kernel.close()
			f := &rateFact{Kernel: kernel.name, Congestion: congestion(p.client.Namespace())}
			racers := []contestant{{"middleway", p.client.Namespace(), p.server.Namespace(), p.server.Addrs()[0]}}
			switch {
			case errors.Is(err, errMissing):
				f.Missing = err.Error()
			case err != nil:
				return nil, fmt.Errorf("set up %s: %w", kernel.name, err)
			default:
				racers = append(racers, kernel.contestant)
			}
			rates, err := race(ctx, racers, f.Congestion, r.config.Duration)
			if err != nil {
				return nil, err
			}
			f.Seconds, f.Middleway = r.config.Duration.Seconds(), rates[0].Gbits()
			if len(rates) > 1 {
				f.KernelRate = rates[1].Gbits()
				f.Ratio = f.Middleway / f.KernelRate
			}
			return f, nil
		})
	}
}

// congestion returns the control that all contestants use: cubic, the default of most machines, whatever this machine's is;
// where the kernel has none, reno, which it always has. It is never bbr, under which the kernel's rows idle.
func congestion(ns *lab.Namespace) string {
	l, err := lab.Sockets{Namespace: ns, Congestion: "cubic"}.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "reno"
	}
	l.Close()
	return "cubic"
}

// race measures the contestants in turn, every second round in the opposite order.
func race(ctx context.Context, racers []contestant, congestion string, d time.Duration) ([]perf.Result, error) {
	rates := make([]perf.Result, len(racers))
	order := make([]int, len(racers))
	for i := range order {
		order[i] = i
	}
	for range rounds {
		for _, i := range order {
			rate, err := measure(ctx, racers[i], congestion, d/rounds)
			if err != nil {
				return nil, fmt.Errorf("throughput of %s: %w", racers[i].name, err)
			}
			rates[i].Bytes += rate.Bytes
			rates[i].Elapsed += rate.Elapsed
		}
		slices.Reverse(order)
	}
	return rates, nil
}

// measure sends a TCP stream from one pod to the other, and counts what arrives within d, after a fifth of d in which the connection
// gets up to speed.
func measure(ctx context.Context, c contestant, congestion string, d time.Duration) (perf.Result, error) {
	l, err := lab.Sockets{Namespace: c.to}.Listen("tcp", netip.AddrPortFrom(c.addr, 0).String())
	if err != nil {
		return perf.Result{}, err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- (&perf.Server{Inside: c.to.Do}).Serve(serving, l) }()
	client := perf.Client{Inside: c.from.Do, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, requestWait)
		defer cancel()
		conn, err := lab.Sockets{Namespace: c.from}.Dial(ctx, network, addr)
		if timedOut(err) {
			err = fmt.Errorf("%s got no connection to %v within %v", c.from.Name(), c.addr, requestWait)
		}
		return conn, err
	}}
	r, err := client.Run(ctx, l.Addr().(*net.TCPAddr).AddrPort(), perf.Test{Congestion: congestion, WarmUp: d / 5, Time: d})
	stop()
	if timedOut(err) && ctx.Err() == nil {
		err = fmt.Errorf("nothing more came from %s to %s", c.from.Name(), c.to.Name())
	}
	return r, errors.Join(err, <-served)
}

// baseline makes the kernel's own network. What it returns is to be closed also after an error, and has its name then.
type baseline func(userspace bool) (kernel, error)

// kernel is a contestant that was made for the comparison.
type kernel struct {
	contestant
	closers []io.Closer // in the order in which they were made
}

func (k *kernel) close() {
	for _, c := range slices.Backward(k.closers) {
		_ = c.Close() // its namespaces go, and the rest with them
	}
}

// errMissing is the error of a baseline that this kernel does not have.
var errMissing = errors.New("nothing to compare with")

// missing turns the kernel's refusal to make a device into one sentence.
func missing(err error, what string) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: this kernel has no %s", errMissing, what)
	}
	return err
}

// baselineMTU is that of the pods of a flannel node on an Ethernet, in bytes, IP header included.
const baselineMTU = 1450

// kernelBridge joins two pods of one node by veth and a bridge.
func kernelBridge(bool) (kernel, error) {
	k := kernel{contestant: contestant{name: "kernel bridge"}}
	ns, err := k.namespace("kernel-node")
	if err != nil {
		return k, err
	}
	b, err := lab.NewKernelBridge(ns, baselineMTU, lab.PodCIDR4(1))
	if err != nil {
		return k, missing(err, "bridge")
	}
	k.closers = append(k.closers, b)
	return k, k.join(b, b)
}

// kernelVXLAN joins two pods of two nodes as flannel does, over an underlay like middleway's.
func kernelVXLAN(userspace bool) (kernel, error) {
	k := kernel{contestant: contestant{name: "kernel VXLAN"}}
	var nodes []*lab.Namespace
	for i := range 2 {
		ns, err := k.namespace(fmt.Sprintf("kernel-node-%d", i+1))
		if err != nil {
			return k, err
		}
		nodes = append(nodes, ns)
	}
	u, err := lab.NewUnderlay(lab.UnderlayConfig{Userspace: userspace}, nodes...)
	if err != nil {
		return k, err
	}
	k.closers = append(k.closers, u)
	var bridges []*lab.KernelBridge
	for i, ns := range nodes {
		v, err := lab.NewKernelVXLAN(ns, lab.KernelVXLANConfig{Own: lab.PlanVTEPs(i + 1)[:1]})
		if err != nil {
			return k, missing(err, "vxlan")
		}
		k.closers = append(k.closers, v)
		if err := v.AddPeer(lab.PlanVTEPs(2 - i)[:1]...); err != nil {
			return k, err
		}
		bridges = append(bridges, v.KernelBridge)
	}
	return k, k.join(bridges[0], bridges[1])
}

func (k *kernel) namespace(name string) (*lab.Namespace, error) {
	ns, err := lab.NewNamespace(name)
	if err == nil {
		k.closers = append(k.closers, ns)
	}
	return ns, err
}

// join adds a pod to each bridge.
func (k *kernel) join(from, to *lab.KernelBridge) error {
	a, err := from.AddPod()
	if err != nil {
		return missing(err, "veth")
	}
	b, err := to.AddPod()
	if err != nil {
		return missing(err, "veth")
	}
	k.from, k.to, k.addr = a.Namespace, b.Namespace, b.Addrs[0]
	return nil
}
