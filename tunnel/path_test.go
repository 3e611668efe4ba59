package tunnel

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/tunnel/hello"
	"github.com/middleway-net/middleway/tunnel/udp"
)

// wireTo is a way between two nodes, for a path without sockets.
type wireTo struct {
	*path
	log bytes.Buffer
	now time.Time

	cut     bool
	most    int     // longest packet that passes; 0: any
	noTrain bool    // trains do not pass
	loss    float64 // of everything
	peer    hello.Message
	dice    *rand.Rand
}

// newWireTo returns a way to a peer with the same MTU, that can do everything.
func newWireTo() *wireTo {
	w := &wireTo{now: time.Unix(1e9, 0), dice: rand.New(rand.NewPCG(1, 2))}
	w.peer = hello.Message{Version: 1, Kind: hello.Answer, MTU: innerMTU, Can: hello.Trains | hello.RemoteChecksum, Instance: 1}
	t := &Tunnel{
		config: Config{Local: node1, Port: 8472, MTU: innerMTU}, uses: Offloads{Segment: true, GRO: true, RemoteChecksum: true},
		log: slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	p := &peer{Peer: Peer{Name: "node-2", Addr: node2, Hello: true, Trains: true, RemoteChecksum: true}}
	p.way = &way{to: udp.NewAddr(netip.AddrPortFrom(node2, 8472))}
	p.configured(t)
	w.path = newPath(t, p, w.now, w.now)
	return w
}

// rounds plays rounds and returns how long they took.
func (w *wireTo) rounds(n int) time.Duration {
	start := w.now
	for range n {
		if w.now.Before(w.next) {
			w.now = w.next
		}
		for i, pr := range w.begin(w.now) {
			if w.cut || w.most != 0 && pr.size > w.most || w.noTrain && pr.train || w.dice.Float64() < w.loss {
				continue
			}
			m := w.peer
			m.Nonce, m.Part, m.Length = w.nonce, uint8(i), uint16(pr.size)
			w.take(m, w.now.Add(time.Millisecond))
		}
		if w.now = w.now.Add(time.Millisecond); !w.complete() {
			w.now = w.began.Add(answerTime)
		}
		w.end(w.now)
	}
	return w.now.Sub(start)
}

// expect compares what is known.
func (w *wireTo) expect(t *testing.T, state State, mtu int, trains bool, why string) {
	t.Helper()
	p := w.path
	if p.state != state || int(p.peer.mtu.Load()) != mtu || p.peer.trains.Load() != trains || (why == "") != (p.why() == "") || !strings.Contains(p.why(), why) {
		t.Errorf("%s, MTU %d, trains %v, %q; want %s, %d, %v, %q", p.state, p.peer.mtu.Load(), p.peer.trains.Load(), p.why(), state, mtu, trains, why)
	}
}

// expectLog wants exactly the lines with these words since the last call.
func (w *wireTo) expectLog(t *testing.T, words ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	w.log.Reset()
	if lines[0] == "" {
		lines = nil
	}
	ok := len(lines) == len(words)
	for i := range words {
		ok = ok && strings.Contains(lines[i], words[i])
	}
	if !ok {
		t.Errorf("logged\n%s\nwant %q", strings.Join(lines, "\n"), words)
	}
}

const notYet = "has not answered yet"

func TestPathComesUpAndGoes(t *testing.T) {
	w := newWireTo()
	w.cut = true
	if took := w.rounds(5); took <= 5*answerTime || took > 6*answerTime {
		t.Errorf("5 rounds to a peer that does not answer took %v", took)
	}
	w.expect(t, Unknown, innerMTU, true, notYet)
	w.expectLog(t)
	w.cut = false
	w.rounds(2)
	w.expect(t, Up, innerMTU, true, "")
	w.expectLog(t, "peer node-2 at 127.0.0.2 answers")
	if w.rtt != time.Millisecond {
		t.Errorf("round trip %v", w.rtt)
	}
	if took := w.rounds(10); took < 80*time.Second || took > 120*time.Second {
		t.Errorf("10 steady rounds took %v", took)
	}
	w.cut = true
	w.rounds(2)
	w.expect(t, Up, innerMTU, true, "")
	if w.rounds(1); w.since != w.now {
		t.Errorf("down since %v, want %v", w.since, w.now)
	}
	w.expect(t, Down, innerMTU, true, "")
	w.expectLog(t, "does not answer any more")
	w.rounds(hurry)
	if took := w.rounds(5); took < 30*time.Second {
		t.Errorf("5 rounds to a peer that has gone for long took %v", took)
	}
	w.cut = false
	w.rounds(1)
	w.expect(t, Up, innerMTU, true, "")
}

// A peer that starts asks; so it is asked at once.
func TestPathAskedBack(t *testing.T) {
	w := newWireTo()
	w.cut = true
	w.rounds(hurry + 2)
	w.expectLog(t, "has not answered yet: it may be down or older, or a firewall keeps UDP port 8472 from it")
	m := w.peer
	m.Kind = hello.Probe
	if w.take(m, w.now); w.next != w.now {
		t.Errorf("the next round is in %v", w.next.Sub(w.now))
	}
	w.expect(t, Unknown, innerMTU, true, notYet)
}

func TestPathCapabilities(t *testing.T) {
	w := newWireTo()
	w.peer.Can = 0
	w.rounds(2)
	w.expect(t, Up, innerMTU, false, "")
	if w.path.peer.remote.Load() {
		t.Error("remote checksum offload to a peer that does not know it")
	}
	w.peer.Can, w.peer.Instance = hello.Trains|hello.RemoteChecksum, 2
	w.rounds(2)
	w.expect(t, Up, innerMTU, true, "")
	if !w.path.peer.remote.Load() {
		t.Error("no remote checksum offload to a peer that knows it")
	}
	w.t.uses.RemoteChecksum = false
	if w.rounds(1); w.path.peer.remote.Load() {
		t.Error("remote checksum offload though it is off here")
	}
}

func TestPathOtherMTU(t *testing.T) {
	for _, tt := range []struct{ peer, want int }{{1400, 1400}, {9000, innerMTU}} {
		w := newWireTo()
		w.peer.MTU = uint16(tt.peer)
		w.rounds(5)
		w.expect(t, Up, tt.want, true, "give all nodes the same mtu")
		w.expectLog(t, "answers", "has another MTU")
		w.peer.MTU = innerMTU
		w.rounds(1)
		w.expect(t, Up, innerMTU, true, "")
	}
}

// A peer whose MTU changes with every answer is logged once a round at most, and bounds no way below what every host takes.
func TestPathChangingMTU(t *testing.T) {
	w := newWireTo()
	w.rounds(2)
	w.expectLog(t, "answers")
	for i := range 100 {
		m := w.peer
		m.MTU = uint16(1000 + i)
		probes := w.begin(w.now)
		for part, pr := range probes {
			m.Nonce, m.Part, m.Length = w.nonce, uint8(part), uint16(pr.size)
			m.MTU ^= 1 // for each answer another
			w.take(m, w.now)
		}
		w.end(w.now)
	}
	if lines := strings.Count(w.log.String(), "has another MTU"); lines < 50 || lines > 100 {
		t.Errorf("%d log lines in 100 rounds", lines)
	}
	w.peer.MTU = 100 // Decode refuses it
	w.rounds(1)
	w.expect(t, Up, hello.LeastMTU, true, "its MTU is 100, this node's 1450")
}

// A way too small for IPv6 is told as such to who has IPv6 pods: a smaller mtu would not be one for them.
func TestPathTooSmallForIPv6(t *testing.T) {
	const small = "packets of 1450 bytes do not arrive, those of 1279 do; IPv6 pods do not reach it (IPv6 needs 1280): raise the underlay's MTU on the way to 1500"
	for _, tt := range []struct {
		most int
		ipv6 bool
		why  string
	}{
		{1279, true, small},
		{1280, true, "packets of 1450 bytes do not arrive; lower mtu to 1280 or raise the underlay's MTU on the way to 1500"},
		{1279, false, "packets of 1450 bytes do not arrive; lower mtu to 1279 or raise the underlay's MTU on the way to 1500"},
	} {
		w := newWireTo()
		w.t.config.IPv6, w.most = tt.ipv6, tt.most
		w.rounds(30)
		w.expect(t, Up, tt.most, true, tt.why)
		w.expectLog(t, "answers", "peer node-2 at 127.0.0.2: "+tt.why)
	}
}

// A train of a check is no longer than one send takes; where not even two datagrams fit there is none.
func TestPathLargeMTU(t *testing.T) {
	for _, tt := range []struct{ mtu, train int }{{1450, 3}, {21813, 3}, {21814, 2}, {32731, 2}, {32732, 0}, {65485, 0}} {
		w := newWireTo()
		w.t.config.MTU, w.peer.MTU = tt.mtu, uint16(tt.mtu)
		w.rounds(1)
		train := 0
		for _, pr := range w.begin(w.now) {
			if pr.train {
				train++
			}
		}
		w.end(w.now)
		if train != tt.train {
			t.Errorf("MTU %d: a train of %d, want %d", tt.mtu, train, tt.train)
		}
		w.rounds(3)
		w.expect(t, Up, tt.mtu, true, "")
	}
}

// Every size of the way is found, and within seconds.
func TestPathSearch(t *testing.T) {
	for _, most := range []int{innerMTU - 1, 1400, 1281, 1280, 600, hello.LeastProbe + 1, hello.LeastProbe} {
		w := newWireTo()
		w.rounds(3)
		w.expectLog(t, "answers")
		w.most = most
		took := time.Duration(0)
		for range 30 {
			if took += w.rounds(1); w.reached != 0 {
				break
			}
		}
		w.expect(t, Up, max(most, hello.LeastMTU), true, fmt.Sprintf("packets of 1450 bytes do not arrive; lower mtu to %d or", most))
		w.expectLog(t, "packets of 1450 bytes do not arrive; lower mtu to ")
		if took > steadyTime*6/5+15*answerTime {
			t.Errorf("%d bytes: found after %v", most, took)
		}
		w.rounds(10)
		w.expect(t, Up, max(most, hello.LeastMTU), true, "do not arrive")
		w.expectLog(t)
		w.most = 0
		w.rounds(1)
		w.expect(t, Up, innerMTU, true, "")
		w.expectLog(t, "packets of 1450 bytes arrive again")
	}
}

// The way becomes better, or worse, than it was.
func TestPathSearchAgain(t *testing.T) {
	w := newWireTo()
	for _, most := range []int{1300, 1350, 1200, 1449} {
		w.most = most
		w.rounds(25)
		w.expect(t, Up, most, true, "lower mtu to ")
	}
}

func TestPathNoTrains(t *testing.T) {
	w := newWireTo()
	w.rounds(2)
	w.noTrain = true
	w.rounds(patience - 1)
	w.expect(t, Up, innerMTU, true, "")
	w.rounds(1)
	w.expect(t, Up, innerMTU, false, "trains of datagrams do not arrive")
	w.expectLog(t, "answers", "trains of datagrams do not arrive, it gets them one by one")
	w.most = 1000 // the search says nothing about trains
	w.rounds(20)
	w.expect(t, Up, 1000, false, "trains of datagrams do not arrive")
	w.noTrain = false
	w.rounds(1)
	w.expect(t, Up, 1000, true, "do not arrive")
	w.expectLog(t, "packets of 1450 bytes do not arrive", "trains of datagrams arrive again")
}

// Chance takes nothing away: with 2 % of loss each way the peer stays up, and what is believed to be lost comes back.
func TestPathLoss(t *testing.T) {
	w := newWireTo()
	w.loss = 0.04
	w.rounds(2000)
	if w.state != Up {
		t.Errorf("state %s", w.state)
	}
	w.loss = 0
	w.rounds(3)
	w.expect(t, Up, innerMTU, true, "")
	if lines := strings.Count(w.log.String(), "\n"); lines > 10 {
		t.Errorf("%d log lines in 2000 rounds:\n%s", lines, w.log.String())
	}
}

// TestPathStrays: what answers no probe of the round under way changes nothing that is believed of the peer.
func TestPathStrays(t *testing.T) {
	for name, change := range map[string]func(m *hello.Message){
		"another nonce":        func(m *hello.Message) { m.Nonce++ },
		"no nonce":             func(m *hello.Message) { m.Nonce = 0 },
		"a part that is none":  func(m *hello.Message) { m.Part = 200 },
		"another length":       func(m *hello.Message) { m.Length++ },
		"a probe":              func(m *hello.Message) { m.Kind = hello.Probe },
		"a probe with a nonce": func(m *hello.Message) { m.Kind, m.Nonce = hello.Probe, 7 },
	} {
		w := newWireTo()
		stray := func(nonce uint64) {
			m := hello.Message{Version: 1, Kind: hello.Answer, MTU: hello.LeastMTU, Instance: 9, Nonce: nonce, Length: hello.HeaderLen}
			change(&m)
			w.take(m, w.now)
		}
		w.begin(w.now)
		if stray(w.nonce); w.complete() {
			t.Errorf("%s: taken for an answer", name)
		}
		w.expect(t, Unknown, innerMTU, true, notYet)
		w.end(w.now)
		w.rounds(3)
		w.begin(w.now)
		stray(w.nonce)
		w.expect(t, Up, innerMTU, true, "")
		w.end(w.now)
		w.rounds(1)
		stray(w.nonce) // between rounds
		w.expect(t, Up, innerMTU, true, "")
		if !w.path.peer.remote.Load() || w.announced.Instance != 1 {
			t.Errorf("%s: believed", name)
		}
		w.expectLog(t, "answers")
	}
}

// Every round has a nonce of its own, which nobody guesses.
func TestPathNonce(t *testing.T) {
	w, seen := newWireTo(), map[uint64]bool{}
	for range 1000 {
		w.begin(w.now)
		if seen[w.nonce] || seen[w.nonce-1] || seen[w.nonce+1] {
			t.Fatalf("nonce %x follows from another", w.nonce)
		}
		seen[w.nonce] = true
		w.end(w.now)
	}
}

// Whoever sends probes from the peer's address does not have it flooded: each seems to come from a peer that started anew.
func TestPathHasten(t *testing.T) {
	for name, up := range map[string]bool{"up": true, "unknown": false} {
		w := newWireTo()
		if w.cut = !up; up {
			w.rounds(3)
		}
		start, rounds := w.now, 0
		for i := range 10_000 {
			w.now = start.Add(time.Duration(i) * time.Millisecond)
			w.take(hello.Message{Version: 1, Kind: hello.Probe, MTU: innerMTU, Instance: uint64(i + 2)}, w.now)
			if !w.now.Before(w.next) {
				w.rounds(1)
				rounds++
			}
		}
		if rounds < 8 || rounds > 11 {
			t.Errorf("%s: %d rounds in 10 s, want one a second", name, rounds)
		}
	}
}
