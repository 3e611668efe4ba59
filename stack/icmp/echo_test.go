package icmp

import (
	"bytes"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// echo returns an echo message of either family, request or reply, as the kernel would send it with a time to live.
func echo(t *testing.T, six, reply bool, ttl byte, data []byte) []byte {
	t.Helper()
	src, dst := podA, podB
	var kind icmp.Type = ipv4.ICMPTypeEcho
	if six {
		src, dst, kind = podA6, podB6, ipv6.ICMPTypeEchoRequest
	}
	if reply {
		src, dst = dst, src
		if kind = ipv4.ICMPTypeEchoReply; six {
			kind = ipv6.ICMPTypeEchoReply
		}
	}
	message := icmp.Message{Type: kind, Body: &icmp.Echo{ID: 0x1234, Seq: 7, Data: data}}
	var pseudo []byte
	proto := packet.ICMP
	if six {
		pseudo, proto = icmp.IPv6PseudoHeader(src.AsSlice(), dst.AsSlice()), packet.ICMPv6
	}
	b, err := message.Marshal(pseudo)
	if err != nil {
		t.Fatal(err)
	}
	frame := packettest.Packet{Src: src, Dst: dst, Proto: 253, TTL: ttl, Payload: b[4:]}.Frame()[packet.VnetLen:]
	at := len(frame) - len(b)
	copy(frame[at:], b)
	if six {
		frame[6] = byte(proto)
		return frame
	}
	frame[9] = byte(proto)
	packet.Adjust(frame[10:], 253, uint16(proto))
	return frame
}

// TestReply: the reply to a request is the one that its destination would send, bit for bit.
func TestReply(t *testing.T) {
	for _, six := range []bool{false, true} {
		for _, data := range [][]byte{nil, []byte("odd"), bytes.Repeat([]byte{0xff}, 1000)} {
			b, want := echo(t, six, false, 3, data), echo(t, six, true, 64, data)
			p := parse(t, b)
			if !IsRequest(b, p) {
				t.Fatalf("not a request: % x", b)
			}
			Reply(b, p)
			if !bytes.Equal(b, want) {
				t.Errorf("IPv6 %v:\ngot  % x\nwant % x", six, b, want)
			}
			if after := parse(t, b); *after != *p {
				t.Errorf("headers: got %+v, want %+v", p, after)
			}
			if IsRequest(b, p) {
				t.Error("a reply is taken for a request")
			}
		}
	}
}

// The fragments of the reply are those of the request, turned round.
func TestReplyFragments(t *testing.T) {
	for _, six := range []bool{false, true} {
		data := bytes.Repeat([]byte("ping"), 600)
		whole := echo(t, six, false, 3, data)
		flow := parse(t, whole).Flow
		want := packettest.Fragments(echo(t, six, true, 64, data), 1300, 9)
		for i, b := range packettest.Fragments(whole, 1300, 9) {
			p := parse(t, b)
			p.Follow(flow, true)
			if !IsRequest(b, p) {
				t.Fatalf("piece %d is taken for something else", i)
			}
			if Reply(b, p); !bytes.Equal(b, want[i]) {
				t.Errorf("IPv6 %v, piece %d:\ngot  % x\nwant % x", six, i, b[:60], want[i][:60])
			}
		}
	}
}

func TestIsRequest(t *testing.T) {
	for name, b := range map[string][]byte{
		"a datagram": datagram.Frame()[packet.VnetLen:],
		"an error":   build(t, Error{Kind: TimeExceeded}, datagram.Frame()[packet.VnetLen:]),
		"a reply":    echo(t, true, true, 64, nil),
	} {
		if IsRequest(b, parse(t, b)) {
			t.Errorf("%s is taken for a request", name)
		}
	}
}
