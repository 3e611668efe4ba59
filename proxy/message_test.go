package proxy

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// control joins control messages as the kernel of a little-endian machine of 64 bits writes them.
func control(t *testing.T, messages ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(messages, ""), " ", ""))
	must(t, err)
	return b
}

// Control messages as Linux gave them: length, level, type, data, padding.
const (
	controlTTL     = "1400000000000000 00000000 02000000 3d000000 00000000"
	controlTOS     = "1100000000000000 00000000 01000000 b8 00000000000000"
	controlPktinfo = "1c00000000000000 00000000 08000000 02000000 c0a8fe0b c0a8feff 00000000"
	controlGRO     = "1400000000000000 11000000 68000000 2c010000 00000000"
	controlFailure = "3000000000000000 00000000 0b000000 5a000000 02 03 04 00 14050000 00000000 0200 0000 c0a8fe0c 0000000000000000"
)

func TestControl(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the messages are those of a machine of 64 bits")
	}
	m := message{data: make([]byte, 1000)}
	m.readControl(control(t, controlTTL, controlTOS, controlPktinfo, controlGRO, controlFailure))
	want := failure{errno: unix.EMSGSIZE, origin: unix.SO_EE_ORIGIN_ICMP, kind: 3, code: 4, info: 1300, offender: netip.MustParseAddr("192.168.254.12")}
	if diff := cmp.Diff(want, m.failure, cmp.AllowUnexported(failure{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if m.ttl != 61 || m.tos != 0xb8 || m.segment != 300 || m.device != 2 {
		t.Errorf("got TTL %d, TOS %#x, segments of %d, device %d", m.ttl, m.tos, m.segment, m.device)
	}
	if m.local.String() != "192.168.254.11" || m.to.String() != "192.168.254.255" {
		t.Errorf("got %v, to be answered from %v", m.to, m.local)
	}
}

// FuzzControl: whatever is cut off is not read.
func FuzzControl(f *testing.F) {
	for _, s := range []string{controlTTL, controlTOS, controlPktinfo, controlGRO, controlFailure} {
		b, _ := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		f.Add(b)
		f.Add(b[:len(b)-9])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := message{data: make([]byte, 1000)}
		m.readControl(b)
		if m.segment < 0 || m.segment >= len(m.data) {
			t.Errorf("datagrams of %d bytes in %d", m.segment, len(m.data))
		}
	})
}

// exampleFlow is of a pod.
func exampleFlow(pod, to netip.Addr) packet.Flow {
	return packet.NewFlow(packet.UDP, netip.AddrPortFrom(pod, 4000), netip.AddrPortFrom(to, 53))
}

// FuzzQuote: whatever a socket says about a packet, what the pod gets is an ICMP error that parses, or nothing.
func FuzzQuote(f *testing.F) {
	f.Add(true, byte(3), byte(4), uint32(1300), []byte("hello"))
	f.Add(false, byte(2), byte(0), uint32(1300), pattern(2000))
	f.Add(true, byte(12), byte(0), uint32(20), []byte{})
	f.Fuzz(func(t *testing.T, is4 bool, kind, code byte, info uint32, data []byte) {
		why := failure{kind: kind, code: code, info: info, offender: routers6}
		flow := &egressFlow{flow: exampleFlow(podA6, remote6)}
		if is4 {
			why.offender, flow.flow = routers, exampleFlow(podA, remote)
		}
		out := make(chan []byte, 1)
		var room [maxError6]byte
		told := passError(into(t, out), &flow.flow, why.offender, &why, quoteUDP(flow, room[:], data))
		if told != why.isError(is4) {
			t.Errorf("told: %v", told)
		}
		if told {
			expectError(t, out, flow.flow, why.offender)
		}
	})
}
