//go:build linux

// Tunonly boots a kernel whose only network driver is tun, shows what it lacks, and runs the demo and the tests in it. The kernel
// is Debian's user-mode-linux: a program of an ordinary user that needs no virtualization and sees the files of this machine,
// read-only. It also needs a C compiler, for a library that this kernel lacks (xstate/ptrace.c).
//
// It is one program in four places:
//
//	tunonly (outside.go)     prepares a directory, starts the others, calls go test, reports
//	├── go test -exec        builds the tests here and hands each to
//	│   └── tunonly exec     (exec.go) which puts it into the queue, a directory, and waits for what became of it
//	└── tunonly contain      (contain.go) the first process of a process namespace that ends whatever runs in it; one per machine
//	    └── linux.uml
//	        └── tunonly guest  (guest.go) /sbin/init of the machine: mounts, loads tun, probes (lacks.go), works off the queue
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"
)

const usage = `usage: go run ./test/tunonly [flags] [PACKAGE...]

Boots user-mode-linux with tun as the only network driver, shows what that kernel lacks, and runs the demo and the tests of
the packages in it, as root and as an ordinary user. It needs Debian's package user-mode-linux, a C compiler, and
no privileges.

  go run ./test/tunonly
  go run ./test/tunonly -ipv6=false
  go run ./test/tunonly -demo=false -test '-v -run Router' ./test/e2e
  go run ./test/tunonly -command 'id; ip link; $MIDDLEWAY_PROGRAM demo'

flags:
`

func main() {
	runtime.LockOSThread() // death signals belong to the thread that asks for them
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "tunonly: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 1 {
		switch args[0] {
		case guestMode:
			return guest(args[1:])
		case containMode:
			return contain(args[1:])
		case execMode:
			code, err := handOver(args[1:])
			if err == nil {
				os.Exit(code)
			}
			return err
		}
	}
	o, err := parseFlags(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done within %v (-limit)", o.limit))
	defer cancel()
	return outside(ctx, o)
}

// options is what the command line says.
type options struct {
	ipv6      bool
	demo      bool
	machines  int
	limit     time.Duration
	dir       string
	testFlags string
	all       bool
	packages  []string
	asUser    []string
	command   string
}

func parseFlags(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("tunonly", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.BoolVar(&o.ipv6, "ipv6", true, "load the kernel's IPv6; without it the kernel has none")
	flags.BoolVar(&o.demo, "demo", true, "run the demo, as root and as an ordinary user")
	flags.IntVar(&o.machines, "machines", min(2, runtime.NumCPU()), "boot that many machines of one CPU each, which share the tests")
	flags.DurationVar(&o.limit, "limit", 15*time.Minute, "end everything after this time")
	flags.StringVar(&o.dir, "dir", "/var/tmp", "make the working directory, which is removed at the end, in this one")
	flags.StringVar(&o.testFlags, "test", "", "further flags for go test, separated by spaces")
	flags.BoolVar(&o.all, "all", false, "leave out nothing, and move as much data as on a fast machine; give that a -limit of an hour")
	flags.StringVar(&o.command, "command", "", "run this shell command, and neither demo nor tests")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.machines < 1 {
		return o, fmt.Errorf("-machines %d: want at least 1", o.machines)
	}
	switch o.packages = flags.Args(); {
	case len(o.packages) > 0:
	case o.ipv6:
		if o.packages, o.asUser = packages, asUser; o.all {
			o.packages = slices.Concat(packages, alikeEverywhere)
		}
	default:
		o.packages = withoutIPv6
	}
	return o, nil
}
