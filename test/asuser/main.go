//go:build linux

// Asuser runs a command as an ordinary user of an ordinary machine, to show that a test or the demo needs no more than that: a
// real uid other than 0 without groups and capabilities and with no_new_privs set, a fresh clone of this checkout as the working
// directory, /dev/net/tun with mode 0666, and nothing writable but $HOME and $XDG_RUNTIME_DIR. With --minimal (minimal.go) it
// shows too that nothing is needed on the machine but Go, make, a shell and the C library.
//
// It is three processes. The first (outside.go) prepares a home on disk and removes it at the end. It starts itself again as
// the first process of a mount and a process namespace (inside.go), which hides, binds and write-protects what the user shall
// not have (mounts.go, minimal.go), so that the machine's own mounts and its own /dev/net/tun never change. That one starts the command; when
// either ends, the kernel ends whatever the command left running.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
)

const usage = `usage: go run ./test/asuser [flags] -- COMMAND [ARG...]

Runs COMMAND as an ordinary user in a fresh clone of this checkout. Needs root. Writable are only $HOME and $XDG_RUNTIME_DIR,
both fresh and removed at the end; /dev/net/tun is open to everybody there. COMMAND's exit code becomes asuser's own (go run
turns every one but 0 into 1).

  go run ./test/asuser -- make test
  go run ./test/asuser --worktree -- go test -run Rootless -v ./lab
  go run ./test/asuser --minimal -- make demo
  go run ./test/asuser --minimal --with 'cat sleep' -- sh -c 'cat /proc/self/mountinfo; echo /*'
  go run ./test/asuser -- sh -c 'id; grep -E "Cap|NoNew" /proc/self/status; touch /tmp/x'

flags:
`

func main() {
	runtime.LockOSThread() // death signals below belong to the thread that asks for them
	code, err := run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "asuser: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run() (code int, err error) {
	if os.Args[0] == insideName {
		return inside(os.Args[1])
	}
	o, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return 2, err
	}
	return outside(o)
}

// options is what the command line says.
type options struct {
	uid      int    // also the gid; needs no account
	worktree bool   // also what is not committed
	minimal  bool   // in a root that has only Go, make, a shell and the C library
	with     string // programs that the minimal root has besides, separated by spaces
	cold     bool   // start with an empty build cache
	dir      string // holds the home while it is in use
	command  []string
}

func parseFlags(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("asuser", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.IntVar(&o.uid, "uid", 20210, "user and group id to run as; no account of that number is needed")
	flags.BoolVar(&o.worktree, "worktree", false, "copy the working tree with its uncommitted files instead of cloning HEAD")
	flags.BoolVar(&o.minimal, "minimal", false, "in a root that holds nothing but Go, make, sh, the C library and a few devices, without the module proxy")
	flags.StringVar(&o.with, "with", "", "programs that the minimal root has besides, for example 'cat sleep'")
	flags.BoolVar(&o.cold, "cold", false, "start with an empty build cache instead of a copy of root's")
	flags.StringVar(&o.dir, "dir", "/var/tmp", "make the home in this directory: one on disk, for a build cache weighs gigabytes")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.command = flags.Args()
	if len(o.command) == 0 {
		return o, errors.New("no command given, for example: go run ./test/asuser -- make test")
	}
	if o.with != "" && !o.minimal {
		return o, errors.New("--with says what a minimal root has besides: give --minimal too")
	}
	if o.uid <= 0 {
		return o, fmt.Errorf("--uid %d: give a number above 0, an ordinary user is not root", o.uid)
	}
	return o, nil
}
