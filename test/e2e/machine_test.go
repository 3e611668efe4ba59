package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// program is the real program, built when the first test asks for it, but where MIDDLEWAY_PROGRAM names one.
var program struct {
	once sync.Once
	dir  string
	err  error
}

func middleway(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("MIDDLEWAY_PROGRAM"); path != "" {
		return path
	}
	program.once.Do(func() {
		if program.dir, program.err = os.MkdirTemp("", "mw-e2e-"); program.err != nil {
			return
		}
		args := []string{"build", "-buildvcs=false", "-o", program.dir}
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, s := range info.Settings { // as this test was built: go has the packages already
				if s.Key == "-trimpath" && s.Value == "true" {
					args = append(args, "-trimpath")
				}
			}
		}
		out, err := exec.Command("go", append(args, "../../cmd/middleway")...).CombinedOutput()
		if err != nil {
			program.err = fmt.Errorf("build middleway: %w\n%s", err, out)
		}
		os.Chmod(program.dir, 0o755)
	})
	if program.err != nil {
		t.Fatal(program.err)
	}
	return filepath.Join(program.dir, "middleway")
}

func removeProgram() {
	if program.dir != "" {
		os.RemoveAll(program.dir)
	}
}

// machine is a node on which a daemon is started that shall fail.
type machine struct {
	t          *testing.T
	node, peer *lab.Namespace
	pods       [2]*lab.Namespace
	config     node.Config
	dir        string
	run        []string // in place of the program, in front of its arguments: a role and its arguments
	args       []string // in place of node --config FILE
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, node: newNamespace(t, "node-1"), peer: newNamespace(t, "node-2"), dir: shortDir(t)}
	u, err := lab.NewUnderlay(lab.UnderlayConfig{}, m.node, m.peer)
	m.must(err)
	t.Cleanup(func() { u.Close() })
	m.config = node.Config{
		Name: "node-1", Address: lab.NodeAddr4(1).Addr(), RunDir: filepath.Join(m.dir, "run"),
		PodCIDRs: []netip.Prefix{lab.PodCIDR4(1), lab.PodCIDR6(1)},
		Peers:    []node.Peer{{Name: "node-2", Address: lab.NodeAddr4(2).Addr(), PodCIDRs: []netip.Prefix{lab.PodCIDR4(2), lab.PodCIDR6(2)}}},
	}
	for i := range m.pods {
		m.pods[i] = newNamespace(t, fmt.Sprintf("pod-%d", i+1))
		m.config.Pods = append(m.config.Pods, node.Pod{
			Name: fmt.Sprintf("default/pod-%d", i+1), Netns: m.pods[i].Path(),
			Addresses: []netip.Addr{host(lab.PodCIDR4(1), i+2), host(lab.PodCIDR6(1), i+2)},
		})
	}
	return m
}

// shortDir is t.TempDir, but short enough for the path of a unix socket.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "mw-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// write writes the configuration file.
func (m *machine) write(text string) string {
	m.t.Helper()
	file := filepath.Join(m.dir, "node.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
	return file
}

func (m *machine) json() string {
	b, err := json.Marshal(m.config)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// daemon returns the process, not started.
func (m *machine) daemon() *lab.Process {
	args := m.args
	if args == nil {
		args = []string{"node", "--config", m.write(m.json())}
	}
	args = append([]string{middleway(m.t)}, args...)
	if m.run != nil {
		return lab.Command(m.node, m.run[0], append(m.run[1:], args...)...)
	}
	return lab.Exec(m.node, args...)
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// left returns what is in the namespaces that was not there when the daemon was started.
func (m *machine) left() (things []string) {
	for _, pod := range m.pods {
		nl, err := pod.Netlink()
		m.must(err)
		links, err := nl.LinkList()
		m.must(err)
		for _, l := range links {
			if l.Attrs().Name != "lo" {
				things = append(things, l.Attrs().Name+" in "+pod.Name())
			}
		}
	}
	nl, err := m.node.Netlink()
	m.must(err)
	if _, err := nl.LinkByName("mw0"); err == nil {
		things = append(things, "mw0")
	}
	for _, name := range []string{"node.sock", "flows"} {
		if _, err := os.Stat(filepath.Join(m.config.RunDir, name)); err == nil {
			things = append(things, name)
		}
	}
	return append(things, m.sockets()...)
}

func (m *machine) sockets() (things []string) {
	m.must(m.node.Do(func() error {
		for _, name := range []string{"udp", "udp6", "tcp", "tcp6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); len(f) > 1 && f[1] != "local_address" {
					things = append(things, name+" socket "+f[1])
				}
			}
		}
		return nil
	}))
	return things
}

// mustFail runs the daemon and expects exit code 1 and one line with all the words, which it returns.
func (m *machine) mustFail(words ...string) string {
	m.t.Helper()
	p := m.daemon()
	m.must(p.Start())
	defer p.Kill()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		m.t.Fatalf("it runs, instead of an error with %q:\n%s", words, p.Tail())
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		m.t.Errorf("got %v, want exit code 1", err)
	}
	var lines []string
	for line := range strings.Lines(p.Tail()) {
		if !strings.HasPrefix(line, "time=") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "middleway: ") {
		m.t.Fatalf("want one line that starts with \"middleway: \", got\n%s", p.Tail())
	}
	m.t.Log(lines[0])
	for _, w := range words {
		if !strings.Contains(lines[0], w) {
			m.t.Errorf("%q is not in: %s", w, lines[0])
		}
	}
	return lines[0]
}
