package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEntered holds for root and ordinary users alike, who both reach the tests only through Enter.
func TestEntered(t *testing.T) {
	t.Logf("uid %d", os.Getuid())
	if _, ok := os.LookupEnv(enteredVar); ok {
		t.Errorf("children would inherit %s", enteredVar)
	}
	if !thisMachine().capable() {
		t.Error("no CAP_SYS_ADMIN and CAP_NET_ADMIN")
	}
	own, _ := os.Readlink("/proc/self/ns/net")
	parent, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	if err == nil && own == parent {
		t.Error("in the network namespace of the parent process")
	}
	if out, err := exec.Command("/proc/self/exe", "-test.run", "^$").CombinedOutput(); err != nil {
		t.Errorf("enter once more from within: %v\n%s", err, out)
	}
}

// An ordinary user runs these tests in a user namespace, without any help by root but a TUN device open to all.
func TestOrdinaryUser(t *testing.T) {
	if uidMap, _ := os.ReadFile("/proc/self/uid_map"); !strings.Contains(string(uidMap), "4294967295") {
		t.Skip("this run is in a user namespace already")
	}
	const tests = "^Test(Entered|ProcessInNamespace|LabKilled|NamespaceSockets|OffloadsReadBack|UnderlayPing|LinkCounts|KernelVXLAN)$"
	p := Command(nil, "as-nobody", "-test.run="+tests, "-test.v")
	p.Env = []string{RequireVar + "=1"}
	p.Dir = "/"
	start(t, p)
	err := p.Wait()
	ran := strings.Count(p.Tail(), "--- PASS: ") + strings.Count(p.Tail(), "--- SKIP: ") // skipped is what the kernel lacks
	if err != nil || ran < strings.Count(tests, "|")+1 {
		t.Errorf("%v\n%s", err, p.Tail())
	}
}

// asNobodyRole runs this program as user 65534, with a /dev/net/tun of its own for all users.
func asNobodyRole(args []string) int {
	runtime.LockOSThread()
	err := errors.Join(
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=0755"),
		unix.Mknod("/dev/net/tun", unix.S_IFCHR, int(unix.Mkdev(10, 200))),
		os.Chmod("/dev/net/tun", 0o666),
	)
	if err != nil {
		fmt.Println("make private TUN device:", err)
		return 1
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: 65534, Gid: 65534},
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// The process that called Enter is only a shell around the real one: signals and exit codes go through it, and it does
// not leave the real one behind when it is killed.
func TestEnterShell(t *testing.T) {
	tests := []struct {
		name     string
		sig      syscall.Signal
		wantCode int // -1: ended by a signal
	}{
		{"terminate", syscall.SIGTERM, 43},
		{"interrupt", syscall.SIGINT, 42},
		{"kill", syscall.SIGKILL, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Exec(nil, "/proc/self/exe", "-test.run=^TestEnterShellChild$")
			p.cmd.Args[0] = "lab-shell"
			p.Env = []string{"LAB_TEST_SHELL=1"}
			start(t, p)
			eventually(t, "child ready", prints(p, "ready "))
			pid := number(t, p.Tail(), "ready ")
			p.Signal(tt.sig)
			var exit *exec.ExitError
			if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != tt.wantCode {
				t.Errorf("exit: got %v, want code %d", err, tt.wantCode)
			}
			eventually(t, "child gone", func() bool { return gone(pid) })
		})
	}
}

// TestEnterShellChild is the real process of TestEnterShell.
func TestEnterShellChild(t *testing.T) {
	if os.Getenv("LAB_TEST_SHELL") == "" {
		t.Skip("helper of TestEnterShell")
	}
	signals := notifyAll()
	fmt.Println("ready", os.Getpid())
	switch <-signals {
	case syscall.SIGINT:
		os.Exit(42)
	case syscall.SIGTERM:
		os.Exit(43)
	}
}

func TestForbidden(t *testing.T) {
	with := func(name, value string) machine {
		m := machine{tun: "/dev/net/tun", sysctls: t.TempDir(), uid: 1000, caps: func() (none [2]uint32) { return none }}
		if name != "" {
			path := filepath.Join(m.sysctls, strings.ReplaceAll(name, ".", "/"))
			os.MkdirAll(filepath.Dir(path), 0o755)
			os.WriteFile(path, []byte(value+"\n"), 0o644)
		}
		return m
	}
	tun := func(err error) error {
		return machine{tun: "/dev/net/tun", uid: 1000, openTUN: func(string) error { return err }}.checkTUN()
	}
	within := with("", "")
	within.within = []string{"a seccomp filter", "the AppArmor profile docker-default (enforce)"}
	unread := with("", "")
	unread.closed = true
	root := with("kernel.apparmor_restrict_unprivileged_userns", "1")
	root.caps = func() [2]uint32 { return [2]uint32{^uint32(0), 0} }
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"tun missing", tun(unix.ENOENT), "/dev/net/tun is missing: as root run `modprobe tun`"},
		{"tun module missing", tun(unix.ENODEV), "the kernel has no TUN devices: as root run `modprobe tun`"},
		{"tun mode", tun(unix.EACCES), "user 1000 may not open /dev/net/tun: as root run `chmod 0666 /dev/net/tun`"},
		{"tun cgroup", tun(unix.EPERM), "start it with --device /dev/net/tun"},
		{"userns off", with("kernel.unprivileged_userns_clone", "0").explainNamespaces(unix.EPERM),
			"`sysctl -w kernel.unprivileged_userns_clone=1`"},
		{"userns limit 0", with("user.max_user_namespaces", "0").explainNamespaces(unix.ENOSPC),
			"`sysctl -w user.max_user_namespaces=15000`"},
		{"apparmor", with("kernel.apparmor_restrict_unprivileged_userns", "1").explainNamespaces(unix.EACCES),
			"`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"},
		{"limit reached", with("user.max_user_namespaces", "9").explainNamespaces(unix.ENOSPC), "the limit of namespaces is reached"},
		{"not built in", with("", "").explainNamespaces(unix.EINVAL), "CONFIG_USER_NS"},
		{"seccomp", with("kernel.unprivileged_userns_clone", "1").explainNamespaces(unix.EPERM), "--security-opt seccomp=unconfined"},
		{"confined", within.explainNamespaces(unix.EPERM),
			"confined by a seccomp filter and the AppArmor profile docker-default (enforce): in a container start it with --privileged"},
		{"confined by AppArmor", within.explainNamespaces(unix.EACCES), "--security-opt apparmor=unconfined"},
		{"unreadable", unread.explainNamespaces(unix.EACCES), "user 1000 may not read the file of this program: run `chmod a+r` on it"},
		{"closed to children", unread.checkProc(), "CAP_SYS_PTRACE, in a container by --cap-add=SYS_PTRACE (user 1000 may not read"},
		{"root", root.explainNamespaces(unix.EPERM), "namespaces are denied to this process: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !errors.Is(tt.err, ErrForbidden) || !strings.Contains(tt.err.Error(), tt.want) ||
				strings.Contains(tt.err.Error(), "\n") {
				t.Errorf("got %q, want one sentence with %q", tt.err, tt.want)
			}
		})
	}
	if err := tun(nil); err != nil {
		t.Errorf("tun in order: got %v", err)
	}
	root.closed = true
	for _, m := range []machine{with("", ""), root} {
		if err := m.checkProc(); err != nil {
			t.Errorf("open to children: got %v", err)
		}
	}
	if err := with("", "").explainNamespaces(unix.ENOMEM); errors.Is(err, ErrForbidden) {
		t.Errorf("out of memory: got %v, want no ErrForbidden", err)
	}
}

// number returns the number behind a word in text.
func number(t *testing.T, text, word string) int {
	t.Helper()
	_, rest, _ := strings.Cut(text, word)
	n, err := strconv.Atoi(strings.Fields(rest + " ?")[0])
	if err != nil {
		t.Fatalf("no number behind %q in %q", word, text)
	}
	return n
}

// gone reports whether a process has ended; a zombie that its new parent has not collected yet has.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// The capability check reads the right bits.
func TestCapable(t *testing.T) {
	for _, tt := range []struct {
		low  uint32
		want bool
	}{
		{0, false},
		{1 << unix.CAP_SYS_ADMIN, false},
		{1 << unix.CAP_NET_ADMIN, false},
		{1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN, true},
	} {
		m := machine{caps: func() [2]uint32 { return [2]uint32{tt.low, 0} }}
		if got := m.capable(); got != tt.want {
			t.Errorf("capabilities %x: got %v, want %v", tt.low, got, tt.want)
		}
	}
}
