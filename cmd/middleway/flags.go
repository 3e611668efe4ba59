package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// inWords says what a flag wants where its value's own error is one of Go's packages.
func inWords(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	flag := invalid.GetFlag()
	problem := invalid.Unwrap()
	switch kind := flag.Value.Type(); {
	case kind == "bool":
		problem = errors.New("want true or false")
	case kind == "duration":
		problem = errors.New("want a time like 500ms or 10s")
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		problem = errors.New("want a whole number")
	}
	return fmt.Errorf("--%s %q: %w", flag.Name, invalid.GetValue(), problem)
}

// addrFlag is an IP address as a flag.
type addrFlag netip.Addr

func (f *addrFlag) Set(s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("an address like 192.168.254.11 is needed")
	}
	*f = addrFlag(a)
	return nil
}

func (f *addrFlag) String() string {
	if a := netip.Addr(*f); a.IsValid() {
		return a.String()
	}
	return ""
}

func (f *addrFlag) Type() string { return "address" }

// addrPortFlag is an IP address with a port as a flag.
type addrPortFlag netip.AddrPort

func (f *addrPortFlag) Set(s string) error {
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		return errors.New("want an address with a port, like 10.96.3.4:5211 or [fd00:10:96::7]:5211")
	}
	*f = addrPortFlag(a)
	return nil
}

func (f *addrPortFlag) String() string {
	if a := netip.AddrPort(*f); a.IsValid() {
		return a.String()
	}
	return ""
}

func (f *addrPortFlag) Type() string { return "address" }

// addrFlags are IP addresses, given by a flag each.
type addrFlags []netip.Addr

func (f *addrFlags) Set(s string) error {
	var a addrFlag
	if err := a.Set(s); err != nil {
		return err
	}
	*f = append(*f, netip.Addr(a))
	return nil
}

func (f *addrFlags) String() string {
	if len(*f) == 0 {
		return ""
	}
	return fmt.Sprint(*f)
}

func (f *addrFlags) Type() string { return "address" }

// prefixFlags are ranges of addresses, given by a flag each.
type prefixFlags []netip.Prefix

func (f *prefixFlags) Set(s string) error {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("a range like 10.244.1.0/24 is needed")
	}
	*f = append(*f, p)
	return nil
}

func (f *prefixFlags) String() string {
	if len(*f) == 0 {
		return ""
	}
	return fmt.Sprint(*f)
}

func (f *prefixFlags) Type() string { return "range" }

// pathFlag is a path as a flag, which may be relative to where the command is given.
type pathFlag string

func (f *pathFlag) Set(s string) error {
	if s == "" {
		return nil
	}
	abs, err := filepath.Abs(s)
	*f = pathFlag(abs)
	return err
}

func (f *pathFlag) String() string { return string(*f) }

func (f *pathFlag) Type() string { return "path" }

// canBeMade says what is wrong with a file that is to be written, as far as that is known beforehand; "" is none.
func canBeMade(flag, path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(filepath.Dir(path))
	if err != nil || !info.IsDir() {
		return fmt.Errorf("%s %s: there is no directory %s; make it, or name a file elsewhere", flag, path, filepath.Dir(path))
	}
	if info, err = os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s %s: is a directory; name a file in it", flag, path)
	}
	return nil
}

// logFlags choose the form of a daemon's log.
type logFlags struct{ level, format string }

func (f *logFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.level, "log-level", "info", "least level of the log lines: debug, info, warn, error")
	cmd.Flags().StringVar(&f.format, "log-format", "text", "form of the log lines: text (key=value) or json")
}

func (f *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", f.level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", f.format)
}

// saidBy says which command an error is of.
func saidBy(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", cmd.Name(), err)
}
