package tool

import (
	"fmt"
	"strings"
)

// Limits of a name (RFC 1035, section 2.3.4): 255 bytes in a message are 253 characters without the dot at the end.
const (
	maxDNSName  = 253
	maxDNSLabel = 63
)

// CheckDNSName returns what keeps a name from being asked for, in a clause; nil for one that DNS can carry.
func CheckDNSName(name string) error {
	short := strings.TrimSuffix(name, ".")
	if short == "" && name != "" {
		return nil // the root
	}
	if len(short) > maxDNSName {
		return fmt.Errorf("a name of %d characters, of which DNS takes %d", len(short), maxDNSName)
	}
	for label := range strings.SplitSeq(short, ".") {
		switch {
		case label == "":
			return fmt.Errorf("name %q: a dot without anything before it", name)
		case len(label) > maxDNSLabel:
			return fmt.Errorf("name %q: %d characters between dots, of which DNS takes %d", name, len(label), maxDNSLabel)
		}
	}
	return nil
}
