package main

import (
	"cmp"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// wantsColor tells whether w is a terminal whose user takes colour (no-color.org).
func wantsColor(w io.Writer) bool { return os.Getenv("NO_COLOR") == "" && movesCursor(w) }

// movesCursor tells whether w is a terminal on which a line can be written over.
func movesCursor(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

const (
	minColumns = 60 // below, lines may as well break anywhere
	maxColumns = 100
)

// textWidth returns how many columns text for w may have: what a terminal has, within what is comfortable to read.
func textWidth(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return min(max(int(size.Col), minColumns), maxColumns)
		}
	}
	return maxColumns
}

// utf8Locale tells whether the user's locale has UTF-8 characters, as POSIX finds the locale (XBD 8.2).
func utf8Locale() bool {
	locale := cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG"))
	_, codeset, _ := strings.Cut(locale, ".")
	codeset, _, _ = strings.Cut(codeset, "@")
	return strings.EqualFold(strings.ReplaceAll(codeset, "-", ""), "utf8")
}
