package dns

import "net/netip"

// parseDashed reads an address with dashes in place of dots or colons: 10-244-1-5, fd00-10-244--5. It allocates nothing.
func parseDashed(b []byte) (netip.Addr, bool) {
	if a, ok := parseDashed4(b); ok {
		return a, true
	}
	return parseDashed6(b)
}

func parseDashed4(b []byte) (netip.Addr, bool) {
	var a [4]byte
	part, digits, value := 0, 0, 0
	for _, c := range b {
		switch {
		case c == '-' && digits > 0 && part < 3:
			a[part] = byte(value)
			part, digits, value = part+1, 0, 0
		case c >= '0' && c <= '9' && (digits == 0 || value > 0):
			digits, value = digits+1, 10*value+int(c-'0')
			if value > 255 {
				return netip.Addr{}, false
			}
		default:
			return netip.Addr{}, false
		}
	}
	a[part] = byte(value)
	return netip.AddrFrom4(a), part == 3 && digits > 0
}

// parseDashed6 reads at most eight groups of at most four digits, in place of some of which two dashes may stand once (RFC 4291, section
// 2.2). The form with an IPv4 address at the end is none that anyone writes with dashes.
func parseDashed6(b []byte) (netip.Addr, bool) {
	var groups [8]uint16
	n, gap := 0, -1
	for len(b) > 0 {
		if b[0] == '-' { // a second dash, or two at the beginning
			if gap >= 0 || n == 0 && (len(b) < 2 || b[1] != '-') {
				return netip.Addr{}, false
			}
			gap = n
			if b = b[1:]; n == 0 {
				b = b[1:]
			}
			continue
		}
		value, digits := hexGroup(b)
		if digits == 0 || digits > 4 || n == 8 {
			return netip.Addr{}, false
		}
		groups[n] = value
		n++
		b = b[digits:]
		if len(b) > 0 {
			if b[0] != '-' || len(b) == 1 {
				return netip.Addr{}, false
			}
			b = b[1:]
		}
	}
	return expand(groups, n, gap)
}

func hexGroup(b []byte) (value uint16, digits int) {
	for _, c := range b {
		h := hexDigit(c)
		if h > 15 || digits > 4 {
			break
		}
		value, digits = value<<4|uint16(h), digits+1
	}
	return value, digits
}

// hexDigit returns the value of a digit; more than 15 if it is none.
func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 16
}

// expand puts zeros where the gap is.
func expand(groups [8]uint16, n, gap int) (netip.Addr, bool) {
	if n == 8 != (gap < 0) {
		return netip.Addr{}, false
	}
	var a [16]byte
	for i := range n {
		at := i
		if gap >= 0 && i >= gap {
			at = 8 - n + i
		}
		a[2*at], a[2*at+1] = byte(groups[i]>>8), byte(groups[i])
	}
	return netip.AddrFrom16(a), true
}

// parseReverse reads the address of a name for reverse lookups. first is the number of labels in front of in-addr.arpa or ip6.arpa, and
// ok says that the name is a whole address; a name that ends like one and is none is not.
func parseReverse(nm *name) (a netip.Addr, first int, ok bool) {
	if i := nm.above("\x07in-addr\x04arpa\x00"); i >= 0 {
		a, ok = reverse4(nm, i)
		return a, i, ok
	}
	if i := nm.above("\x03ip6\x04arpa\x00"); i >= 0 {
		a, ok = reverse6(nm, i)
		return a, i, ok
	}
	return netip.Addr{}, -1, false
}

func reverse4(nm *name, n int) (netip.Addr, bool) {
	if n != 4 {
		return netip.Addr{}, false
	}
	var a [4]byte
	for i := range 4 {
		value := 0
		label := nm.label(i)
		for k, c := range label {
			if c < '0' || c > '9' || k > 2 || value == 0 && k > 0 {
				return netip.Addr{}, false
			}
			value = 10*value + int(c-'0')
		}
		if len(label) == 0 || value > 255 {
			return netip.Addr{}, false
		}
		a[3-i] = byte(value)
	}
	return netip.AddrFrom4(a), true
}

func reverse6(nm *name, n int) (netip.Addr, bool) {
	if n != 32 {
		return netip.Addr{}, false
	}
	var a [16]byte
	for i := range 32 {
		label := nm.label(i)
		h := hexDigit(label[0])
		if len(label) != 1 || h > 15 {
			return netip.Addr{}, false
		}
		a[15-i/2] |= h << (4 * (i & 1))
	}
	return netip.AddrFrom16(a), true
}
