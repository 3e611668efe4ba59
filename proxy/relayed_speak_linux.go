package proxy

import (
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// ready takes what the kernel says of the socket.
func (c *relayed) ready(events uint32) {
	if c.phase == connecting {
		if err := pendingError(uintptr(c.fd)); err != nil {
			c.fail(err)
			return
		}
		if events&unix.EPOLLOUT == 0 {
			return
		}
		c.answer() // the outside may have said something, or all, since
	}
	if events&^unix.EPOLLOUT != 0 {
		c.readable = true
		c.hung = c.hung || events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0
	}
	if events&unix.EPOLLERR != 0 && c.hostEnded {
		c.abort()
		return
	}
	if events&unix.EPOLLOUT != 0 {
		c.giveWaiting()
	}
	c.e.touch(c)
}

// speak sends the pod what the socket has and the pod takes, and what else it has to hear.
func (c *relayed) speak() {
	if c.phase == relaying {
		c.speakData()
	}
	if c.phase == gone {
		return
	}
	if c.acknowledge && c.phase > connecting {
		for range max(1, min(c.overtaken, enoughRepeats)) {
			c.say(packet.ACK, c.next, nil)
		}
		c.overtaken = 0
	}
	if c.phase == relaying && c.shut && c.finSent && c.first == c.next {
		c.finish()
	}
}

func (c *relayed) speakData() {
	for budget := speakBudget; c.readable && !c.hostEnded; budget-- {
		flight := c.next.minus(c.first)
		room := c.room - flight
		if c.e.kept > mostKept {
			room = min(c.room, leastWindow) - flight
		}
		if room <= 0 || room < c.mss && flight > 0 { // no small segments for a small window (RFC 9293, section 3.8.6.2.1)
			c.wait()
			return
		}
		if budget == 0 {
			c.e.touch(c)
			c.e.wake()
			return
		}
		if !c.sayNext(room) {
			return
		}
	}
	if c.hostEnded && !c.finSent {
		c.finSent = true
		c.say(packet.FIN|packet.ACK, c.next, nil)
		c.next++
		c.wait()
	}
}

// sayNext sends the pod up to room bytes of what the socket has. It is false if the connection is over.
func (c *relayed) sayNext(room int) bool {
	most := min(c.mostData(), room)
	buf := joinBuffers.Get().(*[joinBuffer]byte)
	n, errno := receiveNow(c.fd, buf[:most])
	switch {
	case errno == unix.EAGAIN:
		c.readable = false
	case errno != 0:
		c.abort()
	case n == 0:
		c.hostEnded = true
	}
	if n <= 0 || errno != 0 {
		joinBuffers.Put(buf)
		return c.phase != gone
	}
	if n < most && !c.hung {
		c.readable = false
	}
	flags := uint8(packet.ACK)
	if n < most {
		flags |= packet.PSH
	}
	data := c.held.hold(buf, n)
	c.e.kept += n
	c.say(flags, c.next, data)
	c.next += seq(n)
	c.wait()
	return true
}

// mostData returns how many bytes a super-packet has at most: whole segments.
func (c *relayed) mostData() int {
	most := packet.MaxSize - ipHeader(c.flow.Is4()) - tcpHeader
	if c.mss < most {
		most -= most % c.mss
	}
	return most
}

// say sends a segment, which acknowledges what was heard.
func (c *relayed) say(flags uint8, at seq, data []byte) {
	c.edge = c.announce()
	c.acknowledge = false
	s := said{seq: at, ack: c.expected, flags: flags, window: min(c.edge.minus(c.expected)>>c.scale, 65535), data: data, size: c.mss}
	c.e.say(&c.back, &s)
}

// sendAgain sends what comes first of what the pod has not acknowledged.
func (c *relayed) sendAgain() {
	switch data := c.held.front(); {
	case c.phase == answering:
		c.sayAnswer()
	case len(data) > 0:
		c.say(packet.ACK|packet.PSH, c.first, data[:min(len(data), c.mostData())])
	case c.finSent && c.first != c.next:
		c.say(packet.FIN|packet.ACK, c.first, nil)
	default:
		c.say(packet.ACK, c.first-1, nil) // asks how much the pod takes (RFC 9293, section 3.8.6.1)
	}
}
