package demo

import (
	"fmt"
	"strconv"
	"strings"
)

// Bytes is a size that is written like "256 MiB" and read like "256MiB". It is a flag's value (pflag.Value).
type Bytes int64

var byteUnits = []struct {
	name string
	size Bytes
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// String returns the size in the largest unit of which it is a multiple or ten and more.
func (b Bytes) String() string {
	for _, u := range byteUnits {
		if b >= u.size && (b%u.size == 0 || b >= 10*u.size) {
			return fmt.Sprintf("%d %s", (b+u.size/2)/u.size, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", int64(b))
}

// Set reads a size: a number of bytes, or of KiB, MiB or GiB.
func (b *Bytes) Set(s string) error {
	number, unit := strings.TrimSpace(s), Bytes(1)
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(n), u.size
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || Bytes(n) > (1<<50)/unit {
		return fmt.Errorf("want a size like 256MiB")
	}
	*b = Bytes(n) * unit
	return nil
}

// Type is what `--help` calls the value.
func (b *Bytes) Type() string { return "size" }
