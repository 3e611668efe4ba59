package proxy

import (
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// hear takes a segment of the pod, which is borrowed (RFC 9293, section 3.10.7.4).
func (c *relayed) hear(s heard) {
	switch {
	case c.phase == connecting:
		if s.flags&packet.RST != 0 {
			c.drop()
		}
		return
	case s.flags&packet.RST != 0:
		if s.seq == c.expected {
			c.drop()
		} else if !s.seq.before(c.expected) && !c.edge.before(s.seq) {
			c.acknowledgeNow() // RFC 5961, section 3.2
		}
		return
	case s.flags&packet.SYN != 0:
		c.hearSYN(&s)
		return
	case s.flags&packet.ACK == 0:
		return
	}
	if c.next.before(s.ack) {
		c.acknowledgeNow()
		return
	}
	c.hearAck(&s)
	if c.phase == relaying || c.phase == lingering {
		c.take(&s)
	}
}

// hearSYN takes a SYN within a connection: the pod has not heard the answer, or somebody guesses.
func (c *relayed) hearSYN(s *heard) {
	if c.phase == answering && s.seq+1 == c.expected {
		c.sayAnswer()
		return
	}
	c.acknowledgeNow() // RFC 5961, section 4.2
}

// hearAck takes what a segment acknowledges, and how much more the pod takes.
func (c *relayed) hearAck(s *heard) {
	c.heardAt, c.asked = c.e.now, 0
	if s.ack.before(c.first) {
		return
	}
	room := min(s.window<<c.podScale, mostHeld)
	switch advance := s.ack.minus(c.first); {
	case advance > 0:
		if c.phase == answering {
			c.phase = relaying
			c.window = leastWindow - 1
			if c.scale > 0 {
				c.window = firstWindow
			}
		}
		c.e.kept -= min(advance, c.held.len())
		c.held.release(advance)
		c.first, c.repeats, c.timeout = s.ack, 0, firstTimeout
		c.room = room
		c.recover()
		c.wait()
		c.e.touch(c)
	case len(s.data) == 0 && s.flags&packet.FIN == 0 && room == c.room && c.first != c.next && c.recovery == nothingLost:
		if c.repeats++; c.repeats == enoughRepeats {
			c.recovery, c.recovered = recovering, c.next
			c.sendAgain()
		}
	case room != c.room:
		if c.room = room; c.first == c.next {
			c.timeout = 0 // it was asked for this
		}
		c.e.touch(c)
	}
}

// recover goes on after the pod has acknowledged something.
func (c *relayed) recover() {
	if c.recovery == recovering {
		if c.first.before(c.recovered) {
			c.sendAgain()
			return
		}
		c.recovery, c.recovered = settling, c.next
	}
	if !c.first.before(c.recovered) {
		c.recovery = nothingLost
	}
}

// take takes a segment's data and its end, as far as they are expected. What overtook something that was lost comes again.
func (c *relayed) take(s *heard) {
	if len(s.data) == 0 && s.flags&packet.FIN == 0 {
		if s.seq != c.expected { // a question whether somebody is there, or a stray
			c.acknowledgeNow()
		}
		return
	}
	c.acknowledgeNow()
	skip := c.expected.minus(s.seq)
	if skip < 0 && len(s.data) > 0 {
		c.overtaken++
	}
	if skip < 0 || skip > len(s.data) {
		return
	}
	data := s.data[skip:]
	if most := c.edge.minus(c.expected); len(data) > most {
		data = data[:most]
	}
	if c.podEnded || c.phase == lingering {
		return
	}
	if len(data) > 0 {
		n, ok := c.give(data)
		if !ok {
			return
		}
		data = data[:n]
		c.expected += seq(n)
		c.overtaken = 0
	}
	if s.flags&packet.FIN != 0 && skip+len(data) == len(s.data) {
		c.expected++
		c.podEnded, c.podFirst = true, !c.finSent
		c.shutIfAllGiven()
	}
}

// give gives data of the pod to the socket, or has it wait, and returns how much of it was taken: what finds no room comes again. It is
// false if the connection is over.
func (c *relayed) give(data []byte) (taken int, ok bool) {
	left := data
	if c.waiting.empty() {
		n, errno := sendNow(c.fd, data)
		if errno != 0 && errno != unix.EAGAIN {
			c.abort()
			return 0, false
		}
		left = data[n:]
	}
	if len(left) > 0 {
		c.window, c.credit = max(c.window/2, leastWindow-1), 0
		taken = len(data) - len(left)
		if c.e.kept > mostKept {
			left = left[:min(len(left), max(leastWindow-c.waiting.len(), 0))]
		}
		c.waiting.add(left)
		c.e.kept += len(left)
		return taken + len(left), true
	}
	if c.credit += len(data); c.credit >= c.window && c.scale > 0 {
		c.window, c.credit = min(2*c.window, mostWindow), 0
	}
	return len(data), true
}

// giveWaiting gives the socket what waits, as far as it takes it.
func (c *relayed) giveWaiting() {
	if c.waiting.empty() {
		return
	}
	for !c.waiting.empty() {
		n, errno := sendNow(c.fd, c.waiting.front())
		if errno == unix.EAGAIN {
			break
		}
		if errno != 0 {
			c.abort()
			return
		}
		c.waiting.release(n)
		c.e.kept -= n
	}
	c.shutIfAllGiven()
	if c.announce().minus(c.edge) >= min(2*c.mss, c.window/2) {
		c.acknowledgeNow()
	}
}

// shutIfAllGiven tells the socket that the pod has ended, once it has all that the pod said.
func (c *relayed) shutIfAllGiven() {
	if c.podEnded && !c.shut && c.waiting.empty() {
		c.shut = true
		_ = unix.Shutdown(c.fd, unix.SHUT_WR)
		c.e.touch(c)
	}
}

// announce returns up to where the pod may send, which is never taken back.
func (c *relayed) announce() seq {
	edge := c.expected + seq(max(c.window-c.waiting.len(), 0))
	if edge.before(c.edge) {
		return c.edge
	}
	return edge
}

func (c *relayed) acknowledgeNow() {
	c.acknowledge = true
	c.e.touch(c)
}
