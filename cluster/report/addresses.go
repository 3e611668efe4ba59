package report

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// Addresses maps addresses to others, the same to the same within one archive. Two that have their first n bits in common have the first n
// bits of their images in common, and no more (Xu, Fan, Ammar, Moon: Prefix-Preserving IP Address Anonymization, ICNP 2002): what lies in
// which range stays visible. The key is random and kept nowhere.
type Addresses struct {
	key  [32]byte
	done map[netip.Addr]netip.Addr
}

// NewAddresses returns a mapping with a key of its own.
func NewAddresses() *Addresses {
	a := &Addresses{done: map[netip.Addr]netip.Addr{}}
	_, _ = rand.Read(a.key[:]) // never fails
	return a
}

// What may be an address. Whether it is one netip says.
var (
	maybe4 = regexp.MustCompile(`\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b(?:/[0-9]{1,2}\b)?`)
	maybe6 = regexp.MustCompile(`[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?:/[0-9]{1,3}\b)?`)
	dashed = regexp.MustCompile(`\b[0-9]{1,3}(?:-[0-9]{1,3}){3}\b`) // as in names of hosts and endpoints
	mac    = regexp.MustCompile(`\b[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}\b`)
)

// Rewrite maps all addresses of a text, those of Ethernet among them. Loopback, unspecified and netmasks stay as they are.
func (a *Addresses) Rewrite(text []byte) []byte {
	text = mac.ReplaceAllFunc(text, a.mac)
	text = maybe6.ReplaceAllFunc(text, a.addr)
	text = maybe4.ReplaceAllFunc(text, a.addr)
	return dashed.ReplaceAllFunc(text, func(m []byte) []byte {
		addr, err := netip.ParseAddr(strings.ReplaceAll(string(m), "-", "."))
		if err != nil {
			return m
		}
		return []byte(strings.ReplaceAll(a.image(addr).String(), ".", "-"))
	})
}

// addr maps an address or a range, and leaves what is neither. A point or colon behind it is the sentence's.
func (a *Addresses) addr(m []byte) []byte {
	word := string(m)
	whole := strings.TrimRight(word, ":.")
	if strings.HasSuffix(word, "::") {
		whole = word
	}
	text, bits, isRange := strings.Cut(whole, "/")
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return m
	}
	image := a.image(addr)
	n, err := strconv.Atoi(bits)
	if isRange && err == nil && n <= addr.BitLen() {
		if netip.PrefixFrom(addr, n).Masked().Addr() == addr { // a range, and not an address of an interface
			image = netip.PrefixFrom(image, n).Masked().Addr()
		}
	}
	return []byte(image.String() + strings.TrimPrefix(word, text))
}

// image is what an address becomes.
func (a *Addresses) image(addr netip.Addr) netip.Addr {
	if addr.IsLoopback() || addr.IsUnspecified() || addr.Is4() && addr.As4()[0] == 255 {
		return addr
	}
	if image, ok := a.done[addr]; ok {
		return image
	}
	bytes := addr.AsSlice()
	image, _ := netip.AddrFromSlice(a.flip(bytes))
	a.done[addr] = image
	return image
}

// flip flips each bit by what the bits before it say.
func (a *Addresses) flip(bytes []byte) []byte {
	flipped := make([]byte, len(bytes))
	prefix := make([]byte, len(bytes)+2) // the bits before, their number, and of which family
	prefix[len(bytes)+1] = byte(len(bytes))
	for i := range 8 * len(bytes) {
		prefix[len(bytes)] = byte(i)
		h := hmac.New(sha256.New, a.key[:])
		h.Write(prefix)
		mask := byte(0x80) >> (i % 8)
		bit := bytes[i/8] & mask
		if h.Sum(nil)[0]&1 == 1 {
			flipped[i/8] |= bit ^ mask
		} else {
			flipped[i/8] |= bit
		}
		prefix[i/8] |= bit
	}
	return flipped
}

// mac maps a MAC address to a locally administered one; none, and that of all, stay.
func (a *Addresses) mac(m []byte) []byte {
	word := strings.ToLower(string(m))
	if word == "00:00:00:00:00:00" || word == "ff:ff:ff:ff:ff:ff" {
		return m
	}
	h := hmac.New(sha256.New, a.key[:])
	h.Write([]byte(word))
	sum := h.Sum(nil)
	const hex = "0123456789abcdef"
	image := []byte("02")
	for _, b := range sum[:5] {
		image = append(image, ':', hex[b>>4], hex[b&15])
	}
	return image
}
