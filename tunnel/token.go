package tunnel

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/middleway-net/middleway/tunnel/hello"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// tokenFor returns the token of a peer: 46 bits that nobody guesses who has neither the secret nor seen a packet of the peer, in the form
// of a unicast, locally administered Ethernet address.
//
//	peer ── probe to our address, with a nonce ──► this node
//	peer ◄── answer to its address: nonce, token ─ this node
//	peer ── packets, the token for a source ─────► this node, whatever their outer source is
//
// So who has a token receives at the peer's address. Two of 5,000 peers have the same one with a probability of 2⁻²²; then one of
// them is known by its address alone.
func (t *Tunnel) tokenFor(p *Peer) vxlan.MAC {
	h := hmac.New(sha256.New, t.config.Secret[:])
	h.Write([]byte("middleway token "))
	h.Write(p.MAC[:])
	h.Write([]byte(p.Addr.String()))
	token := vxlan.MAC(h.Sum(nil)[:6])
	token[0] = token[0]&^1 | 2
	return token
}

// sender returns the peer whose datagram it is by its header, or nil. Messages have no token, since the first ones are sent before there
// is one; they believe what bears their nonce alone (package hello).
func (t *peerTable) sender(h *vxlan.Header) *peer {
	if h.Type == vxlan.EtherTypeLocal {
		return t.byMAC[h.Src]
	}
	return t.byToken[h.Src]
}

// asToken returns the token in a peer's answer, 0 if it has none.
func asToken(m hello.Message) uint64 {
	if !m.Can.Has(hello.Tokens) {
		return 0
	}
	if token := vxlan.MAC(m.Token); token[0]&1 == 0 { // as a source only a unicast address is one
		return token.Uint64()
	}
	return 0
}
