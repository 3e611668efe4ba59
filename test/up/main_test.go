package up

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/playground"
	"github.com/middleway-net/middleway/test/seccomp"
)

// program is the real program: what MIDDLEWAY_PROGRAM names, for machines without Go, or else built once.
var program string

// tryVar makes this binary find out whether the machine allows the lab.
const tryVar = "MIDDLEWAY_UP_TRY"

// withoutVar makes this binary become the program that its arguments name, on a machine that lacks what it says.
const withoutVar = "MIDDLEWAY_UP_WITHOUT"

func TestMain(m *testing.M) {
	if what := os.Getenv(withoutVar); what != "" {
		os.Unsetenv(withoutVar)
		fmt.Println(become(what, os.Args[1:]))
		os.Exit(1)
	}
	if os.Getenv(tryVar) != "" {
		lab.RunRole()
		if err := lab.Enter(); err != nil {
			fmt.Println(err)
			if errors.Is(err, lab.ErrForbidden) && os.Getenv(lab.RequireVar) != "1" {
				os.Exit(77)
			}
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(run(m))
}

// become replaces this process by a program on a machine that lacks something. What is mounted over needs a mount namespace.
func become(what string, argv []string) error {
	f, err := os.Open(argv[0]) // it may lie below what is mounted over
	if err != nil {
		return err
	}
	switch what {
	case withoutIPv6:
		return seccomp.WithoutIPv6(argv...)
	case withoutUserNamespaces:
		return seccomp.WithoutUserNamespaces(argv...)
	case withoutRights:
		err = keepRights(containerRights)
	case withoutReading:
		err = keepRights(slices.DeleteFunc(slices.Clone(containerRights), func(right uintptr) bool { return right == unix.CAP_DAC_OVERRIDE }))
	case withoutTUN:
		err = unix.Mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=0755")
	case withoutRun:
		err = unix.Mount("tmpfs", cmp.Or(os.Getenv("XDG_RUNTIME_DIR"), "/run"), "tmpfs", unix.MS_RDONLY, "mode=0755")
	}
	if err != nil {
		return err
	}
	return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), argv, os.Environ())
}

// What a machine lacks.
const (
	withoutIPv6           = "ipv6"
	withoutUserNamespaces = "user-namespaces"
	withoutTUN            = "tun"
	withoutRun            = "run"     // a directory to write in
	withoutRights         = "rights"  // capabilities that containers do not have
	withoutReading        = "reading" // root's right to read every file, and every process's
)

func run(m *testing.M) int {
	try := exec.Command("/proc/self/exe")
	try.Env = append(os.Environ(), tryVar+"=1")
	if out, err := try.CombinedOutput(); err != nil {
		fmt.Printf("%s", out)
		if try.ProcessState.ExitCode() == 77 {
			fmt.Println("skipped")
			return 0
		}
		return 1
	}
	if program = os.Getenv("MIDDLEWAY_PROGRAM"); program != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "mw-up-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil { // other users run the program, too
		fmt.Println(err)
		return 1
	}
	program = filepath.Join(dir, "middleway")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "../../cmd/middleway")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Printf("build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// playgroundAt is a state directory, and what is done there.
type playgroundAt struct {
	*testing.T
	dir string
}

// newPlayground returns a state directory whose cluster is taken down with the test.
func newPlayground(t *testing.T) *playgroundAt {
	t.Helper()
	parent, err := os.MkdirTemp("", "mw-") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	p := &playgroundAt{t, filepath.Join(parent, "up")}
	t.Cleanup(func() {
		if out, code := p.middleway("down"); code != 0 {
			t.Errorf("down: %d %s", code, out)
		}
		if err := os.Remove(parent); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
	return p
}

func (p *playgroundAt) command(args ...string) *exec.Cmd {
	verb, rest := args[0], args[1:]
	cmd := exec.Command(program, append([]string{verb, "--dir", p.dir}, rest...)...)
	return cmd
}

// middleway runs the program and returns its output, both streams, and its exit code.
func (p *playgroundAt) middleway(args ...string) (string, int) {
	p.Helper()
	cmd := p.command(args...)
	timeout := time.AfterFunc(40*time.Second, func() { _ = cmd.Process.Kill() })
	defer timeout.Stop()
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		p.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must runs the program, which must succeed.
func (p *playgroundAt) must(args ...string) string {
	p.Helper()
	out, code := p.middleway(args...)
	if code != 0 {
		p.Fatalf("%v: exit code %d\n%s", args, code, out)
	}
	return out
}

// up brings up a cluster with a manifest.
func (p *playgroundAt) up(manifest string, args ...string) string {
	p.Helper()
	file := filepath.Join(p.TempDir(), "pods.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		p.Fatal(err)
	}
	return p.must(append([]string{"up", "-d", "-f", file}, args...)...)
}

func (p *playgroundAt) status() playground.Status {
	p.Helper()
	var st playground.Status
	if err := json.Unmarshal([]byte(p.must("status", "-o", "json")), &st); err != nil {
		p.Fatal(err)
	}
	return st
}

func (p *playgroundAt) pod(name string) playground.PodStatus {
	p.Helper()
	for _, pod := range p.status().Pods {
		if pod.Name == name {
			return pod
		}
	}
	p.Fatalf("no pod %s", name)
	return playground.PodStatus{}
}

// eventually fails the test if ok does not become true.
func (p *playgroundAt) eventually(what string, ok func() bool) {
	p.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.Fatalf("not within 30 s: %s", what)
		}
	}
}

// processes returns the processes of the machine that belong to the cluster: all that run this test's program or are in a
// network namespace of such a one.
func (p *playgroundAt) processes() map[int]string {
	found, namespaces := map[int]string{}, map[string]bool{}
	own, _ := os.Readlink("/proc/self/ns/net")
	all, _ := filepath.Glob("/proc/[0-9]*")
	for range 2 { // the second time for what is beside those found first
		for _, path := range all {
			pid, _ := strconv.Atoi(filepath.Base(path))
			exe, _ := os.Readlink(path + "/exe")
			ns, _ := os.Readlink(path + "/ns/net")
			if exe == program || namespaces[ns] {
				found[pid] = exe
				if ns != "" && ns != own {
					namespaces[ns] = true
				}
			}
		}
	}
	return found
}

// gone waits until nothing of the cluster is left, as seen before its end.
func (p *playgroundAt) gone(before map[int]string) {
	p.Helper()
	p.eventually(fmt.Sprintf("the processes %v end", before), func() bool {
		return !slices.ContainsFunc(slices.Collect(func(yield func(int) bool) {
			for pid, exe := range before {
				if now, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && now == exe && !yield(pid) {
					return
				}
			}
		}), func(int) bool { return true })
	})
	if _, err := os.Stat(p.dir); !errors.Is(err, os.ErrNotExist) {
		p.Errorf("the state directory: %v, want it gone", err)
	}
}

// kill kills a process and waits until it is gone.
func (p *playgroundAt) kill(pid int) {
	p.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		p.Fatalf("kill %d: %v", pid, err)
	}
	p.eventually("killed", func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
}

var stateOf = regexp.MustCompile(`(?m)^State:\s+Z`)

func zombie(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && stateOf.Match(status)
}

// pods makes manifests: each argument is "name: script", run by a shell, and may begin with fields of the spec in braces.
func pods(specs ...string) string {
	var b strings.Builder
	for _, s := range specs {
		fields := ""
		if rest, ok := strings.CutPrefix(s, "{"); ok {
			fields, s, _ = strings.Cut(rest, "} ")
			fields += ", "
		}
		name, script, _ := strings.Cut(s, ": ")
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {%scontainers: [{name: main, command: [sh, -c, %q]}]}\n", name, fields, script)
	}
	return b.String()
}
