//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// outside boots the machines, lets them work, and leaves nothing of them behind.
func outside(ctx context.Context, o options) (err error) {
	// A killed make does not pass the signal on.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("ask for a signal when the parent ends: %w", err)
	}
	begin := time.Now()
	u, err := findUML()
	if err != nil {
		return err
	}
	source, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(source, "cmd/middleway")); err != nil {
		return fmt.Errorf("%w: call this from the root of a checkout", err)
	}
	work, err := prepare(ctx, o)
	if work != "" {
		defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	}
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancelCause(ctx)
	machines, err := bootAll(ctx, o, u, work, source)
	defer func() {
		for _, m := range machines {
			<-m.ended
		}
	}()
	defer stop(nil)
	if err != nil {
		return err
	}
	for _, m := range machines { // one that ends before its time ends all
		go func() {
			<-m.ended
			stop(m.why())
		}()
	}
	err = show(ctx, o, machines, work, source)
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(err, cause, unfinished(work))
	}
	fmt.Printf("%d machines of one processor, %.0f s in all\n", len(machines), time.Since(begin).Seconds())
	return err
}

// prepare makes the working directory with the programs.
func prepare(ctx context.Context, o options) (work string, err error) {
	if work, err = os.MkdirTemp(o.dir, "mw-tunonly-"); err != nil {
		return "", fmt.Errorf("make a working directory (-dir gives another place): %w", err)
	}
	if err := errors.Join(os.Chmod(work, 0o755), makeQueue(work)); err != nil {
		return work, err
	}
	build := []string{"go", "build", "-trimpath", "-buildvcs=false", "-o"}
	for _, command := range [][]string{
		append(build, filepath.Join(work, tunonlyName), "./test/tunonly"),
		append(build, filepath.Join(work, middlewayName), "./cmd/middleway"),
		{"cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", filepath.Join(work, xstateName), "test/tunonly/xstate/ptrace.c"},
	} {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return work, fmt.Errorf("%s: %w", strings.Join(command, " "), err)
		}
	}
	return work, nil
}

// bootAll returns the machines that were started, also with an error.
func bootAll(ctx context.Context, o options, u uml, work, source string) (machines []*machine, err error) {
	cpus, err := processors()
	if err != nil {
		return nil, err
	}
	for i := range o.machines {
		m, err := start(ctx, u, i+1, cpus[i%len(cpus)], work, source, o.ipv6)
		if err != nil {
			return machines, err
		}
		machines = append(machines, m)
	}
	for _, m := range machines {
		if err := m.waitUp(work); err != nil {
			return machines, err
		}
	}
	return machines, nil
}

// show runs one part after the other, also after one failed.
func show(ctx context.Context, o options, machines []*machine, work, source string) error {
	m := machines[0]
	heading("Linux %s in user mode, booted in %.1f s; modules: %s; interfaces: %s", m.report.Kernel, m.boot.Seconds(),
		strings.Join(m.report.Modules, " "), strings.Join(m.report.Interfaces, " "))
	for _, f := range m.report.Findings {
		fmt.Println(f)
	}
	err := m.report.wrong()
	if o.command != "" {
		code, commandErr := submit(ctx, work, job{Argv: []string{"/bin/sh", "-c", o.command}, Dir: guestSource, Limit: o.limit}, os.Stdout)
		if commandErr == nil && code != 0 {
			commandErr = fmt.Errorf("the command's exit code is %d", code)
		}
		return errors.Join(err, commandErr)
	}
	if o.demo {
		err = errors.Join(err, showDemos(ctx, work))
	}
	for _, s := range []suite{{"root", false, o.packages}, {"an ordinary user", true, o.asUser}} {
		if len(s.packages) > 0 && ctx.Err() == nil {
			heading("tests as %s", s.who)
			err = errors.Join(err, s.run(ctx, o, work, source))
		}
	}
	if !o.all {
		fmt.Printf("left out without -all: the rest of %s\n", strings.Join(alikeEverywhere, " "))
		for _, l := range leftOut {
			fmt.Printf("left out without -all: %s: %s: %s\n", l.pkg, l.tests, l.why)
		}
	}
	return err
}

// showDemos runs the demo as root and as an ordinary user, on two machines at a time if there are so many.
func showDemos(ctx context.Context, work string) error {
	var asUser strings.Builder
	var group errgroup.Group
	begin := time.Now()
	demo := func(user bool, dir string, output *strings.Builder) func() error {
		return func() error {
			argv := []string{filepath.Join(guestWork, middlewayName), "demo", "--download", "16MiB"}
			code, err := submit(ctx, work, job{Argv: argv, Dir: dir, User: user, Limit: 3 * time.Minute}, output)
			if err == nil && code != 0 {
				err = fmt.Errorf("the demo's exit code is %d", code)
			}
			return err
		}
	}
	var asRoot strings.Builder
	group.Go(demo(false, guestHome, &asRoot))
	group.Go(demo(true, userHome, &asUser))
	err := group.Wait()
	heading("demo as root")
	fmt.Print(asRoot.String())
	heading("demo as an ordinary user")
	fmt.Print(asUser.String())
	heading("both demos took %d s", int(time.Since(begin).Seconds()))
	return err
}

// A suite is packages whose tests run as somebody.
type suite struct {
	who      string
	user     bool // an ordinary one
	packages []string
}

// run calls go test, which hands each package's tests to the machines.
func (s suite) run(ctx context.Context, o options, work, source string) error {
	args := []string{"test", "-json", "-trimpath", "-buildvcs=false", "-vet=off", "-ldflags=-s", "-count=1", "-p", strconv.Itoa(o.machines),
		"-timeout", o.limit.String(), "-exec", "'" + filepath.Join(work, tunonlyName) + "' " + execMode}
	if !o.all {
		args = append(args, "-short")
	}
	args = append(args, strings.Fields(o.testFlags)...)
	cmd := exec.CommandContext(ctx, "go", append(args, s.packages...)...)
	cmd.Env = append(os.Environ(), "GOTMPDIR="+filepath.Join(work, goDir),
		workVar+"="+work, sourceVar+"="+source, userVar+"="+strconv.FormatBool(s.user), allVar+"="+strconv.FormatBool(o.all))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	t := newTally(os.Stdout)
	err = errors.Join(t.read(events), cmd.Wait())
	t.print()
	if err != nil {
		return fmt.Errorf("go test as %s: %w", s.who, err)
	}
	return nil
}

func heading(format string, args ...any) { fmt.Printf("\n=== "+format+"\n", args...) }
