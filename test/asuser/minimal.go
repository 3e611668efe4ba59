//go:build linux

package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// arrangeMinimal gives this process's mount namespace a root of its own, which holds nothing but
//
//	/             read-only, made anew, in memory
//	├── bin       make, sh and what --with names; the shared libraries that these need are where the dynamic linker looks for them
//	├── dev       null, zero, urandom, tty, ptmx, pts, net/tun
//	├── etc       empty
//	├── home      user, run and go, as in mounts.go
//	├── proc      the process namespace's own
//	└── sys       the machine's
//
// so that a command which works there needs no more than Go, make, a shell and the C library of the machine: no ip, no ping, no
// git, not even ls, no names, no accounts, no certificates.
func arrangeMinimal(p plan) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts from the machine: %w", err)
	}
	binds, err := openHomeBinds(p)
	if err != nil {
		return err
	}
	defer closeBinds(binds)
	const root = top // until it is the root
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "mode=0755,size=64m"); err != nil {
		return fmt.Errorf("mount the minimal root: %w", err)
	}
	for _, target := range slices.Sorted(maps.Keys(p.Files)) {
		if err := copyFile(filepath.Join(root, target), p.Files[target]); err != nil {
			return fmt.Errorf("copy %s: %w", target, err)
		}
	}
	for _, dir := range []string{"etc", "proc", "sys", "dev", top} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := mountHome(p, binds, filepath.Join(root, top)); err != nil {
		return err
	}
	if err := makeDevices(filepath.Join(root, "dev")); err != nil {
		return err
	}
	for _, m := range []struct{ kind, dir string }{{"proc", "proc"}, {"sysfs", "sys"}} {
		if err := unix.Mount(m.kind, filepath.Join(root, m.dir), m.kind, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount the minimal root's own /%s (in a container, run it privileged): %w", m.dir, err)
		}
	}
	if err := enterRoot(root); err != nil {
		return fmt.Errorf("enter the minimal root: %w", err)
	}
	return protectMounts()
}

// enterRoot makes dir the root and leaves the old one to nobody (pivot_root(2), "pivot_root(".", ".")").
func enterRoot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// makeDevices fills a /dev of its own with the device nodes of Linux's list (admin-guide/devices.txt).
func makeDevices(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("mount a /dev: %w", err)
	}
	for _, sub := range []string{"net", "pts"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		name         string
		major, minor uint32
	}{{"null", 1, 3}, {"zero", 1, 5}, {"urandom", 1, 9}, {"tty", 5, 0}, {"net/tun", 10, 200}} {
		if err := makeNode(filepath.Join(dir, d.name), d.major, d.minor); err != nil {
			return err
		}
	}
	if err := os.Symlink("pts/ptmx", filepath.Join(dir, "ptmx")); err != nil {
		return err
	}
	if err := unix.Mount("devpts", filepath.Join(dir, "pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return fmt.Errorf("mount a /dev/pts: %w", err)
	}
	return nil
}

// makeNode makes a device that everybody may open.
func makeNode(path string, major, minor uint32) error {
	if err := unix.Mknod(path, unix.S_IFCHR, int(unix.Mkdev(major, minor))); err != nil {
		return fmt.Errorf("make a device node: %w", err)
	}
	return os.Chmod(path, 0o666) // Mknod's mode would pass the umask
}
