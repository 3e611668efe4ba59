package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// Exit codes of all tools.
const (
	toolNo    = 1 // asked, and the answer is no, or there is none
	toolWrong = 2 // not asked: a wrong command line, or this machine could not
)

const toolHelp = `Small clients and servers that a bare machine lacks, for use in pods and outside of them. All know IPv4 and IPv6, all clients
have -o json, and exit codes are those of the question: 0 it worked, 1 it did not (no reply, refused, an error as answer), 2 it was
not asked, for the command line or this machine is not fit for it.`

func toolCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tool",
		Short: "Small clients and servers for pods on a bare machine",
		Long:  toolHelp,
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		toolPingCommand(),
		toolGetCommand(),
		toolServeCommand(),
		toolDigCommand(),
		toolPerfCommand(),
		toolStandInCommand(),
		toolProbeCommand(),
	)
	cmd.SetFlagErrorFunc(wrongFlag)
	return cmd
}

// wrong is the error of a question that could not be asked.
func wrong(format string, args ...any) error {
	return &exitError{toolWrong, fmt.Errorf(format, args...)}
}

// wrongFlag is the error of a flag that is not known, or has a wrong value.
func wrongFlag(cmd *cobra.Command, err error) error {
	if unknown := unknownCommand(cmd); unknown != nil {
		return wrong("%w", unknown)
	}
	return wrong("%w; `%s --help` lists the flags", inWords(err), cmd.CommandPath())
}

// familyFlags let a name be asked for addresses of one family.
type familyFlags struct{ four, six bool }

func (f *familyFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.four, "ipv4", "4", false, "IPv4 only")
	cmd.Flags().BoolVarP(&f.six, "ipv6", "6", false, "IPv6 only")
	cmd.MarkFlagsMutuallyExclusive("ipv4", "ipv6")
}

// suffix makes "ip" or "tcp" the network of the family.
func (f *familyFlags) suffix() string {
	switch {
	case f.four:
		return "4"
	case f.six:
		return "6"
	}
	return ""
}

// resolve returns the first address of a host, which may be an address itself.
func (f *familyFlags) resolve(ctx context.Context, host string) (netip.Addr, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip"+f.suffix(), host)
	if err != nil {
		return netip.Addr{}, err
	}
	return addrs[0].Unmap(), nil
}

// outputFlag is -o.
type outputFlag string

func (f *outputFlag) register(cmd *cobra.Command) {
	*f = "text"
	cmd.Flags().VarP(f, "output", "o", "text or json")
}

func (f *outputFlag) json() bool     { return *f == "json" }
func (f *outputFlag) String() string { return string(*f) }
func (f *outputFlag) Type() string   { return "form" }

func (f *outputFlag) Set(s string) error {
	if s != "text" && s != "json" {
		return errors.New("want text or json")
	}
	*f = outputFlag(s)
	return nil
}

// secondsFlag is a time, also as a bare number of seconds, as ping(8) and dig(1) take it.
type secondsFlag time.Duration

func (f *secondsFlag) Set(s string) error {
	d, err := time.ParseDuration(s)
	if seconds, errNumber := strconv.ParseFloat(s, 64); errNumber == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d <= 0 {
		return errors.New("want a time like 0.5, 500ms or 10s")
	}
	*f = secondsFlag(d)
	return nil
}

func (f *secondsFlag) String() string { return time.Duration(*f).String() }
func (f *secondsFlag) Type() string   { return "time" }

func toJSON(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // only our own plain structs come here
	}
	return string(b)
}
