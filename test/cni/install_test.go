package cni

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	plugin "github.com/middleway-net/middleway/cni"
	"github.com/middleway-net/middleway/lab"
)

// tmpfs mounts one and returns its path.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("middleway-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// source is a file of some size that stands for the plugin.
func source(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), plugin.PluginName)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// What is there before an installation, and what after it.
func TestInstall(t *testing.T) {
	big := strings.Repeat("plugin ", 40_000)
	for _, tt := range []struct {
		name    string
		before  func(dir string) error
		changed bool
		loop    bool
		names   string
	}{
		{"nothing", func(string) error { return nil }, true, true, "loopback middleway-cni"},
		{"an equal one", func(dir string) error { return os.WriteFile(filepath.Join(dir, "middleway-cni"), []byte(big), 0o755) }, false, true, "loopback middleway-cni"},
		{"an equal one that cannot be executed", func(dir string) error { return os.WriteFile(filepath.Join(dir, "middleway-cni"), []byte(big), 0o644) }, true, true, "loopback middleway-cni"},
		{"another one of the same size", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "middleway-cni"), []byte(big[:len(big)-1]+"!"), 0o755)
		}, true, true, "loopback middleway-cni"},
		{"a link elsewhere", func(dir string) error { return os.Symlink("/nowhere", filepath.Join(dir, "middleway-cni")) }, true, true, "loopback middleway-cni"},
		{"somebody's loopback", func(dir string) error { return os.WriteFile(filepath.Join(dir, "loopback"), nil, 0o755) }, true, false, "loopback middleway-cni"},
		{"what a killed one left", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, ".middleway-cni-123"), []byte("half"), 0o600)
		}, true, true, "loopback middleway-cni"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := tt.before(dir); err != nil {
				t.Fatal(err)
			}
			in, err := plugin.Install(source(t, big), dir)
			if err != nil {
				t.Fatal(err)
			}
			if in.Changed != tt.changed || in.Loopback != tt.loop {
				t.Errorf("got %+v, want changed %v, loopback %v", in, tt.changed, tt.loop)
			}
			if got, err := os.ReadFile(in.Plugin); err != nil || string(got) != big {
				t.Errorf("the plugin has %d bytes, %v, want %d", len(got), err, len(big))
			}
			if st, err := os.Lstat(in.Plugin); err != nil || st.Mode() != 0o755 {
				t.Errorf("the plugin has mode %v, %v", st.Mode(), err)
			}
			if got := names(t, dir); got != tt.names {
				t.Errorf("the directory has %s, want %s", got, tt.names)
			}
			if err := plugin.Uninstall(dir); err != nil {
				t.Fatal(err)
			}
			left := ""
			if !tt.loop {
				left = "loopback"
			}
			if got := names(t, dir); got != left {
				t.Errorf("after the removal the directory has %q, want %q", got, left)
			}
		})
	}
}

// A plugin that a runtime executes right now goes on, and the next execution is the new one.
func TestInstallOverRunning(t *testing.T) {
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Skip("there is no program to execute: ", err)
	}
	dir := t.TempDir()
	in, err := plugin.Install(cat, dir)
	if err != nil {
		t.Fatal(err)
	}
	old := exec.Command(in.Plugin)
	stdin, err := old.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	old.Stdout = &said
	if err := old.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := plugin.Install(source(t, "another"), dir); err != nil {
		t.Error(err)
	}
	_, _ = io.WriteString(stdin, "still here")
	_ = stdin.Close()
	if err := old.Wait(); err != nil || said.String() != "still here" {
		t.Errorf("the running plugin: %v, %q", err, said.String())
	}
	if got, err := os.ReadFile(in.Plugin); err != nil || string(got) != "another" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Where nothing can be installed a sentence says what to do, and what was there is whole.
func TestInstallMistakes(t *testing.T) {
	full := tmpfs(t, "size=64k")
	if err := os.WriteFile(filepath.Join(full, plugin.PluginName), []byte("former"), 0o755); err != nil {
		t.Fatal(err)
	}
	readOnly := tmpfs(t, "size=64k")
	if err := unix.Mount("", readOnly, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	file := source(t, "")
	for _, tt := range []struct{ name, from, dir, want string }{
		{"no room", source(t, strings.Repeat("x", 1<<20)), full, "no space left on device; make room in the file system of " + full},
		{"read-only", source(t, "x"), readOnly, "read-only file system; mount " + readOnly + " without readOnly"},
		{"no directory", source(t, "x"), "/nowhere/cni/bin", "/nowhere/cni/bin does not exist; name the container runtime's directory of CNI plugins"},
		{"no directory but a file", source(t, "x"), file, file + " is no directory"},
		{"no plugin", "/nowhere/middleway-cni", t.TempDir(), "it has to be beside this program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := plugin.Install(tt.from, tt.dir)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want one line with %q", err, tt.want)
			}
			t.Log(err)
		})
	}
	if got, err := os.ReadFile(filepath.Join(full, plugin.PluginName)); err != nil || string(got) != "former" || names(t, full) != plugin.PluginName {
		t.Errorf("after a failed installation the plugin is %q, %v, beside it %s", got, err, names(t, full))
	}
}

// A container's root without CAP_DAC_OVERRIDE writes to no directory that others alone may write to.
func TestInstallWithoutOverride(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	goruntime.LockOSThread() // whose capabilities they are; the test's end ends the thread too
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}
	caps[0].Effective &^= 1 << unix.CAP_DAC_OVERRIDE
	if err := unix.Capset(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}
	want := "make root the owner of " + dir + ", or give this container CAP_DAC_OVERRIDE"
	if _, err := plugin.Install(source(t, "x"), dir); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want the end %q", err, want)
	}
}

// containerd executes a plugin called loopback for each pod, with the configuration that go-cni has within.
func TestLoopback(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "loopback")); err != nil {
		t.Fatal(err)
	}
	pod, err := lab.NewNamespace("pod")
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	if err := pod.Do(func() error { return down("lo") }); err != nil {
		t.Fatal(err)
	}
	config := libcni.NewCNIConfigWithCacheDir([]string{dir}, t.TempDir(), newExecutor())
	for _, version := range []string{"0.3.1", "1.0.0", "1.1.0"} {
		list, err := libcni.ConfListFromBytes([]byte(`{"cniVersion": "` + version + `", "name": "cni-loopback", "plugins": [{"type": "loopback"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		conf := &libcni.RuntimeConf{ContainerID: "pod", NetNS: pod.Path(), IfName: "lo"}
		got, err := config.AddNetworkList(t.Context(), list, conf)
		if err != nil {
			t.Fatal(version, err)
		}
		r, err := types100.NewResultFromResult(got)
		if err != nil || len(r.Interfaces) != 1 || r.Interfaces[0].Name != "lo" || len(r.IPs) == 0 || r.IPs[0].Address.String() != "127.0.0.1/8" {
			t.Errorf("%s: got %v, %v, want lo with 127.0.0.1/8", version, r, err)
		}
		if err := pod.Do(func() error { return listenAt("127.0.0.1:0") }); err != nil {
			t.Errorf("%s: lo: %v", version, err)
		}
		if version != "0.3.1" { // which has no CHECK
			if err := config.CheckNetworkList(t.Context(), list, conf); err != nil {
				t.Error(version, err)
			}
			if err := pod.Do(func() error { return down("lo") }); err != nil {
				t.Fatal(err)
			}
			wantCode(t, config.CheckNetworkList(t.Context(), list, conf), 104, "is down")
		}
		if err := config.DelNetworkList(t.Context(), list, conf); err != nil {
			t.Error(version, err)
		}
	}
}

// down sets an interface of the calling thread's namespace down.
func down(name string) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetDown(dev)
}

// listenAt tries an address: one of lo is there only while that is up.
func listenAt(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}
