//go:build linux

package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// The test binary is asuser too, and the command that asuser runs: TestMain tells them apart by the program's name.
const (
	asuserName    = "asuser-under-test"
	probeName     = "./probe"         // runs as the user
	probeDeepName = "./probe-in-user" // runs in a user namespace made by the user
)

func TestMain(m *testing.M) {
	switch os.Args[0] {
	case asuserName, insideName:
		main()
	case probeName:
		exitWith(startDeepProbe())
	case probeDeepName:
		exitWith(makeTUN())
	default:
		os.Exit(m.Run())
	}
}

func exitWith(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// startDeepProbe does what a rootless node does first: it enters a user and network namespace of its own.
func startDeepProbe() error {
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{probeDeepName}, Stdout: os.Stdout, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		},
	}
	return cmd.Run()
}

// makeTUN does what it does next: a TUN device, a setting of its network, a file system of its own.
func makeTUN() error {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", tunDevice, err)
	}
	request, err := unix.NewIfreq("probe0")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_MULTI_QUEUE)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	fmt.Println("made probe0")
	return nil
}

// asuser returns a command that runs another as the user, in a checkout that holds nothing but the probe.
func asuser(t *testing.T, command ...string) *exec.Cmd {
	t.Helper()
	return asuserWith(t, append([]string{"--"}, command...)...)
}

// asuserWith is asuser with flags.
func asuserWith(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	checkout, self := t.TempDir(), executable(t)
	if err := copyFile(filepath.Join(checkout, probeName), self); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Args = append([]string{asuserName, "--cold", "--dir", t.TempDir()}, args...)
	cmd.Dir = checkout
	// The test must do the same wherever it lies and whatever surrounds it.
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(checkout), "MIDDLEWAY_PROBE=passed")
	return cmd
}

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func shell(t *testing.T, script string) string {
	t.Helper()
	out, err := asuser(t, "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestUserIsOrdinary(t *testing.T) {
	got := shell(t, `id -u; id -g; grep -E '^(Groups|CapPrm|CapEff|CapAmb|NoNewPrivs):' /proc/self/status | tr -d ' \t'`)
	want := "20210\n20210\nGroups:\nNoNewPrivs:1\n"
	caps := ""
	for _, set := range []string{"CapPrm", "CapEff", "CapAmb"} {
		caps += set + ":0000000000000000\n"
	}
	want = strings.Replace(want, "NoNew", caps+"NoNew", 1)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestWritableOnlyHomeAndRuntimeDir(t *testing.T) {
	got := shell(t, `pwd
for dir in "$HOME" "$XDG_RUNTIME_DIR" "$TMPDIR" . /tmp /var/tmp /dev/shm /run /home "$HOME/go/pkg/mod" /home/go; do
	if true 2>/dev/null >"$dir/new"; then echo "$dir yes"; else echo "$dir no"; fi
done
echo "$MIDDLEWAY_PROBE"`)
	want := `/home/user/middleway
/home/user yes
/home/run yes
/home/user/tmp yes
. yes
/tmp no
/var/tmp no
/dev/shm no
/run no
/home no
/home/user/go/pkg/mod no
/home/go no
passed
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestUserMakesTUNInItsOwnNamespaces(t *testing.T) {
	out, err := asuser(t, probeName).CombinedOutput()
	if err != nil || string(out) != "made probe0\n" {
		t.Errorf("got %v %q, want \"made probe0\"", err, out)
	}
}

// minimal runs a script of the shell's own commands in the minimal root.
func minimal(t *testing.T, script string, flags ...string) string {
	t.Helper()
	out, err := asuserWith(t, append(append([]string{"--minimal"}, flags...), "--", "sh", "-c", script)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestMinimalRoot(t *testing.T) {
	got := minimal(t, `for dir in / /bin/ /dev/ /dev/net/ /dev/pts/ /etc/ /home/; do echo $dir: $dir*; done
for name in make sh go ls ip ping curl git python3; do command -v $name; done
for dir in "$HOME" "$XDG_RUNTIME_DIR" "$TMPDIR" . / /dev /etc /bin /home /home/go; do
	if true 2>/dev/null >"$dir/new"; then echo "$dir yes"; else echo "$dir no"; fi
done
for device in null zero urandom tty net/tun; do test -c /dev/$device && test -r /dev/$device && test -w /dev/$device || echo "no $device"; done
test -e /proc/1/status && test -e /sys/class/net/lo || echo "no /proc or /sys"
make -v >/dev/null && echo made
`)
	top := "/: /bin /dev /etc /home /lib"
	if strings.Contains(got, "/lib64") {
		top += " /lib64" // where the dynamic linker of this architecture is
	}
	want := top + ` /proc /sys
/bin/: /bin/make /bin/sh
/dev/: /dev/net /dev/null /dev/ptmx /dev/pts /dev/tty /dev/urandom /dev/zero
/dev/net/: /dev/net/tun
/dev/pts/: /dev/pts/ptmx
/etc/: /etc/*
/home/: /home/go /home/run /home/user
/bin/make
/bin/sh
/home/go/bin/go
/home/user yes
/home/run yes
/home/user/tmp yes
. yes
/ no
/dev no
/etc no
/bin no
/home no
/home/go no
made
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestMinimalRootWith(t *testing.T) {
	if got, want := minimal(t, `command -v cat sleep; cat /etc/passwd; echo $GOPROXY`, "--with", "cat"), "/bin/cat\ncat: /etc/passwd: No such file or directory\noff\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	out, err := asuserWith(t, "--minimal", "--with", "no-such-program", "--", "sh").CombinedOutput()
	if err == nil || !strings.Contains(string(out), `"no-such-program": executable file not found`) {
		t.Errorf("no such program: got %v %q", err, out)
	}
}

func TestUserMakesTUNInTheMinimalRoot(t *testing.T) {
	out, err := asuserWith(t, "--minimal", "--", probeName).CombinedOutput()
	if err != nil || string(out) != "made probe0\n" {
		t.Errorf("got %v %q, want \"made probe0\"", err, out)
	}
}

// TestProgramFiles: what is found is enough for the dynamic linker, also that of a library needed by a library.
func TestProgramFiles(t *testing.T) {
	files, err := programFiles("sh", "make")
	if err != nil {
		t.Fatal(err)
	}
	for target, source := range files {
		if info, err := os.Lstat(source); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %s is no file: %v", target, source, err)
		}
	}
	if files["/bin/sh"] == "" || files["/bin/make"] == "" || len(files) < 2 {
		t.Errorf("got %v", files)
	}
	if _, err := programFiles("no-such-program"); err == nil {
		t.Error("no such program: no error")
	}
	if _, err := findLibrary("libno-such.so.1", elf.FileHeader{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such library: got %v", err)
	}
}

func TestMachineStaysAsItWas(t *testing.T) {
	before := deviceMode(t) + mountTable(t)
	shell(t, `test -w /dev/net/tun`)
	minimal(t, `test -w /dev/net/tun`)
	if diff := cmp.Diff(before, deviceMode(t)+mountTable(t)); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
}

func deviceMode(t *testing.T) string {
	info, err := os.Stat(tunDevice)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().String() + "\n"
}

// mountTable lists the machine's mounts at the places that asuser covers; others are not ours to compare.
func mountTable(t *testing.T) string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	for _, m := range parseMountInfo(string(text)) {
		if strings.HasPrefix(m.path, top) || strings.HasPrefix(m.path, "/dev") {
			fmt.Fprintln(&table, m)
		}
	}
	return table.String()
}

func TestExitCode(t *testing.T) {
	for _, test := range []struct {
		name, script string
		want         int
	}{
		{"success", "exit 0", 0},
		{"failure", "exit 7", 7},
		{"killed", "kill -KILL $$", 128 + 9},
		{"leaves a process behind", "sleep 1000 >/dev/null 2>&1 & exit 3", 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := asuser(t, "sh", "-c", test.script)
			_ = cmd.Run()
			if got := cmd.ProcessState.ExitCode(); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

// TestSignal sends asuser a signal: the command gets it once, and afterwards neither processes nor the home remain.
func TestSignal(t *testing.T) {
	for _, test := range []struct {
		signal    syscall.Signal
		wantCode  int
		wantOut   string
		homeStays bool
	}{
		{signal: syscall.SIGINT, wantCode: 4, wantOut: "caught\n"},
		{signal: syscall.SIGTERM, wantCode: 5, wantOut: "caught\n"},
		{signal: syscall.SIGKILL, wantCode: -1, homeStays: true}, // nobody is left to remove it
	} {
		t.Run(test.signal.String(), func(t *testing.T) {
			cmd := asuser(t, "sh", "-c", `trap 'echo caught; exit 4' INT; trap 'echo caught; exit 5' TERM
				echo ready; while :; do sleep 0.05; done`)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			homes := cmd.Args[3] // --dir
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := readLine(stdout); line != "ready\n" {
				t.Fatalf("got %q, %v, want ready", line, err)
			}
			if err := cmd.Process.Signal(test.signal); err != nil {
				t.Fatal(err)
			}
			timeout := time.AfterFunc(20*time.Second, func() { t.Error("the command still runs"); _ = cmd.Process.Kill() })
			defer timeout.Stop()
			rest, err := io.ReadAll(stdout) // until the last process that could write has ended
			if err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != test.wantCode || string(rest) != test.wantOut {
				t.Errorf("got exit code %d and %q, want %d and %q", got, rest, test.wantCode, test.wantOut)
			}
			left, err := os.ReadDir(homes)
			if err != nil {
				t.Fatal(err)
			}
			if stays := len(left) > 0; stays != test.homeStays {
				t.Errorf("homes left: %v, want some: %v", left, test.homeStays)
			}
		})
	}
}

// readLine reads no byte beyond the line.
func readLine(r io.Reader) (string, error) {
	var line bytes.Buffer
	for !strings.HasSuffix(line.String(), "\n") {
		if _, err := io.CopyN(&line, r, 1); err != nil {
			return line.String(), err
		}
	}
	return line.String(), nil
}

func TestParseMountInfo(t *testing.T) {
	got := parseMountInfo(`22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,nosuid,nodev,noexec,noatime shared:1 - ext4 /dev/root rw
31 27 0:9 / /a\040b\134c ro - tmpfs tmpfs ro
`)
	want := []mountPoint{
		{"/proc", unix.MS_RELATIME},
		{"/", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME},
		{`/a b\c`, 0},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(mountPoint{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestParseFlags(t *testing.T) {
	for _, test := range []struct {
		args    string
		wantErr string
	}{
		{"-- make test", ""},
		{"--worktree --uid 1234 -- make test", ""},
		{"", "no command given"},
		{"--uid 0 -- id", "above 0"},
		{"--user me -- id", "not defined"},
		{"--minimal --with sleep -- id", ""},
		{"--with sleep -- id", "give --minimal too"},
	} {
		t.Run(test.args, func(t *testing.T) {
			_, err := parseFlags(strings.Fields(test.args))
			if got := fmt.Sprint(err); test.wantErr == "" && err != nil || !strings.Contains(got, test.wantErr) {
				t.Errorf("got %v, want %q", err, test.wantErr)
			}
		})
	}
}
