package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	defaultMTU    = 1500
	defaultDevice = "eth0"
	// ethernetOverhead is what a frame may have beyond the MTU, in bytes: two addresses, type, one VLAN tag.
	ethernetOverhead = 6 + 6 + 2 + 4
)

// LinkConfig describes a Link. The zero value is a perfect Ethernet of 1500 bytes.
type LinkConfig struct {
	MTU    int                // bytes, IP header included; default 1500
	Device string             // name of the device in each node's namespace; default eth0
	MACs   []net.HardwareAddr // of the nodes' devices; default NodeMAC(1), NodeMAC(2), …
	Faults Faults             // in all directions
}

// Link joins nodes by an Ethernet made in this process, which needs nothing of the kernel but TUN/TAP: one TAP device
// per node and a learning switch between them. Each ordered pair of nodes is a direction with faults and counters of
// its own; nodes are numbered from 0 in the order given to NewLink. All methods may be called at any time.
//
//	node 0: eth0 (TAP) ──reader──► switch ──► line 0→1 ──┬──now──► write eth0 of node 1
//	                                     └──► line 0→2 … └─later─► schedule ──► write
type Link struct {
	ports    []*port
	lines    [][]*line // lines[from][to]
	macs     macTable
	pool     framePool
	schedule *schedule
	wg       sync.WaitGroup
}

// port is the switch's end of one node's cable.
type port struct {
	number int
	tap    *os.File
	buf    []byte   // of the reader
	out    []*frame // of the reader
}

// NewLink makes a TAP device in each namespace, sets it up and forwards frames between them until Close.
func NewLink(cfg LinkConfig, nodes ...*Namespace) (*Link, error) {
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if cfg.Device == "" {
		cfg.Device = defaultDevice
	}
	l := &Link{}
	for i, node := range nodes {
		mac := NodeMAC(i + 1)
		if i < len(cfg.MACs) {
			mac = cfg.MACs[i]
		}
		tap, err := OpenTAP(node, cfg.Device, mac, cfg.MTU)
		if err != nil {
			l.closeTAPs()
			return nil, err
		}
		l.ports = append(l.ports, &port{number: i, tap: tap, buf: make([]byte, cfg.MTU+ethernetOverhead)})
	}
	for range nodes {
		row := make([]*line, len(nodes))
		for to := range row {
			row[to] = &line{pool: &l.pool, to: to}
		}
		l.lines = append(l.lines, row)
	}
	l.SetFaults(cfg.Faults)
	l.schedule = newSchedule()
	l.wg.Go(func() { l.schedule.run(l.later) })
	for _, p := range l.ports {
		l.wg.Go(func() { l.read(p) })
	}
	return l, nil
}

// Close removes the devices and returns when forwarding has ended. Delayed frames are lost.
func (l *Link) Close() error {
	err := l.closeTAPs()
	l.schedule.close()
	l.wg.Wait()
	return err
}

func (l *Link) closeTAPs() error {
	var errs []error
	for _, p := range l.ports {
		errs = append(errs, p.tap.Close())
	}
	return errors.Join(errs...)
}

// read forwards what a node sends until the link is closed or the node's device is gone.
func (l *Link) read(p *port) {
	for {
		n, err := p.tap.Read(p.buf)
		if err != nil {
			return
		}
		if n >= 14 {
			l.forward(p, p.buf[:n])
		}
	}
}

// forward sends a frame, which is borrowed, to the port of its destination, or to all others if that is unknown.
func (l *Link) forward(p *port, b []byte) {
	l.macs.learn(macAddr(b[6:12]), p.number)
	if to, ok := l.macs.lookup(macAddr(b[0:6])); ok {
		if to != p.number {
			l.send(p, to, b)
		}
		return
	}
	for to := range l.ports {
		if to != p.number {
			l.send(p, to, b)
		}
	}
}

// send passes a frame through the line from p to another port.
func (l *Link) send(p *port, to int, b []byte) {
	line := l.lines[p.number][to]
	if line.idle() {
		if _, err := l.ports[to].tap.Write(b); err != nil {
			line.refused()
		}
		return
	}
	now := time.Now()
	p.out = line.pass(b, now, p.out[:0])
	l.dispatch(line, p.out, now)
}

// dispatch delivers the frames of a line that are due and schedules the others.
func (l *Link) dispatch(line *line, frames []*frame, now time.Time) {
	for _, f := range frames {
		if line.wait(f, now) {
			l.schedule.add(f)
		} else {
			l.deliver(f)
		}
	}
	if line.needsAlarm() {
		l.schedule.add(&frame{line: line, due: now.Add(holdTime)})
	}
}

// later takes what comes out of the schedule.
func (l *Link) later(f *frame) {
	line := f.line
	if f.bytes == nil {
		now := time.Now()
		l.dispatch(line, line.expire(now, nil), now)
		return
	}
	l.deliver(f)
	line.delivered()
}

// deliver writes a frame to its receiver and takes it back into the pool.
func (l *Link) deliver(f *frame) {
	if _, err := l.ports[f.line.to].tap.Write(f.bytes); err != nil {
		f.line.refused()
	}
	l.pool.put(f)
}

// SetFaults gives all directions new faults, from now on, and starts their decisions anew from the seed. Each
// direction decides by itself.
func (l *Link) SetFaults(f Faults) {
	for from := range l.lines {
		for to := range l.lines[from] {
			l.SetFaultsBetween(from, to, f)
		}
	}
}

// SetFaultsBetween gives one direction new faults.
func (l *Link) SetFaultsBetween(from, to int, f Faults) {
	l.lines[from][to].setFaults(f, uint64(from)<<32|uint64(to))
}

// Partition cuts the link between the given nodes and all others, in both directions; within each of the two groups it
// goes on. It replaces an earlier partition and leaves faults as they are.
func (l *Link) Partition(group ...int) {
	for from := range l.lines {
		for to := range l.lines[from] {
			l.lines[from][to].setCut(slices.Contains(group, from) != slices.Contains(group, to))
		}
	}
}

// Heal ends a partition.
func (l *Link) Heal() { l.Partition() }

// Counters returns what happened so far to the frames from one node to another.
func (l *Link) Counters(from, to int) Counters { return l.lines[from][to].read() }

// String tells the frames of each direction, for logs.
func (l *Link) String() string {
	s := fmt.Sprintf("link of %d nodes", len(l.ports))
	for from := range l.lines {
		for to := range l.lines[from] {
			if c := l.Counters(from, to); c != (Counters{}) {
				s += fmt.Sprintf(", %d→%d %+v", from, to, c)
			}
		}
	}
	return s
}
