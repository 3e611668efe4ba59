package tunnel

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
	"github.com/middleway-net/middleway/tunnel/hello"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// anywhere makes node 1 of a pair one whose peer, of a kind, may send from any address.
func anywhere(t *testing.T, one *Tunnel, kernel bool) {
	t.Helper()
	one.config.AnySource, one.config.Secret = true, [32]byte{7}
	p := Peer{Addr: node2, MAC: mac2, Hello: !kernel, Sources: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}}
	if err := one.SetPeers([]Peer{p}); err != nil {
		t.Fatal(err)
	}
}

// TestAnySource: from an address that is no peer's comes in what bears a peer's token, and has an inner source of that peer.
func TestAnySource(t *testing.T) {
	ours := packettest.Packet{Src: pod2, Dst: pod1, Payload: []byte("hello")}.Frame()[packet.VnetLen:]
	foreign := packettest.Packet{Src: netip.MustParseAddr("10.244.3.2"), Dst: pod1}.Frame()[packet.VnetLen:]
	right := (&Tunnel{config: Config{Secret: [32]byte{7}}}).tokenFor(&Peer{Addr: node2, MAC: mac2})
	near := right
	near[5] ^= 1
	for _, tt := range []struct {
		name   string
		any    bool
		kernel bool
		source vxlan.MAC
		inner  []byte
		want   packet.DropReason
	}{
		{"token", true, false, right, ours, packet.Kept},
		{"another token", true, false, near, ours, packet.DropUnknownPeer},
		{"the VTEP's own address, which everybody knows", true, false, mac2, ours, packet.DropUnknownPeer},
		{"token, and a source of another peer", true, false, right, foreign, packet.DropPeerSource},
		{"token, where peers are known by address", false, false, right, ours, packet.DropUnknownPeer},
		{"a kernel is known by its address", true, true, right, ours, packet.DropUnknownPeer},
		{"a kernel's VTEP", true, true, mac2, ours, packet.DropUnknownPeer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			one, two := pair(t, func(p *Peer) { p.Hello = !tt.kernel })
			if tt.any {
				anywhere(t, one, tt.kernel)
			}
			stranger, err := net.DialUDP("udp4", &net.UDPAddr{IP: node3.AsSlice()}, &net.UDPAddr{IP: node1.AsSlice(), Port: int(two.config.Port)})
			if err != nil {
				t.Fatal(err)
			}
			defer stranger.Close()
			b := datagram(tt.inner)
			copy(b[vxlan.HeaderLen+6:], tt.source[:])
			if _, err := stranger.Write(b); err != nil {
				t.Fatal(err)
			}
			got := receive(t, one, 1)
			if kept := len(got) == 1 && bytes.Equal(got[0], tt.inner); kept != (tt.want == packet.Kept) {
				t.Errorf("delivered %x, want %v", got, tt.want)
			}
			if tt.want != packet.Kept && one.Port(0).Drops()[tt.want].Load() != 1 {
				t.Errorf("not dropped for %v", tt.want)
			}
		})
	}
}

// TestToken: a token stays what it is while secret and peer do.
func TestToken(t *testing.T) {
	of := func(secret byte, addr netip.Addr, mac vxlan.MAC) vxlan.MAC {
		return (&Tunnel{config: Config{Secret: [32]byte{secret}}}).tokenFor(&Peer{Addr: addr, MAC: mac})
	}
	token := of(1, node2, mac2)
	if token != of(1, node2, mac2) || token == of(2, node2, mac2) || token == of(1, node3, mac2) || token == of(1, node2, mac1) {
		t.Error("tokens do not follow from secret and peer, or from nothing else")
	}
	if token[0]&3 != 2 {
		t.Errorf("%v is no unicast, locally administered address", token)
	}
}

// TestTokenIsGiven: an answer brings the token, and what is sent from then on has it.
func TestTokenIsGiven(t *testing.T) {
	one, two := pair(t, func(p *Peer) { p.Hello = true })
	anywhere(t, one, false)
	run(t, one)
	run(t, two)
	given := one.peers.Load().byAddr[node2].given.Uint64()
	for end := time.Now().Add(30 * time.Second); two.peers.Load().byAddr[node1].token.Load() != given; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("token %x, want %x", two.peers.Load().byAddr[node1].token.Load(), given)
		}
	}
}

// TestTokenIsSent: packets and trains to a peer bear the token that it gave.
func TestTokenIsSent(t *testing.T) {
	one, two := pair(t, func(p *Peer) { p.Trains = true })
	token := vxlan.MAC{2, 0, 0, 0, 0, 9}
	two.peers.Load().byAddr[node1].token.Store(token.Uint64())
	var pool packet.Pool
	for _, p := range []packettest.Packet{
		{Src: pod2, Dst: pod1, Payload: []byte("x")}, {Src: pod2, Dst: pod1, Proto: packet.TCP, Flags: packet.ACK, Payload: make([]byte, 4000)},
	} {
		send(two, &pool, p.Super(1000), node1)
		receive(t, one, (len(p.Payload)+999)/1000)
		if got := one.Port(0).header.Src; got != token {
			t.Errorf("sent from %v, want %v", got, token)
		}
	}
}

// TestTokenForged: a token counts in an answer that bears the nonce, and only as an address that may be a source.
func TestTokenForged(t *testing.T) {
	w := newWireTo()
	w.rounds(1)
	answer := w.peer
	answer.Can |= hello.Tokens
	for _, tt := range []struct {
		name  string
		nonce uint64
		token [6]byte
		want  uint64
	}{
		{"another nonce", 1, [6]byte{2, 0, 0, 0, 0, 9}, 0},
		{"a group's address", 0, [6]byte{3, 0, 0, 0, 0, 9}, 0},
		{"as it should be", 0, [6]byte{2, 0, 0, 0, 0, 9}, 0x020000000009},
	} {
		w.begin(w.now)
		answer.Nonce, answer.Part, answer.Length, answer.Token = w.nonce+tt.nonce, 0, hello.LeastProbe, tt.token
		w.take(answer, w.now)
		if got := w.path.peer.token.Load(); got != tt.want {
			t.Errorf("%s: token %x, want %x", tt.name, got, tt.want)
		}
	}
}
