package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	wire "github.com/miekg/dns"
)

// load is how a server is asked.
type load struct {
	questions []string
	sockets   int // each of which asks on its own
	window    int // questions of a socket that are under way at once
	time      time.Duration
}

// result is what came of a load.
type result struct {
	answers   int
	lost      int
	took, cpu time.Duration // cpu is the server's
	median    time.Duration // from question to answer
	p99       time.Duration
}

func (r result) rate() float64   { return float64(r.answers) / r.took.Seconds() }
func (r result) perCPU() float64 { return float64(r.answers) / r.cpu.Seconds() }

// measure runs f and adds the server's processor time.
func (c *contestant) measure(f func() (result, error)) (result, error) {
	before, err := c.server.CPUTime()
	if err != nil {
		return result{}, err
	}
	r, err := f()
	if err != nil {
		return result{}, err
	}
	after, err := c.server.CPUTime()
	r.cpu = after - before
	return r, err
}

// run asks with our own client.
func (c *contestant) run(l load) (result, error) {
	queries := make([][]byte, len(l.questions))
	for i, question := range l.questions {
		name, qtype, _ := strings.Cut(question, " ")
		b, err := new(wire.Msg).SetQuestion(name, wire.StringToType[qtype]).SetEdns0(1232, false).Pack()
		if err != nil {
			return result{}, err
		}
		queries[i] = b
	}
	var (
		mu    sync.Mutex
		sum   result
		errs  []error
		times []time.Duration
		group sync.WaitGroup
	)
	began := time.Now()
	for i := range l.sockets {
		a, err := c.dial()
		if err != nil {
			return result{}, err
		}
		a.queries, a.at = queries, i*len(queries)/l.sockets
		group.Go(func() {
			defer a.conn.Close()
			err := a.run(l.window, began.Add(l.time))
			mu.Lock()
			defer mu.Unlock()
			sum.answers, sum.lost, errs, times = sum.answers+len(a.times), sum.lost+a.lost, append(errs, err), append(times, a.times...)
		})
	}
	group.Wait()
	sum.took = time.Since(began)
	if slices.Sort(times); len(times) > 0 {
		sum.median, sum.p99 = times[len(times)/2], times[len(times)*99/100]
	}
	return sum, errors.Join(errs...)
}

// asker is one socket of a load.
type asker struct {
	conn    net.Conn
	queries [][]byte
	at      int // the next question
	sent    [1 << 16]time.Time
	times   []time.Duration
	lost    int
}

func (c *contestant) dial() (*asker, error) {
	conn, err := c.client.Dial(context.Background(), "udp", c.addr)
	if err != nil {
		return nil, err
	}
	return &asker{conn: conn}, nil
}

// run keeps window questions under way until the end, each with an ID of its own.
func (a *asker) run(window int, end time.Time) error {
	id, under := uint16(0), 0
	b := make([]byte, 4096)
	for time.Now().Before(end) || under > 0 {
		for ; under < window && time.Now().Before(end); under++ {
			query := a.queries[a.at%len(a.queries)]
			a.at++
			id++
			copy(b, query)
			binary.BigEndian.PutUint16(b, id)
			a.sent[id] = time.Now()
			if _, err := a.conn.Write(b[:len(query)]); err != nil {
				return err
			}
		}
		_ = a.conn.SetReadDeadline(time.Now().Add(time.Second))
		n, err := a.conn.Read(b)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			a.lost += under
			under = 0
			continue
		}
		if err != nil {
			return err
		}
		if got := binary.BigEndian.Uint16(b); n > 12 && !a.sent[got].IsZero() {
			a.times = append(a.times, time.Since(a.sent[got]))
			a.sent[got] = time.Time{}
			under--
		}
	}
	return nil
}

// dnsperf's words (https://www.dns-oarc.net/tools/dnsperf).
var (
	perfDone = regexp.MustCompile(`Queries completed:\s+(\d+)`)
	perfLost = regexp.MustCompile(`Queries lost:\s+(\d+)`)
	perfTime = regexp.MustCompile(`Run time \(s\):\s+([\d.]+)`)
)

// runDNSPerf asks with dnsperf; file holds the questions.
func (c *contestant) runDNSPerf(l load, file string) (result, error) {
	host, port, _ := net.SplitHostPort(c.addr)
	var out []byte
	err := c.client.Do(func() (err error) {
		out, err = exec.Command("dnsperf", "-s", host, "-p", port, "-d", file, "-e", "-T", "1", "-c", strconv.Itoa(l.sockets),
			"-q", strconv.Itoa(l.sockets*l.window), "-l", strconv.Itoa(max(1, int(l.time.Seconds())))).CombinedOutput()
		return err
	})
	if err != nil {
		return result{}, fmt.Errorf("dnsperf: %w: %s", err, out)
	}
	number := func(r *regexp.Regexp) float64 {
		m := r.FindSubmatch(out)
		if m == nil {
			err = fmt.Errorf("dnsperf says no %v: %s", r, out)
			return 0
		}
		f, _ := strconv.ParseFloat(string(m[1]), 64)
		return f
	}
	r := result{answers: int(number(perfDone)), lost: int(number(perfLost)), took: time.Duration(number(perfTime) * float64(time.Second))}
	return r, err
}
