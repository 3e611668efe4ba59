//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Where the user finds its things, the same in every run so that build caches fit. A small file system hides the machine's
// own /home:
//
//	/home         read-only, made anew
//	├── user      $HOME, a directory on disk; below it go/pkg/mod, root's module cache, read-only
//	├── run       $XDG_RUNTIME_DIR, in memory
//	└── go        GOROOT, read-only
const (
	top        = "/home"
	home       = top + "/user"
	runtimeDir = top + "/run"
	goRoot     = top + "/go"
	tunDevice  = "/dev/net/tun"
)

// kept stay as they are. A process must write /proc/self/uid_map and /proc/sys/net of namespaces of its own, and may mount
// /sys in them only if nothing changed here; the rest of both, and terminals, have permissions of their own.
var kept = []string{"/proc", "/sys", "/dev/pts"}

// arrange turns the mount namespace of this process, a copy of the machine's, into what the user shall see.
func arrange(p plan) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts from the machine: %w", err)
	}
	if err := makeTop(p); err != nil {
		return err
	}
	if err := openTUN(); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount the namespace's own /proc (in a container, run it privileged): %w", err)
	}
	return protectMounts()
}

// makeTop mounts what the drawing above shows.
func makeTop(p plan) error {
	binds, err := openHomeBinds(p) // before the new /home hides some of them
	if err != nil {
		return err
	}
	defer closeBinds(binds)
	if err := unix.Mount("tmpfs", top, "tmpfs", 0, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("hide %s: %w", top, err)
	}
	return mountHome(p, binds, top)
}

// bind is a directory of the machine that shall be seen elsewhere.
type bind struct {
	source int    // open descriptor
	target string // below the new /home
}

func openHomeBinds(p plan) ([]bind, error) {
	var binds []bind
	for _, b := range []struct{ source, target string }{{p.HomeDir, home}, {p.ModuleCache, home + "/" + moduleCache}, {p.GoRoot, goRoot}} {
		fd, err := unix.Open(b.source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if errors.Is(err, fs.ErrNotExist) && b.source == p.ModuleCache {
			fd, err = unix.Open(p.HomeDir+"/"+moduleCache, unix.O_PATH|unix.O_CLOEXEC, 0) // no module needed so far
		}
		if err != nil {
			closeBinds(binds)
			return nil, fmt.Errorf("open %s: %w", b.source, err)
		}
		binds = append(binds, bind{fd, strings.TrimPrefix(b.target, top)})
	}
	return binds, nil
}

func closeBinds(binds []bind) {
	for _, b := range binds {
		unix.Close(b.source)
	}
}

// mountHome fills an empty directory with what the drawing shows below /home.
func mountHome(p plan, binds []bind, dir string) error {
	for _, sub := range []string{home, runtimeDir, goRoot} {
		if err := os.Mkdir(dir+strings.TrimPrefix(sub, top), 0o755); err != nil {
			return err
		}
	}
	owner := fmt.Sprintf("mode=0700,uid=%d,gid=%d", p.UID, p.UID)
	if err := unix.Mount("tmpfs", dir+strings.TrimPrefix(runtimeDir, top), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, owner); err != nil {
		return fmt.Errorf("mount %s: %w", runtimeDir, err)
	}
	for _, b := range binds {
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", b.source), dir+b.target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s: %w", top+b.target, err)
		}
	}
	return nil
}

// openTUN puts a device node that everybody may open over the machine's own.
func openTUN() error {
	if _, err := os.Stat(tunDevice); err != nil {
		return fmt.Errorf("%w: load the kernel's tun module (modprobe tun), or give the container this device", err)
	}
	node := top + "/tun"
	if err := makeNode(node, 10, 200); err != nil {
		return err
	}
	if err := unix.Mount(node, tunDevice, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", tunDevice, err)
	}
	return os.Remove(node)
}

// protectMounts makes every mount read-only but the user's own two and those kept.
func protectMounts() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range parseMountInfo(string(text)) {
		if m.path == home || m.path == runtimeDir || isKept(m.path) {
			continue
		}
		err := unix.Mount("", m.path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|m.flags, "")
		if err != nil && !hidden(err) {
			return fmt.Errorf("make %s read-only: %w", m.path, err)
		}
	}
	return nil
}

func isKept(path string) bool {
	for _, k := range kept {
		if path == k || strings.HasPrefix(path, k+"/") {
			return true
		}
	}
	return false
}

// hidden reports whether a remount failed because a later mount lies above: no path leads to the mount, for nobody.
func hidden(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) }

// mountPoint is one line of /proc/self/mountinfo (proc(5)).
type mountPoint struct {
	path  string
	flags uintptr // those of MS_… that a remount would clear if it did not repeat them
}

var mountFlags = map[string]uintptr{
	"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
	"nosymfollow": unix.MS_NOSYMFOLLOW,
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func parseMountInfo(text string) []mountPoint {
	var mounts []mountPoint
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 6 {
			continue
		}
		m := mountPoint{path: unescape.Replace(fields[4])}
		for option := range strings.SplitSeq(fields[5], ",") {
			m.flags |= mountFlags[option]
		}
		mounts = append(mounts, m)
	}
	return mounts
}
