package tool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// DigConfig says how a DNS server is asked.
type DigConfig struct {
	// Dial makes connections. Default: those of this process.
	Dial Dial
	// TCP asks by TCP at once; else by UDP, and by TCP where the answer does not fit.
	TCP bool
	// Timeout is how long each try is waited for. Default 2 s.
	Timeout time.Duration
	// Tries with each server. Default 2.
	Tries int
	// PlainDNS leaves EDNS (RFC 6891) away, and with it UDP answers of more than 512 bytes.
	PlainDNS bool
}

// DNSRecord is a resource record in words.
type DNSRecord struct {
	Name string `json:"name"`
	TTL  uint32 `json:"ttl"` // seconds
	Type string `json:"type"`
	Data string `json:"data"` // as in zone files
}

// DNSAnswer is what a server answered.
type DNSAnswer struct {
	Name          string         `json:"name"` // that was asked for
	Type          string         `json:"type"`
	RCode         string         `json:"rcode"` // NOERROR, NXDOMAIN, …
	Authoritative bool           `json:"authoritative"`
	Recursion     bool           `json:"recursionAvailable"`
	Truncated     bool           `json:"truncated"` // even by TCP
	Answers       []DNSRecord    `json:"answers"`
	Authority     []DNSRecord    `json:"authority"`
	Additional    []DNSRecord    `json:"additional"`
	Server        netip.AddrPort `json:"server"`
	Network       string         `json:"network"` // udp or tcp
	Bytes         int            `json:"bytes"`
	Took          Millis         `json:"tookMs"`
}

// Words says what the code means; empty for NOERROR.
func (a *DNSAnswer) Words() string {
	for _, w := range rcodes {
		if w.name == a.RCode {
			return w.words
		}
	}
	return "the server refused with a code that is not known here"
}

// String is the answer in lines: a comment, then records as in zone files.
func (a *DNSAnswer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, ";; %s %s: %s", a.Name, a.Type, a.RCode)
	if words := a.Words(); words != "" {
		fmt.Fprintf(&b, ", %s", words)
	} else if len(a.Answers) == 0 {
		fmt.Fprint(&b, ", the name has no such record")
	}
	if a.Authoritative {
		b.WriteString("; authoritative")
	}
	if a.Truncated {
		b.WriteString("; truncated")
	}
	fmt.Fprintf(&b, "; %v by %s, %d bytes, %v\n", a.Server, a.Network, a.Bytes, a.Took)
	for _, section := range []struct {
		heading string
		records []DNSRecord
	}{{"", a.Answers}, {";; authority\n", a.Authority}, {";; additional\n", a.Additional}} {
		if len(section.records) > 0 {
			b.WriteString(section.heading)
		}
		for _, r := range section.records {
			fmt.Fprintf(&b, "%s\t%d\tIN\t%s\t%s\n", r.Name, r.TTL, r.Type, r.Data)
		}
	}
	return b.String()
}

// udpAnswer is the largest answer by UDP that is asked for: it fits an IPv6 packet that no network cuts (DNS Flag Day 2020).
const udpAnswer = 1232

// Dig asks servers, one after another, until one answers, with whatever code. A name without a dot at its end is taken as if it had one.
func Dig(ctx context.Context, name string, t dnsmessage.Type, servers []netip.AddrPort, c DigConfig) (*DNSAnswer, error) {
	if !strings.HasSuffix(name, ".") {
		name += "."
	}
	if err := CheckDNSName(name); err != nil {
		return nil, err
	}
	n, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", name, err)
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	c.Timeout, c.Tries = orDefault(c.Timeout, 2*time.Second), max(c.Tries, 1)
	err = errors.New("no server to ask")
	for range c.Tries {
		for _, server := range servers {
			var a *DNSAnswer
			if a, err = c.ask(ctx, dnsmessage.Question{Name: n, Type: t, Class: dnsmessage.ClassINET}, server); err == nil {
				return a, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return nil, err
}

func (c DigConfig) ask(ctx context.Context, q dnsmessage.Question, server netip.AddrPort) (*DNSAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	network := "udp"
	if c.TCP {
		network = "tcp"
	}
	a, err := c.exchange(ctx, q, network, server)
	if err == nil && a.Truncated && network == "udp" {
		a, err = c.exchange(ctx, q, "tcp", server)
	}
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("no answer within %v", c.Timeout)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %v: %w", server, err)
	}
	return a, nil
}

// exchange sends a query over a connection of its own and waits for its answer.
func (c DigConfig) exchange(ctx context.Context, q dnsmessage.Question, network string, server netip.AddrPort) (*DNSAnswer, error) {
	query, id, err := c.query(q)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	conn, err := c.Dial(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // fails only when closed
	defer stop()
	receive := receiveDatagram
	if network == "tcp" {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
		receive = receivePrefixed
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	for buf := make([]byte, 1<<16); ; {
		n, err := receive(conn, buf)
		if err != nil {
			return nil, err
		}
		a, err := parseDNS(buf[:n], id, q)
		if errors.Is(err, errNotOurs) && network == "udp" {
			continue // somebody else's, or an answer that came too late: the right one may follow
		}
		if err != nil {
			return nil, err
		}
		a.Server, a.Network, a.Bytes, a.Took = server, network, n, Millis(time.Since(start))
		return a, nil
	}
}

func receiveDatagram(conn net.Conn, buf []byte) (int, error) { return conn.Read(buf) }

// receivePrefixed reads a message behind its length (RFC 1035, section 4.2.2).
func receivePrefixed(conn net.Conn, buf []byte) (int, error) {
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return 0, fmt.Errorf("read the answer's length: %w", err)
	}
	n, err := io.ReadFull(conn, buf[:binary.BigEndian.Uint16(buf)])
	if err != nil {
		return 0, fmt.Errorf("read the answer: %w", err)
	}
	return n, nil
}

func (c DigConfig) query(q dnsmessage.Question) (query []byte, id uint16, err error) {
	id = uint16(rand.IntN(1 << 16))
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{q},
	}
	if !c.PlainDNS {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(udpAnswer, 0, false); err != nil {
			return nil, 0, err
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	query, err = m.Pack()
	return query, id, err
}

// errNotOurs is the error of a message that answers another question, or none.
var errNotOurs = errors.New("the server answered another question")

// parseDNS reads the answer to a question.
func parseDNS(b []byte, id uint16, q dnsmessage.Question) (*DNSAnswer, error) {
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if !m.Response || m.ID != id || len(m.Questions) > 1 || len(m.Questions) == 1 && !sameQuestion(m.Questions[0], q) {
		return nil, errNotOurs
	}
	rcode := m.RCode
	for _, r := range m.Additionals {
		if r.Header.Type == dnsmessage.TypeOPT {
			rcode = r.Header.ExtendedRCode(m.RCode)
		}
	}
	if len(m.Questions) == 0 && rcode == dnsmessage.RCodeSuccess { // those who could not read it need not repeat it
		return nil, errNotOurs
	}
	return &DNSAnswer{
		Name: dnsText(q.Name.String()), Type: dnsTypeName(q.Type), RCode: rcodeName(rcode),
		Authoritative: m.Authoritative, Recursion: m.RecursionAvailable, Truncated: m.Truncated,
		Answers: records(m.Answers), Authority: records(m.Authorities), Additional: records(m.Additionals),
	}, nil
}

// sameQuestion compares as DNS does, without regard to case.
func sameQuestion(a, b dnsmessage.Question) bool {
	return a.Type == b.Type && a.Class == b.Class && strings.EqualFold(a.Name.String(), b.Name.String())
}

func records(resources []dnsmessage.Resource) []DNSRecord {
	out := []DNSRecord{}
	for _, r := range resources {
		if r.Header.Type != dnsmessage.TypeOPT { // which is no record of the zone
			out = append(out, DNSRecord{dnsText(r.Header.Name.String()), r.Header.TTL, dnsTypeName(r.Header.Type), recordData(r.Body)})
		}
	}
	return out
}

// ReverseName is the name under which an address has its PTR record (RFC 1035, section 3.5; RFC 3596, section 2.5).
func ReverseName(a netip.Addr) string {
	a = a.Unmap()
	b := a.AsSlice()
	var name strings.Builder
	for i := len(b) - 1; i >= 0; i-- {
		if a.Is4() {
			fmt.Fprintf(&name, "%d.", b[i])
		} else {
			fmt.Fprintf(&name, "%x.%x.", b[i]&0xf, b[i]>>4)
		}
	}
	if a.Is4() {
		return name.String() + "in-addr.arpa."
	}
	return name.String() + "ip6.arpa."
}

func addrText(b []byte) string {
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}
