package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/cni/netns"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/perf"
)

// Roles of the load generators: package perf in a process of its own at each end, which does nothing else.
const (
	serverRole = "bench-server"
	clientRole = "bench-client"
)

func init() {
	lab.RegisterRole(serverRole, serverMain)
	lab.RegisterRole(clientRole, clientMain)
}

// generatorConfig is a generator's argument, as JSON.
type generatorConfig struct {
	Server netip.AddrPort
	Test   perf.Test
	Pinned bool             // to a processor of its own
	To     []netip.AddrPort // where streams of TCP go. Default: to the server
	Port   uint16           // where they arrive. Default: one that is free
	Doors  []string         // paths of the network namespaces where they arrive as well
}

// What a client prints beside its result.
const (
	begun = "begun" // the time that counts
	over  = "over"
)

// generatorEnv: signals by which Go preempts goroutines would only interrupt the system calls of streams.
var generatorEnv = []string{"GODEBUG=asyncpreemptoff=1"}

// Run measures a pair once.
func Run(p *Pair, t perf.Test) (Result, error) { return p.run(generatorConfig{Test: t}) }

func (p *Pair) run(c generatorConfig) (r Result, err error) {
	c.Server = netip.AddrPortFrom(p.Addr, perf.DefaultPort)
	if err := p.serve(c); err != nil {
		return r, err
	}
	if p.Control.IsValid() {
		c.Server = p.Control
	}
	if c.To == nil {
		c.To = p.Streams
	}
	arg, err := json.Marshal(c)
	if err != nil {
		return r, err
	}
	client := lab.Command(p.From, clientRole, string(arg))
	client.Env = generatorEnv
	w := &clientOutput{daemons: p.Daemons}
	client.Output = w
	if err := client.Start(); err != nil {
		return r, err
	}
	if err := client.Wait(); err != nil {
		return r, fmt.Errorf("load generator: %w: %s", err, strings.TrimSpace(client.Tail()))
	}
	return w.result()
}

// serve starts the server of the load, unless it runs.
func (p *Pair) serve(c generatorConfig) error {
	if p.server != nil {
		return nil
	}
	if len(p.doors) > 0 || len(p.Streams) > 0 {
		c.Port = doorPort
	}
	for _, n := range p.doors {
		c.Doors = append(c.Doors, n.Path())
	}
	arg, err := json.Marshal(c)
	if err != nil {
		return err
	}
	server := lab.Command(p.To, serverRole, string(arg))
	server.Env = generatorEnv
	if err := p.start(serverRole, server); err != nil {
		return err
	}
	p.server = server
	return nil
}

// clientOutput reads what a client prints, and looks at the daemons' processor time at the begin and at the end of what counts.
type clientOutput struct {
	daemons    []*lab.Process
	rest       []byte // of a line
	begin, end moment
	measured   *perf.Result
	err        error
}

// moment is the processor time that was used up to a time.
type moment struct {
	at  time.Time
	cpu time.Duration
}

func (w *clientOutput) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, whole := strings.Cut(string(w.rest), "\n")
		if !whole {
			return len(b), nil
		}
		w.rest = []byte(rest)
		var err error
		switch line {
		case begun:
			w.begin, err = w.now()
		case over:
			w.end, err = w.now()
		default:
			w.measured = new(perf.Result)
			err = json.Unmarshal([]byte(line), w.measured)
		}
		w.err = errors.Join(w.err, err)
	}
}

func (w *clientOutput) now() (m moment, err error) {
	m.at = time.Now()
	for _, d := range w.daemons {
		used, err := d.CPUTime()
		if err != nil {
			return m, err
		}
		m.cpu += used
	}
	return m, nil
}

func (w *clientOutput) result() (r Result, err error) {
	if w.err != nil || w.measured == nil || !w.end.at.After(w.begin.at) {
		return r, errors.Join(errors.New("the load generator printed something else than its result"), w.err)
	}
	r.Result = *w.measured
	share := float64(w.end.cpu-w.begin.cpu) / float64(w.end.at.Sub(w.begin.at))
	r.DaemonCPU = time.Duration(share * float64(r.Elapsed))
	return r, nil
}

// clientMain is a client's process.
func clientMain(args []string) int {
	var c generatorConfig
	err := json.Unmarshal([]byte(args[0]), &c)
	if err != nil {
		return complain(err)
	}
	client := perf.Client{
		Inside: c.inside(0),
		To:     c.To,
		Begin:  func() { fmt.Println(begun) },
		End:    func() { fmt.Println(over) },
	}
	r, err := client.Run(context.Background(), c.Server, c.Test)
	if err != nil {
		return complain(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return complain(err)
	}
	return 0
}

// serverMain is a server's process. It runs until it is killed.
func serverMain(args []string) int {
	var c generatorConfig
	err := json.Unmarshal([]byte(args[0]), &c)
	if err != nil {
		return complain(err)
	}
	l, err := net.Listen("tcp", c.Server.String())
	if err != nil {
		return complain(err)
	}
	fmt.Println(ready)
	s := perf.Server{Inside: c.inside(runtime.NumCPU() - 1), StreamPort: c.Port}
	for _, path := range c.Doors {
		s.Doors = append(s.Doors, func(f func() error) error { return netns.Do(path, f) })
	}
	return complain(s.Serve(context.Background(), l))
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// inside returns what runs the streams' threads: pinned to a processor, or wherever the kernel lets them.
func (c generatorConfig) inside(processor int) func(func() error) error {
	if !c.Pinned {
		return nil
	}
	return func(f func() error) error {
		result := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // for ever: the thread ends with the goroutine
			var set unix.CPUSet
			set.Set(processor)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				result <- err
				return
			}
			result <- f()
		}()
		return <-result
	}
}
