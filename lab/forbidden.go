package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrForbidden is the error of Enter, by errors.Is, where the machine does not let this user build the lab.
var ErrForbidden = errors.New("the lab is forbidden here")

// forbiddenError names the cause and the remedy in one sentence.
type forbiddenError struct {
	cause, remedy string
	err           error
}

func (e *forbiddenError) Error() string        { return fmt.Sprintf("%s: %s (%v)", e.cause, e.remedy, e.err) }
func (e *forbiddenError) Unwrap() error        { return e.err }
func (e *forbiddenError) Is(target error) bool { return target == ErrForbidden }

// Remedy returns the cause and the remedy of an ErrForbidden; ok is false for other errors.
func Remedy(err error) (cause, remedy string, ok bool) {
	var e *forbiddenError
	if !errors.As(err, &e) {
		return "", "", false
	}
	return e.cause, e.remedy, true
}

// Capable reports whether this process can have the lab's namespaces without a user namespace: it has CAP_SYS_ADMIN and
// CAP_NET_ADMIN.
func Capable() bool { return thisMachine().capable() }

// CheckTUN opens the TUN device, and closes it. Where that fails the error is an ErrForbidden if it is known what to do.
func CheckTUN() error { return thisMachine().checkTUN() }

// ExplainNamespaces finds out why the kernel refused namespaces, or to use them, with err. The result is an ErrForbidden if it is
// known what to do.
func ExplainNamespaces(err error) error { return thisMachine().explainNamespaces(err) }

// ExplainProc says what to do where a process may not open, with err, what another one of the same user has open: /proc/PID/fd/N.
// The result is an ErrForbidden if err is a refusal.
func ExplainProc(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return &forbiddenError{"processes may not open each other's files by /proc/PID/fd",
		"give this process CAP_SYS_PTRACE, in a container by --cap-add=SYS_PTRACE", err}
}

// machine is what Enter asks of the machine, as fields so that tests can ask a different one.
type machine struct {
	tun     string                       // the TUN device file
	openTUN func(path string) error      // opens it for reading and writing, and closes it
	sysctls string                       // root of the sysctl files
	caps    func() (effective [2]uint32) // bit sets of this process's effective capabilities
	uid     int
	within  []string // what confines this process
	closed  bool     // the kernel keeps what is below /proc/PID of this process from others of the same user
}

func thisMachine() machine {
	return machine{tun: "/dev/net/tun", openTUN: tryOpen, sysctls: "/proc/sys", caps: effectiveCaps, uid: os.Geteuid(), within: Confined(),
		closed: closed()}
}

// closed reports whether this process is one whose program its user may not read (PR_GET_DUMPABLE(2const)).
func closed() bool {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	return err == nil && dumpable != 1 // 0, or 2 where fs.suid_dumpable is
}

func tryOpen(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func effectiveCaps() (effective [2]uint32) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err == nil {
		effective = [2]uint32{data[0].Effective, data[1].Effective}
	}
	return effective
}

// capable reports whether namespaces can be had without a user namespace.
func (m machine) capable() bool {
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return m.caps()[0]&need == need
}

// checkProc makes sure that children can open what this process has open.
func (m machine) checkProc() error {
	if !m.closed || m.caps()[0]&(1<<unix.CAP_SYS_PTRACE) != 0 {
		return nil
	}
	return ExplainProc(fmt.Errorf("user %d may not read the file of this program: %w", m.uid, unix.EACCES))
}

// checkTUN really opens the TUN device: a missing module, missing file and missing permission all show up only here.
func (m machine) checkTUN() error {
	err := m.openTUN(m.tun)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return &forbiddenError{
			cause: m.tun + " is missing",
			remedy: fmt.Sprintf("as root run `modprobe tun`, or `mkdir -p %s && mknod -m 0666 %s c 10 200` if the kernel has TUN built in",
				filepath.Dir(m.tun), m.tun),
			err: err,
		}
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return &forbiddenError{
			cause:  "the kernel has no TUN devices",
			remedy: "as root run `modprobe tun`, or use a kernel with CONFIG_TUN",
			err:    err,
		}
	case errors.Is(err, unix.EACCES):
		return &forbiddenError{
			cause: fmt.Sprintf("user %d may not open %s", m.uid, m.tun),
			remedy: fmt.Sprintf("as root run `chmod 0666 %s`, for good with the udev rule KERNEL==\"tun\", MODE=\"0666\"",
				m.tun),
			err: err,
		}
	case errors.Is(err, unix.EPERM):
		return &forbiddenError{
			cause:  "this container may not open " + m.tun,
			remedy: "start it with --device " + m.tun,
			err:    err,
		}
	}
	return fmt.Errorf("open %s: %w", m.tun, err)
}

// explainNamespaces finds out why the kernel refused the namespaces with err.
func (m machine) explainNamespaces(err error) error {
	refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) ||
		errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
	if !refused {
		return fmt.Errorf("enter lab namespaces: %w", err)
	}
	if m.closed && !m.capable() {
		return &forbiddenError{fmt.Sprintf("user %d may not read the file of this program", m.uid), "run `chmod a+r` on it as its owner", err}
	}
	for _, s := range []struct{ name, bad, good, cause string }{
		{"user.max_user_namespaces", "0", "15000", "the limit of user namespaces is 0"},
		{"kernel.unprivileged_userns_clone", "0", "1", "the kernel gives user namespaces to root only"},
		{"kernel.apparmor_restrict_unprivileged_userns", "1", "0", "AppArmor keeps ordinary programs from using user namespaces"},
	} {
		if !m.capable() && m.sysctl(s.name) == s.bad { // root needs no user namespace
			return &forbiddenError{
				cause:  fmt.Sprintf("%s (%s=%s)", s.cause, s.name, s.bad),
				remedy: fmt.Sprintf("as root run `sysctl -w %s=%s`, or run this as root", s.name, s.good),
				err:    err,
			}
		}
	}
	switch {
	case errors.Is(err, unix.ENOSPC):
		return &forbiddenError{"the limit of namespaces is reached",
			"as root raise the sysctls user.max_user_namespaces and user.max_net_namespaces", err}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return &forbiddenError{"the kernel has no user or network namespaces",
			"use a kernel with CONFIG_USER_NS and CONFIG_NET_NS, or run this as root", err}
	}
	cause, options := "namespaces are denied to this process", "--security-opt seccomp=unconfined --security-opt systempaths=unconfined"
	if len(m.within) > 0 {
		cause += ", which is confined by " + strings.Join(m.within, " and ")
	}
	if slices.ContainsFunc(m.within, func(s string) bool { return strings.Contains(s, appArmor) }) {
		options += " --security-opt apparmor=unconfined"
	}
	return &forbiddenError{cause, "in a container start it with --privileged (or with " + options + "), else run this as root", err}
}

// sysctl returns the value of a sysctl, or "" where the kernel does not have it.
func (m machine) sysctl(name string) string {
	value, err := os.ReadFile(filepath.Join(m.sysctls, strings.ReplaceAll(name, ".", "/")))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
}
