//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	umlName    = "linux.uml"
	umlModules = "/usr/lib/uml/modules"
	install    = "install Debian's package user-mode-linux, as root: apt-get install user-mode-linux"

	guestMemory = "3G" // per machine, taken as it is used
	memorySize  = "4G" // with what else UML keeps there
)

// A machine is a kernel that runs.
type machine struct {
	number  int
	begin   time.Time
	report  report
	boot    time.Duration // from the start of the kernel to the report
	console bytes.Buffer  // complete when ended is closed
	ended   chan struct{}
	err     error // why it ended, once it has
}

// uml is the kernel as it is installed.
type uml struct {
	path    string
	modules string // of that release
}

// findUML looks for the kernel and its modules, which are of the same package.
func findUML() (uml, error) {
	path, err := exec.LookPath(umlName)
	if err != nil {
		return uml{}, fmt.Errorf("there is no %s: %s", umlName, install)
	}
	if _, err := exec.LookPath("cc"); err != nil {
		return uml{}, errors.New("there is no C compiler: install Debian's packages gcc and libc6-dev, as root: apt-get install gcc libc6-dev")
	}
	version, err := exec.Command(path, "--version").Output()
	if err != nil {
		return uml{}, fmt.Errorf("%s --version: %w", path, err)
	}
	u := uml{path, filepath.Join(umlModules, strings.TrimSpace(string(version)), "kernel")}
	if _, err := os.Stat(u.modules); err != nil {
		return uml{}, fmt.Errorf("%w: %s", err, install)
	}
	return u, nil
}

// files returns the modules to be loaded, in order.
func (u uml) files(ipv6 bool) []string {
	names := []string{"drivers/net/tun.ko"}
	if ipv6 {
		names = append(names, "lib/crc-ccitt.ko", "net/ipv6/ipv6.ko")
	}
	for i := range names {
		names[i] = filepath.Join(u.modules, names[i])
	}
	return names
}

// start starts a machine on a processor. The machine ends with ctx, and with the thread that calls this.
func start(ctx context.Context, u uml, number, cpu int, work, source string, ipv6 bool) (*machine, error) {
	m := &machine{number: number, begin: time.Now(), ended: make(chan struct{})}
	cmd := container(work, cpu, u.path, "mem="+guestMemory, "quiet", "con=null", "con0=null,fd:1", "ssl=null",
		"root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "umid=tunonly"+strconv.Itoa(number),
		"init="+filepath.Join(work, tunonlyName), "--", guestMode,
		"-number="+strconv.Itoa(number), "-work="+work, "-source="+source,
		"-modules="+strings.Join(u.files(ipv6), ","), "-ipv6="+strconv.FormatBool(ipv6))
	cmd.Stdout, cmd.Stderr = &m.console, &m.console
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start in namespaces of its own: %w", err)
	}
	go func() {
		defer close(m.ended)
		stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
		defer stop()
		m.err = cmd.Wait()
	}()
	return m, nil
}

// waitUp returns once the machine has told what it is.
func (m *machine) waitUp(work string) error {
	for {
		err := readJSON(filepath.Join(work, upDir, strconv.Itoa(m.number)), &m.report)
		if err == nil {
			m.boot = time.Since(m.begin)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-m.ended:
			return m.why()
		case <-time.After(poll):
		}
	}
}

// why says how a machine ended that should not have, with the end of what it printed.
func (m *machine) why() error {
	lines := strings.Split(strings.ReplaceAll(strings.TrimSpace(m.console.String()), "\r", ""), "\n")
	const most = 40
	return fmt.Errorf("machine %d ended: %v\n%s", m.number, m.err, strings.Join(lines[max(0, len(lines)-most):], "\n"))
}

// processors returns the processors on which this process may run.
func processors() (cpus []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	for cpu := 0; len(cpus) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	slices.Reverse(cpus) // the first one tends to serve the devices
	return cpus, nil
}
