package rootless

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

const (
	units     = "../../deploy/systemd"
	installed = "/usr/local/bin/middleway" // where the units expect the program
)

// TestUnits: systemd knows every line of the units.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: ", err)
	}
	dir := t.TempDir()
	files, err := filepath.Glob(filepath.Join(units, "*.service"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no units in " + units)
	}
	verify := func(file string) string {
		args := []string{"verify", file}
		if name := filepath.Base(file); name != "middleway.service" && name != "middleway-fdstore.service" {
			args = append([]string{"--user"}, args...)
		}
		cmd := exec.Command(analyze, args...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "SYSTEMD_UNIT_PATH="+dir+":")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return string(out)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(f)), []byte(strings.ReplaceAll(string(b), installed, "/bin/true")), 0o644))
	}
	right := filepath.Join(dir, "right.service")
	must(t, os.WriteFile(right, []byte("[Service]\nExecStart=/bin/true\n"), 0o644))
	if out := verify(right); out != "" {
		t.Skip("systemd-analyze does not work here: ", out)
	}
	for _, f := range files {
		if out := verify(filepath.Join(dir, filepath.Base(f))); out != "" {
			t.Errorf("%s: %s", filepath.Base(f), out)
		}
	}
	wrong := filepath.Join(dir, "wrong.service")
	must(t, os.WriteFile(wrong, []byte("[Service]\nExecStart=/bin/true\nUMaks=0077\n"), 0o644))
	if out := verify(wrong); !strings.Contains(out, "UMaks") {
		t.Errorf("a line that systemd does not know is not told: %q", out)
	}
}

// TestNodeUnitWritesNetworkConfiguration: ProtectSystem=full makes /etc read-only but for what the unit excepts.
func TestNodeUnitWritesNetworkConfiguration(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(units, "middleway.service"))
	must(t, err)
	for _, line := range []string{"ExecStartPre=+/bin/mkdir -p /etc/cni/net.d", "ReadWritePaths=-/etc/cni/net.d"} {
		if !strings.Contains(string(b), "\n"+line+"\n") {
			t.Errorf("the unit lacks %s", line)
		}
	}
}

// command returns what a unit of the user runs, as systemd reads it: words, one of them in quotes, with %t, %E and $$ replaced.
func (h *host) command(unit, key string) []string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(units, unit))
	must(h.t, err)
	_, text, ok := strings.Cut(string(b), "\n"+key+"=")
	text, _, _ = strings.Cut(text, "\n")
	if !ok {
		h.t.Fatalf("%s has no %s", unit, key)
	}
	words, quoted, _ := strings.Cut(text, "'")
	argv := strings.Fields(words)
	if quoted != "" {
		argv = append(argv, strings.TrimSuffix(quoted, "'"))
	}
	for i, a := range argv {
		argv[i] = strings.NewReplacer(installed, h.plan.Program, "%t", h.path("runtime"), "%E", h.path("config"), "$$", "$").Replace(a)
	}
	return argv
}

// TestUserUnits runs what the user's units run, on two hosts, whose nodes then hear of each other. The daemon's unit is started again: the
// namespaces stay.
func TestUserUnits(t *testing.T) {
	for _, name := range []string{"unshare", "nsenter", "ip"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("the units need a program that this machine lacks: ", err)
		}
	}
	hosts := newHosts(t, 2)
	start := func(h *host, argv ...string) *lab.Process {
		p := h.user(argv...)
		p.Env = append(p.Env, "ADDRESS="+h.addr(false).String(), "PATH="+os.Getenv("PATH"))
		must(t, p.Start())
		t.Cleanup(func() { p.Kill() })
		return p
	}
	var daemons []*lab.Process
	for _, h := range hosts {
		h.configure(func(c *node.Config) {
			c.Sockets, c.RunDir, c.Peers = h.path("runtime", "middleway", "sockets"), h.path("runtime", "middleway", "node"), peersOf(h, hosts, false)
		})
		b, err := os.ReadFile(middleway(t))
		must(t, err)
		h.write(h.plan.Program, b, 0o755)
		must(t, os.MkdirAll(h.path("runtime", "middleway"), 0o700)) // RuntimeDirectory
		must(t, os.MkdirAll(h.path("config", "middleway"), 0o700))
		b, err = json.Marshal(h.config)
		must(t, err)
		h.write(h.path("config", "middleway", "node.yaml"), b, 0o644)
		h.own(h.home)
		start(h, h.command("middleway-sockets.service", "ExecStart")...)
		start(h, h.command("middleway-rootless.service", "ExecStart")...)
		waits := start(h, h.command("middleway-rootless-node.service", "ExecStartPre")...)
		must(t, waits.Wait())
		daemons = append(daemons, start(h, h.command("middleway-rootless-node.service", "ExecStart")...))
	}
	up := func(h *host) {
		t.Helper()
		eventually(t, 30*time.Second, fmt.Sprintf("the peer of host %d is up", h.number), func() error {
			p := start(h, h.plan.Program, "status", "--run-dir", h.config.RunDir, "-o", "json")
			var st node.Status
			if err := p.Wait(); err != nil {
				return errors.Join(err, errors.New(p.Tail()+daemons[h.number-1].Tail()))
			}
			if err := json.Unmarshal([]byte(p.Tail()), &st); err != nil {
				return err
			}
			if len(st.Peers) != 1 || st.Peers[0].State != "up" || st.PID != daemons[h.number-1].PID() {
				return fmt.Errorf("process %d, peers %v", st.PID, st.Peers)
			}
			return nil
		})
	}
	for _, h := range hosts {
		up(h)
	}
	must(t, daemons[0].Stop(10*time.Second))
	daemons[0] = start(hosts[0], hosts[0].command("middleway-rootless-node.service", "ExecStart")...)
	up(hosts[0])
}

// TestShellcheck: the batch script has nothing that shellcheck knows to be a trap.
func TestShellcheck(t *testing.T) {
	path, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("shellcheck is not installed: ", err)
	}
	if out, err := exec.Command(path, "../../deploy/slurm/middleway.sbatch").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
