package tool

import (
	"net/netip"
	"strconv"
	"strings"
)

// ResolvConf is what a resolv.conf(5) says, word for word.
type ResolvConf struct {
	Nameservers []string
	Search      []string // domains
	Options     []string
}

// ParseResolvConf reads a resolv.conf as libraries do: lines that it does not know are passed over, of search and domain the
// last one counts, of nameserver and options all.
func ParseResolvConf(text string) (c ResolvConf) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			c.Nameservers = append(c.Nameservers, words[1])
		case "domain":
			c.Search = words[1:2]
		case "search":
			c.Search = words[1:]
		case "options":
			c.Options = append(c.Options, words[1:]...)
		}
	}
	return c
}

// String is the file that says so.
func (c ResolvConf) String() string {
	var b strings.Builder
	line := func(key string, words ...string) {
		if len(words) > 0 {
			b.WriteString(key + " " + strings.Join(words, " ") + "\n")
		}
	}
	line("search", c.Search...)
	for _, s := range c.Nameservers {
		line("nameserver", s)
	}
	line("options", c.Options...)
	return b.String()
}

// Servers returns the name servers, at port 53, in the order to ask them. What is no address is left out.
func (c ResolvConf) Servers() (servers []netip.AddrPort) {
	for _, s := range c.Nameservers {
		if a, err := netip.ParseAddr(s); err == nil {
			servers = append(servers, netip.AddrPortFrom(a, 53))
		}
	}
	return servers
}

// nDots returns how many dots a name has, 0 to 15, that is tried as it is before Search.
func (c ResolvConf) nDots() int {
	n := 1
	for _, o := range c.Options {
		if value, ok := strings.CutPrefix(o, "ndots:"); ok {
			if v, err := strconv.Atoi(value); err == nil {
				n = min(max(v, 0), 15)
			}
		}
	}
	return n
}

// Candidates returns the full names that a name may stand for, in the order in which they are tried. What a domain makes of it that
// DNS cannot carry, it does not stand for.
func (c ResolvConf) Candidates(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var searched []string
	for _, domain := range c.Search {
		if full := name + "." + strings.TrimSuffix(domain, ".") + "."; domain != "." && CheckDNSName(full) == nil {
			searched = append(searched, full)
		}
	}
	if strings.Count(name, ".") >= c.nDots() {
		return append([]string{name + "."}, searched...)
	}
	return append(searched, name+".")
}
