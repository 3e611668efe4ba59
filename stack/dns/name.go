package dns

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of names and labels, in bytes (RFC 1035, section 2.3.4).
const (
	maxName  = 255 // the root's byte included
	maxLabel = 63
)

// name is a name as it stands in messages, in lower case, with the places of its labels. Its zero value is to be filled by read.
type name struct {
	b    [maxName]byte
	at   [128]uint8 // where in b label i begins
	size int        // bytes of b, the root's included
	n    int        // labels, the root not counted
}

// read reads the uncompressed name that begins at off in msg, and returns where it ends. A compressed name, an unknown kind of label
// and one that is longer than allowed are not ok.
func (nm *name) read(msg []byte, off int) (end int, ok bool) {
	nm.size, nm.n = 0, 0
	for off < len(msg) {
		l := int(msg[off])
		if l == 0 {
			nm.b[nm.size] = 0
			nm.size++
			return off + 1, true
		}
		if l > maxLabel || nm.size+1+l >= maxName || off+1+l > len(msg) {
			return 0, false
		}
		nm.add(msg[off : off+1+l])
		off += 1 + l
	}
	return 0, false
}

// lower copies src to dst with ASCII letters in lower case: no others have a case in DNS (RFC 4343).
func lower(dst, src []byte) {
	dst = dst[:len(src)]
	for i, c := range src {
		if c-'A' < 26 {
			c |= 0x20
		}
		dst[i] = c
	}
}

// follow reads the name that begins at off in msg and may be compressed (RFC 1035, section 4.1.4), and returns where it ends there. Pointers
// lead backward, in front of where they were found, so that there is an end. pointers, if not nil, gets the place of the first pointer:
// what it leads to has been seen before.
func (nm *name) follow(msg []byte, off int, pointers *[]uint16) (end int, ok bool) {
	nm.size, nm.n = 0, 0
	limit := off // pointers lead in front of it
	for off < len(msg) {
		l := int(msg[off])
		switch {
		case l == 0:
			nm.b[nm.size] = 0
			nm.size++
			if end == 0 {
				end = off + 1
			}
			return end, true
		case l >= 0xC0:
			if off+2 > len(msg) {
				return 0, false
			}
			to := l&0x3F<<8 | int(msg[off+1])
			if to >= limit || to < headerLen {
				return 0, false
			}
			if end == 0 {
				end = off + 2
				if pointers != nil {
					*pointers = append(*pointers, uint16(off))
				}
			}
			off, limit = to, to
			continue
		case l > maxLabel || nm.size+1+l >= maxName || off+1+l > len(msg):
			return 0, false
		}
		nm.add(msg[off : off+1+l])
		off += 1 + l
	}
	return 0, false
}

// add adds a label with its length.
func (nm *name) add(label []byte) {
	nm.at[nm.n] = uint8(nm.size)
	nm.n++
	nm.b[nm.size] = label[0]
	lower(nm.b[nm.size+1:], label[1:])
	nm.size += len(label)
}

// wire returns the whole name.
func (nm *name) wire() []byte { return nm.b[:nm.size] }

// label returns label i without its length.
func (nm *name) label(i int) []byte {
	at := int(nm.at[i])
	return nm.b[at+1 : at+1+int(nm.b[at])]
}

// labels returns labels i to j, j not included, with their lengths.
func (nm *name) labels(i, j int) []byte { return nm.b[nm.start(i):nm.start(j)] }

// start returns where label i begins; the root is label n.
func (nm *name) start(i int) int {
	if i == nm.n {
		return nm.size - 1
	}
	return int(nm.at[i])
}

// above returns the number of labels in front of the suffix, which is in lower-case wire format; -1 if it is none.
func (nm *name) above(suffix string) int {
	at := nm.size - len(suffix)
	if at < 0 || string(nm.b[at:nm.size]) != suffix {
		return -1
	}
	for i := nm.n; i >= 0; i-- {
		switch s := nm.start(i); {
		case s == at:
			return i
		case s < at:
			return -1
		}
	}
	return -1
}

// toWire returns a name like "cluster.local" in lower-case wire format. A dot at its end makes no difference.
func toWire(s string) (string, error) {
	s = strings.TrimSuffix(s, ".")
	if s == "" {
		return "\x00", nil
	}
	var b strings.Builder
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel {
			return "", fmt.Errorf("name %q: a label has 1 to %d bytes", s, maxLabel)
		}
		b.WriteByte(byte(len(label)))
		b.WriteString(strings.ToLower(label))
	}
	b.WriteByte(0)
	if b.Len() > maxName {
		return "", fmt.Errorf("name %q: a name has at most %d bytes in a message", s, maxName)
	}
	return b.String(), nil
}

// errLabel says that a part of a name is none.
var errLabel = errors.New("not a label of 1 to 63 bytes")

// labelsOf returns labels in lower-case wire format, without the root.
func labelsOf(labels ...string) (string, error) {
	var b strings.Builder
	for _, l := range labels {
		if l == "" || len(l) > maxLabel {
			return "", fmt.Errorf("%q: %w", l, errLabel)
		}
		b.WriteByte(byte(len(l)))
		b.WriteString(strings.ToLower(l))
	}
	return b.String(), nil
}
