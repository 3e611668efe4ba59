package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/test/kube/sandbox"
)

// own are the folders that a node has for itself, on top of the machine's file system, which it sees else.
var own = []string{
	"/var/lib/kubelet", "/var/lib/containerd", "/var/lib/cni", "/var/lib/etcd", "/etc/cni/net.d", "/opt/cni/bin", "/etc/kubernetes",
	"/var/log/pods", "/var/log/containers",
}

// shown are settings of the whole machine that kubelet wants to be so: the node sees a file that has the value, and
// nothing of the machine is changed.
var shown = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// mount is mount(2) with an error that names the place.
func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", kind, target, err)
	}
	return nil
}

// makeFilesystem makes the node's view of the machine's file system. It runs in a new mount namespace.
func makeFilesystem(s Spec) error {
	hierarchies, err := sandbox.Hierarchies()
	if err != nil {
		return err
	}
	if err := mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := forgetNetns(); err != nil {
		return err
	}
	for _, m := range []struct{ kind, target, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""}, // of this network namespace
		{"tmpfs", "/sys/fs/cgroup", "mode=755"},
		{"tmpfs", "/run", "mode=755"},
	} {
		if err := mount(m.kind, m.target, m.kind, unix.MS_NOSUID|unix.MS_NODEV, m.data); err != nil {
			return err
		}
	}
	_ = unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "") // runc does without where the kernel has none
	if err := mountCgroups(hierarchies); err != nil {
		return err
	}
	for _, dir := range []string{"/run/netns", "/run/lock", "/run/shown"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range own {
		if err := bind(filepath.Join(s.Dir, dir), dir); err != nil {
			return err
		}
	}
	for name, value := range shown {
		file := filepath.Join("/run/shown", strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		target := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(target); err != nil {
			continue // this kernel has no such setting, and kubelet does not miss it
		}
		if err := mount(file, target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	for name, text := range s.Files {
		if err := writeFile(s, name, text); err != nil {
			return err
		}
	}
	return mount("", "/", "", unix.MS_SHARED|unix.MS_REC, "") // kubelet passes mounts on to pods
}

// bind puts a folder of the node's own in the place of one that is made on the machine if it is not there.
func bind(source, target string) error {
	for _, dir := range []string{source, target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return mount(source, target, "", unix.MS_BIND, "")
}

// writeFile writes a file in one of the node's own folders, or puts one in the place of a file of the machine.
func writeFile(s Spec, name, text string) error {
	for _, dir := range own {
		if strings.HasPrefix(name, dir+"/") {
			return os.WriteFile(name, []byte(text), 0o600)
		}
	}
	file := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			return err
		}
	}
	return mount(file, name, "", unix.MS_BIND, "")
}

// forgetNetns takes away this node's copies of the machine's named network namespaces: each would keep another's namespace alive
// for as long as this node lives.
func forgetNetns() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 4 && strings.HasPrefix(f[4], "/run/netns/") {
			if err := unix.Unmount(f[4], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("unmount %s: %w", f[4], err)
			}
		}
	}
	return nil
}

// mountCgroups mounts the hierarchies anew, so that the node's own folder is their root.
func mountCgroups(hierarchies []sandbox.Hierarchy) error {
	for _, h := range hierarchies {
		if h.Version == 2 {
			if err := mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(h.Dir, 0o755); err != nil {
			return err
		}
		if err := mount("cgroup", h.Dir, "cgroup", 0, h.Options); err != nil {
			return err
		}
	}
	if len(hierarchies) == 1 && hierarchies[0].Version == 2 {
		return sandbox.MakeLeaf("/sys/fs/cgroup")
	}
	return nil
}
