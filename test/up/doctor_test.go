package up

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/doctor"
	"github.com/middleway-net/middleway/lab/playground"
)

// Where doctor says that a cluster runs, up brings one up, and where it says that none does, up says why, with the same remedy.
func TestDoctorAgrees(t *testing.T) {
	root := os.Geteuid() == 0
	for _, tt := range []struct {
		name    string
		lacks   string // for withoutVar
		mounts  bool   // in a mount namespace of its own
		nobody  bool   // as user 65534
		missing string // the finding
		runs    bool
		word    string // of the remedy, in both
	}{
		{name: "nothing is missing", runs: true},
		{name: "no IPv6", lacks: withoutIPv6, missing: "ipv6-socket", runs: true},
		{name: "no user namespaces", lacks: withoutUserNamespaces, missing: "user-namespace", runs: root, word: "--security-opt seccomp=unconfined"},
		{name: "no TUN device", lacks: withoutTUN, mounts: true, missing: "tun-open", word: "`modprobe tun`"},
		{name: "a TUN device for root alone", nobody: true, missing: "tun-open", word: "`chmod 0666 /dev/net/tun`"},
		{name: "a container's capabilities", lacks: withoutRights, runs: true},
		{name: "a program that root may not read", lacks: withoutReading, missing: "proc-fd", word: "--cap-add=SYS_PTRACE"},
		{name: "no directory to write in", lacks: withoutRun, mounts: true, missing: "run-dir", word: "--dir"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !root && (tt.lacks == withoutRights || tt.lacks == withoutReading) {
				t.Skip("an ordinary user has no capabilities to lose")
			}
			p, program := newPlayground(t), program
			if tt.lacks == withoutReading {
				program = unreadable(t, program)
			}
			start := func(args ...string) *exec.Cmd {
				cmd := exec.Command(program, args...)
				for _, v := range os.Environ() {
					if !strings.HasPrefix(v, playground.DirVar+"=") {
						cmd.Env = append(cmd.Env, v)
					}
				}
				if tt.lacks != "" {
					cmd = exec.Command("/proc/self/exe", append([]string{program}, args...)...)
					cmd.Env = append(os.Environ(), withoutVar+"="+tt.lacks)
				}
				if tt.mounts {
					cmd.SysProcAttr = lab.FreshNamespaces(!root)
					cmd.SysProcAttr.Cloneflags &^= syscall.CLONE_NEWNET
				}
				if tt.nobody {
					cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
				}
				return cmd
			}
			if tt.nobody && (!root || openToAll(t)) {
				t.Skip("an ordinary user cannot become another one, and where the device is open to all there is nothing to see")
			}
			r := examine(t, start("doctor", "-o", "json"))
			if f, _ := r.Finding(tt.missing); tt.missing != "" && (f.State != doctor.Missing || !strings.Contains(f.Remedy, tt.word)) {
				t.Errorf("%s: got %+v, want it missing and %q", tt.missing, f, tt.word)
			}
			if runs := slices.ContainsFunc(r.Ways, func(w doctor.Way) bool {
				return w.Runs && w.Works && strings.HasPrefix(w.Name, "playground-")
			}); runs != tt.runs {
				t.Errorf("it says that clusters run: %v, want %v: %+v", runs, tt.runs, r.Ways)
			}
			args := []string{"up", "-d", "--dir", p.dir}
			switch {
			case tt.lacks == withoutRun:
				args = args[:2]
			case tt.nobody: // the directory is not that user's, and the first to want it
				args[1] = "-d=false"
			}
			out, err := start(args...).CombinedOutput()
			if ok := err == nil; ok != tt.runs || !ok && !strings.Contains(string(out), tt.word) {
				t.Errorf("up: %v, want success: %v, or %q\n%s", err, tt.runs, tt.word, out)
			}
			if err != nil && tt.lacks != withoutRun && !strings.Contains(string(out), "`middleway doctor`") {
				t.Errorf("up does not say where to look further: %s", out)
			}
		})
	}
}

// unreadable returns a copy of a program that any user may execute, and only user 65534 may read.
func unreadable(t *testing.T, program string) string {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "middleway")
	if err := errors.Join(os.WriteFile(name, b, 0o711), os.Chmod(name, 0o711), os.Chown(name, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	return name
}

// openToAll reports whether any user may open the TUN device.
func openToAll(t *testing.T) bool {
	info, err := os.Stat("/dev/net/tun")
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()&0o006 == 0o006
}

// examine runs doctor, whose exit code says whether something runs, and which prints nothing but its report.
func examine(t *testing.T, cmd *exec.Cmd) *doctor.Report {
	t.Helper()
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := &doctor.Report{}
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil || complaints.Len() > 0 {
		t.Fatalf("doctor: %v\n%s%s", err, out.String(), complaints.String())
	}
	want := 1
	if r.Works() {
		want = 0
	}
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Errorf("exit code %d, want %d", code, want)
	}
	for _, f := range r.Findings {
		if f.State == doctor.Missing && f.Remedy == "" {
			t.Errorf("%s is missing without a remedy", f.Name)
		}
	}
	return r
}

// Whenever it is ended, and however, no process of it is left.
func TestDoctorEnded(t *testing.T) {
	p := newPlayground(t)
	for i, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGINT, syscall.SIGKILL} {
		cmd := exec.Command(program, "doctor")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 10 * time.Millisecond) // somewhere within the examination
		_ = cmd.Process.Signal(sig)                          // unless it has ended
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code > 1 && code != 130 {
			t.Errorf("%v: exit code %d", sig, code)
		}
		p.eventually("its processes end", func() bool { return len(p.processes()) == 0 })
	}
}

// As text it has the groups and the ways, plain where there is no terminal.
func TestDoctorText(t *testing.T) {
	out, err := exec.Command(program, "doctor").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nTUN devices\n  works    ", "\nSockets between nodes\n", "\nIPv6\n", "\nWhat runs here\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.ContainsAny(string(out), "\x1b\r") {
		t.Errorf("colour or progress, where there is no terminal:\n%q", out)
	}
	out, err = exec.Command(program, "doctor", "-o", "yaml").CombinedOutput()
	if err == nil || string(out) != "middleway: doctor: -o \"yaml\": want text or json\n" {
		t.Errorf("got %v, %s", err, out)
	}
}
