package tunnel

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/middleway-net/middleway/tunnel/hello"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// State says whether a peer answers.
type State string

// The states of a peer. One that has never answered may be down, or of a version that does not answer.
const (
	Unknown State = "unknown"
	Up      State = "up"
	Down    State = "down"
)

// Times of the checks.
const (
	// answerTime is how long a round waits for its answers.
	answerTime = time.Second
	// steadyTime is from one round to the next when nothing is amiss, a fifth more or less.
	steadyTime = 10 * time.Second
	// patience is how many rounds in a row must miss something before it is believed: one may be lost to chance.
	patience = 3
	// hurry is how many rounds in a row are unanswered before they come as slowly as steady ones.
	hurry = 30
)

// trainLen is how many datagrams a train of a check has, where that many fit.
const trainLen = 3

// leastMTU6 is what IPv6 takes of every way (RFC 8200, section 5): senders do not believe in less.
const leastMTU6 = 1280

// rungs is how many sizes one round tries in search of the largest that arrives.
const rungs = 8

// probe is one message of a round.
type probe struct {
	size     int // of the inner packet, bytes
	train    bool
	answered bool
}

// path is what was found out about the way to one peer. The steps of a round are: begin returns what is to be sent, take
// takes each answer, end judges and says when the next one begins.
//
//	unknown ──answer──► up ◄──answer── down
//	                    └──3 rounds without──►┘
type path struct {
	t    *Tunnel
	peer *peer

	state State
	since time.Time
	rtt   time.Duration

	announced hello.Message // the peer's last answer; Version 0 if there was none since it went down
	toldMTU   uint16        // the announced MTU that was logged or needed no logging

	nonce   uint64
	began   time.Time
	probes  []probe // of the round under way, nil between rounds
	next    time.Time
	silent  int // rounds in a row without an answer
	tooBig  int // rounds in a row in which a packet of the size in use did not arrive, but a small one did
	lost    int // rounds in a row in which a train did not arrive, but a single datagram of its size did
	reached int // size up to which packets arrive, where that is less than wanted; else 0
	low     int // in a search: packets of low bytes arrive, those of high do not
	high    int
	noTrain bool   // trains do not arrive
	refused string // why the route takes no trains
}

// newPath returns a path whose first round is at begin.
func newPath(t *Tunnel, p *peer, now, begin time.Time) *path {
	return &path{t: t, peer: p, state: Unknown, since: now, next: begin}
}

// want is the largest packet that both ends have room for.
func (p *path) want() int {
	if p.announced.MTU == 0 {
		return p.t.config.MTU
	}
	return min(p.t.config.MTU, int(p.announced.MTU))
}

// usable is the largest packet that arrives, as far as known.
func (p *path) usable() int {
	if p.reached != 0 {
		return min(p.reached, p.want())
	}
	return p.want()
}

// searching reports whether the largest size that arrives lies between low and high.
func (p *path) searching() bool { return p.high-p.low > 1 }

// begin starts a round and returns its probes: first a small one, which the others are judged by.
func (p *path) begin(now time.Time) []probe {
	var nonce [8]byte
	crand.Read(nonce[:]) // never fails
	p.nonce = binary.NativeEndian.Uint64(nonce[:])
	p.began = now
	p.probes = append(p.probes[:0], probe{size: hello.LeastProbe})
	if p.state != Up {
		return p.probes
	}
	want, usable := p.want(), p.usable()
	p.probes = append(p.probes, probe{size: want})
	if usable != want {
		p.probes = append(p.probes, probe{size: usable})
	}
	low, high := p.low, p.high
	if !p.searching() && usable < want {
		low, high = usable, want // has it become better?
	}
	for i := range rungs {
		if size := low + (high-low)*(i+1)/(rungs+1); high-low > 1 && size > low && size < high {
			p.probes = append(p.probes, probe{size: size})
		}
	}
	if p.t.uses.Segment && p.announced.Can.Has(hello.Trains) {
		if n := min(trainLen, udp.MaxTrainLen/(vxlan.Overhead+usable)); n > 1 {
			p.probes = append(p.probes, slices.Repeat([]probe{{size: usable, train: true}}, n)...)
		}
	}
	return p.probes
}

// take takes a message that came from the peer's address. Only what answers a probe of the round under way is known to be the
// peer's: others may send from its address, on a shared loopback device for example.
func (p *path) take(m hello.Message, now time.Time) {
	if m.Kind == hello.Probe {
		if p.probes == nil && (p.state != Up || m.Instance != p.announced.Instance) {
			p.hasten(now) // it is there, or started anew: ask it
		}
		return
	}
	if m.Nonce != p.nonce || int(m.Part) >= len(p.probes) || int(m.Length) != p.probes[m.Part].size {
		return
	}
	p.probes[m.Part].answered = true
	if m.Part == 0 {
		p.rtt = now.Sub(p.began)
	}
	p.announced = m
	p.publish()
}

// hasten lets the next round begin soon, but keeps the distance between two: who sends from the peer's address shall not have
// it flooded.
func (p *path) hasten(now time.Time) {
	if first := p.began.Add(answerTime); first.After(now) {
		now = first
	}
	p.next = earlier(p.next, now)
}

// complete reports whether every probe of the round is answered.
func (p *path) complete() bool {
	for _, pr := range p.probes {
		if !pr.answered {
			return false
		}
	}
	return p.probes != nil
}

// end judges the round and sets the time of the next.
func (p *path) end(now time.Time) {
	switch answered := p.probes[0].answered; {
	case answered && p.state != Up:
		p.setState(Up, now)
		p.next = now
	case answered:
		p.silent = 0
		p.judgeSizes()
		p.judgeTrains()
		p.next = now.Add(p.t.jitter(steadyTime))
		if p.tooBig > 0 || p.lost > 0 && !p.noTrain || p.searching() {
			p.next = now
		}
	default:
		p.silent++
		if p.silent >= patience && p.state == Up {
			p.setState(Down, now)
		}
		p.next = now.Add(rand.N(answerTime / 5)) // peers that were lost together shall not be asked in one go
		if p.silent == hurry && p.state == Unknown {
			p.t.log.Warn(fmt.Sprintf("%v has not answered yet: it may be down or older, or a firewall keeps UDP port %d from it", p.peer, p.t.config.Port))
		}
		if p.silent > hurry {
			p.next = now.Add(p.t.jitter(steadyTime))
		}
	}
	p.probes = nil
	p.compareMTU()
	p.publish()
}

// compareMTU logs once for each MTU that the peer changes to, and so once a round at most.
func (p *path) compareMTU() {
	mtu := p.announced.MTU
	if mtu == 0 || mtu == p.toldMTU {
		return
	}
	if p.toldMTU = mtu; int(mtu) != p.t.config.MTU {
		p.t.log.Warn(fmt.Sprintf("%v has another MTU: packets to it are bounded by the smaller one; give all nodes the same mtu", p.peer),
			"mtu", p.t.config.MTU, "peerMTU", mtu)
	}
}

// setState notes that the peer came up or went down. What was measured before counts no more.
func (p *path) setState(s State, now time.Time) {
	if s == Up {
		p.t.log.Info(fmt.Sprintf("%v answers", p.peer), "rtt", p.rtt)
	} else {
		p.t.log.Warn(fmt.Sprintf("%v does not answer any more", p.peer))
		p.announced = hello.Message{}
	}
	p.state, p.since = s, now
	p.silent, p.tooBig, p.lost, p.reached, p.low, p.high, p.noTrain = 0, 0, 0, 0, 0, 0, false
}

// arrived returns whether any single packet of a size was answered.
func (p *path) arrived(size int) bool {
	for _, pr := range p.probes {
		if pr.size == size && !pr.train && pr.answered {
			return true
		}
	}
	return false
}

// judgeSizes finds out how large packets may be.
func (p *path) judgeSizes() {
	if p.arrived(p.want()) {
		if p.reached != 0 {
			p.t.log.Info(fmt.Sprintf("%v: packets of %d bytes arrive again", p.peer, p.want()))
		}
		p.tooBig, p.reached, p.low, p.high = 0, 0, 0, 0
		return
	}
	best, worst := p.between()
	switch {
	case p.searching():
		p.low = max(p.low, best)
		p.high = max(p.low+1, worst)
	case best > p.usable():
		p.low, p.high = best, worst // it has become better
	case best == p.usable():
		p.tooBig = 0
		return
	default:
		if p.tooBig++; p.tooBig < patience {
			return
		}
		p.low, p.high = best, p.usable()
	}
	if !p.searching() {
		p.settle(p.low)
	}
}

// between returns the largest size of the round that arrived, and the least above it that did not.
func (p *path) between() (best, worst int) {
	for _, pr := range p.probes {
		if !pr.train && pr.answered {
			best = max(best, pr.size)
		}
	}
	worst = p.want()
	for _, pr := range p.probes {
		if !pr.train && !pr.answered && pr.size > best {
			worst = min(worst, pr.size)
		}
	}
	return best, worst
}

// settle ends a search.
func (p *path) settle(size int) {
	p.tooBig, p.low, p.high = 0, 0, 0
	if size == p.reached {
		return
	}
	p.reached = size
	p.t.log.Warn(fmt.Sprintf("%v: %s", p.peer, p.tooSmall()))
}

// tooSmall says what does not arrive, and what to do.
func (p *path) tooSmall() string {
	underlay := p.want() + Overhead(p.peer.Addr)
	if p.t.config.IPv6 && p.reached < leastMTU6 {
		return fmt.Sprintf("packets of %d bytes do not arrive, those of %d do; IPv6 pods do not reach it (IPv6 needs %d): raise the underlay's MTU on the way to %d",
			p.want(), p.reached, leastMTU6, underlay)
	}
	return fmt.Sprintf("packets of %d bytes do not arrive; lower mtu to %d or raise the underlay's MTU on the way to %d", p.want(), p.reached, underlay)
}

// judgeTrains finds out whether trains arrive. It says nothing where a single datagram of their size did not.
func (p *path) judgeTrains() {
	sent, arrived := 0, 0
	for _, pr := range p.probes {
		if pr.train {
			sent++
			if pr.answered {
				arrived++
			}
		}
	}
	switch {
	case sent == 0:
	case arrived == sent:
		if p.noTrain {
			p.t.log.Info(fmt.Sprintf("%v: trains of datagrams arrive again (UDP_SEGMENT)", p.peer))
		}
		p.lost, p.noTrain = 0, false
	case p.arrived(p.usable()):
		if p.lost++; p.lost == patience {
			p.noTrain = true
			p.t.log.Warn(fmt.Sprintf("%v: trains of datagrams do not arrive, it gets them one by one; a network card or kernel on the way spoils UDP_SEGMENT, "+
				"offloads.udpSegment: off turns it off for all peers", p.peer))
		}
	}
}

// refusal notes whether the kernel refused a train, by the reason, and lets the next one try again.
func (p *path) refusal() {
	why := ""
	if err := p.peer.to.Refusal(); err != nil {
		why = err.Error()
	}
	if why != p.refused {
		if p.refused = why; why != "" {
			p.t.log.Warn(fmt.Sprintf("%v: the route refuses trains of datagrams (UDP_SEGMENT), it gets them one by one", p.peer), "err", why)
		} else {
			p.t.log.Info(fmt.Sprintf("%v: the route takes trains of datagrams again (UDP_SEGMENT)", p.peer))
		}
	}
}

// publish lets the workers know.
func (p *path) publish() {
	if p.announced.Version == 0 {
		p.peer.configured(p.t)
		return
	}
	p.peer.trains.Store(p.announced.Can.Has(hello.Trains) && !p.noTrain)
	p.peer.remote.Store(p.announced.Can.Has(hello.RemoteChecksum) && p.t.uses.RemoteChecksum)
	p.peer.token.Store(asToken(p.announced))
	p.peer.mtu.Store(int32(max(p.usable(), min(hello.LeastMTU, p.t.config.MTU)))) // less is rather loss than a bound
}

// why says what is amiss with the peer, or uncertain, in one line.
func (p *path) why() string {
	var parts []string
	add := func(amiss bool, format string, args ...any) {
		if amiss {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(!p.peer.Hello, "a kernel's VXLAN device answers no checks")
	add(p.peer.Hello && p.state == Unknown, "has not answered yet: it may be down or older, or behind a firewall")
	add(p.announced.MTU != 0 && int(p.announced.MTU) != p.t.config.MTU, "its MTU is %d, this node's %d; give all nodes the same mtu", p.announced.MTU, p.t.config.MTU)
	add(p.reached != 0, "%s", p.tooSmall())
	add(p.noTrain, "trains of datagrams do not arrive")
	add(p.refused != "", "the route refuses trains of datagrams (UDP_SEGMENT): %s", p.refused)
	return strings.Join(parts, "; ")
}
