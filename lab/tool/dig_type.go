package tool

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsTypes are the types of records that have a name here; others are TYPE123 (RFC 3597, section 5).
var dnsTypes = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "ANY": dnsmessage.TypeALL, "CNAME": dnsmessage.TypeCNAME,
	"HTTPS": dnsmessage.TypeHTTPS, "MX": dnsmessage.TypeMX, "NS": dnsmessage.TypeNS, "PTR": dnsmessage.TypePTR,
	"SOA": dnsmessage.TypeSOA, "SRV": dnsmessage.TypeSRV, "SVCB": dnsmessage.TypeSVCB, "TXT": dnsmessage.TypeTXT,
}

// ParseDNSType reads a type of record like AAAA, in any case, or TYPE99.
func ParseDNSType(s string) (t dnsmessage.Type, ok bool) {
	s = strings.ToUpper(s)
	if t, ok := dnsTypes[s]; ok {
		return t, true
	}
	number, ok := strings.CutPrefix(s, "TYPE")
	n, err := strconv.ParseUint(number, 10, 16)
	return dnsmessage.Type(n), ok && err == nil
}

func dnsTypeName(t dnsmessage.Type) string {
	for name, known := range dnsTypes {
		if t == known {
			return name
		}
	}
	return fmt.Sprintf("TYPE%d", t)
}

// rcodes are those of RFC 1035, section 4.1.1, RFC 2136, section 2.2, and RFC 6891, section 9.
var rcodes = map[dnsmessage.RCode]struct{ name, words string }{
	0: {"NOERROR", ""}, 1: {"FORMERR", "the server could not read the query"}, 2: {"SERVFAIL", "the server, or one that it asked, failed"},
	3: {"NXDOMAIN", "there is no such name"}, 4: {"NOTIMP", "the server does not answer queries of this kind"},
	5: {"REFUSED", "the server does not answer this client, or not about this name"}, 9: {"NOTAUTH", "the server is not in charge of this zone"},
	16: {"BADVERS", "the server does not know this version of EDNS"},
}

// rcodeName is a code's name as in dig(1).
func rcodeName(c dnsmessage.RCode) string {
	if w, ok := rcodes[c]; ok {
		return w.name
	}
	return fmt.Sprintf("RCODE%d", c)
}

// dnsText escapes what is no printable ASCII, quotes and backslashes as in zone files (RFC 1035, section 5.1).
func dnsText(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03d`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// recordData is what a record says, as in zone files.
func recordData(body dnsmessage.ResourceBody) string {
	name := func(n dnsmessage.Name) string { return dnsText(n.String()) }
	switch r := body.(type) {
	case *dnsmessage.AResource:
		return addrText(r.A[:])
	case *dnsmessage.AAAAResource:
		return addrText(r.AAAA[:])
	case *dnsmessage.CNAMEResource:
		return name(r.CNAME)
	case *dnsmessage.NSResource:
		return name(r.NS)
	case *dnsmessage.PTRResource:
		return name(r.PTR)
	case *dnsmessage.MXResource:
		return fmt.Sprintf("%d %s", r.Pref, name(r.MX))
	case *dnsmessage.SRVResource:
		return fmt.Sprintf("%d %d %d %s", r.Priority, r.Weight, r.Port, name(r.Target))
	case *dnsmessage.SOAResource:
		return fmt.Sprintf("%s %s %d %d %d %d %d", name(r.NS), name(r.MBox), r.Serial, r.Refresh, r.Retry, r.Expire, r.MinTTL)
	case *dnsmessage.TXTResource:
		var parts []string
		for _, s := range r.TXT {
			parts = append(parts, `"`+dnsText(s)+`"`)
		}
		return strings.Join(parts, " ")
	case *dnsmessage.HTTPSResource:
		return serviceBinding(r.SVCBResource)
	case *dnsmessage.SVCBResource:
		return serviceBinding(*r)
	case *dnsmessage.UnknownResource:
		return fmt.Sprintf(`\# %d %x`, len(r.Data), r.Data) // RFC 3597, section 5
	}
	return ""
}

// serviceBinding names parameters by their numbers (RFC 9460, section 2.1), their values in hexadecimal.
func serviceBinding(r dnsmessage.SVCBResource) string {
	text := fmt.Sprintf("%d %s", r.Priority, dnsText(r.Target.String()))
	for _, p := range r.Params {
		text += fmt.Sprintf(" key%d=0x%x", p.Key, p.Value)
	}
	return text
}
