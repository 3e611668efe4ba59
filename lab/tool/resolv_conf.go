package tool

import (
	"net/netip"
	"strconv"
	"strings"
)

// ResolvConf is what a resolv.conf(5) says, as far as a client needs it.
type ResolvConf struct {
	Servers []netip.AddrPort // in the order to ask them; port 53
	Search  []string         // domains, with a dot at the end
	NDots   int              // a name with as many dots is tried as it is before Search
}

// ParseResolvConf reads a resolv.conf as libraries do: lines that it does not know are passed over, of search and domain the
// last one counts, ndots is at most 15.
func ParseResolvConf(text string) ResolvConf {
	c := ResolvConf{NDots: 1}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.ContainsAny(fields[0][:1], "#;") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(fields[1]); err == nil {
				c.Servers = append(c.Servers, netip.AddrPortFrom(a, 53))
			}
		case "domain":
			c.Search = domains(fields[1:2])
		case "search":
			c.Search = domains(fields[1:])
		case "options":
			for _, o := range fields[1:] {
				if value, ok := strings.CutPrefix(o, "ndots:"); ok {
					if n, err := strconv.Atoi(value); err == nil {
						c.NDots = min(max(n, 0), 15)
					}
				}
			}
		}
	}
	return c
}

func domains(names []string) []string {
	var out []string
	for _, n := range names {
		if n = strings.TrimSuffix(n, "."); n != "" {
			out = append(out, n+".")
		}
	}
	return out
}

// Candidates returns the full names that a name may stand for, in the order in which they are tried. What a domain makes of it that
// DNS cannot carry, it does not stand for.
func (c ResolvConf) Candidates(name string) []string {
	if strings.HasSuffix(name, ".") {
		return []string{name}
	}
	var searched []string
	for _, domain := range c.Search {
		if full := name + "." + domain; CheckDNSName(full) == nil {
			searched = append(searched, full)
		}
	}
	if strings.Count(name, ".") >= c.NDots {
		return append([]string{name + "."}, searched...)
	}
	return append(searched, name+".")
}
