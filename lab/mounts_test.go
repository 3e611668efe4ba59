package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inside runs a script as an isolated process with mounts, and returns what it printed.
func inside(t *testing.T, mounts []Mount, script string) string {
	t.Helper()
	p := Exec(newNamespace(t, "pod"), "sh", "-c", script)
	p.Isolated, p.Mounts = true, mounts
	start(t, p)
	if err := p.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, p.Tail())
	}
	return p.Tail()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// tree returns what lies in a directory, one line each.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		b.WriteString(path + " " + d.Type().String() + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Wherever the mount point is, or is not, a process finds the file there, the rest as it was, and the machine's files stay as they are.
func TestMounts(t *testing.T) {
	machine, own := t.TempDir(), t.TempDir()
	write(t, machine+"/etc/hosts", "machine\n")
	write(t, machine+"/etc/dir/other", "other\n")
	for link, to := range map[string]string{
		"/etc/absolute": machine + "/etc/hosts", "/etc/relative": "../etc/hosts", "/etc/dangling": "../run/resolve/stub", "/etc/loop": "loop",
	} {
		if err := os.Symlink(to, machine+link); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(machine+"/etc/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(machine+"/etc", 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(machine+"/etc", 0o755) })
	file, dir := write(t, own+"/file", "own\n"), filepath.Dir(write(t, own+"/dir/inner", "inner\n"))
	before := tree(t, machine)
	for _, tt := range []struct {
		name   string
		mounts []Mount
		script string
		want   string
	}{
		{"file", []Mount{{Source: file, Target: machine + "/etc/hosts"}}, "cat etc/hosts", "own"},
		{"absolute link", []Mount{{Source: file, Target: machine + "/etc/absolute"}}, "cat etc/absolute etc/hosts", "own own"},
		{"relative link", []Mount{{Source: file, Target: machine + "/etc/relative"}}, "cat etc/relative", "own"},
		{"dangling link", []Mount{{Source: file, Target: machine + "/etc/dangling"}}, "cat etc/dangling run/resolve/stub; ls etc; ls run", "own own absolute dangling dir fifo hosts loop relative resolve"},
		{"missing file", []Mount{{Source: file, Target: machine + "/etc/gone"}}, "cat etc/gone etc/hosts etc/dir/other etc/relative; test -p etc/fifo; readlink etc/relative",
			"own machine other machine ../etc/hosts"},
		{"missing file in a missing directory", []Mount{{Source: file, Target: machine + "/x/y/z"}}, "cat x/y/z; cat etc/hosts", "own machine"},
		{"two in one directory", []Mount{{Source: file, Target: machine + "/a"}, {Source: file, Target: machine + "/b"}}, "cat a b; ls", "own own a b etc"},
		{"directory", []Mount{{Source: dir, Target: machine + "/etc/dir"}}, "ls etc/dir", "inner"},
		{"missing directory", []Mount{{Source: dir, Target: machine + "/data"}}, "ls data; cat etc/hosts", "inner machine"},
		{"missing in the root directory", []Mount{{Source: dir, Target: "/middleway-no-such/data"}}, "cat /middleway-no-such/data/inner etc/hosts; ls -d /.middleway-old; ls /proc/1/exe",
			"inner machine /proc/1/exe"},
		{"one in the other", []Mount{{Source: file, Target: machine + "/data/inner"}, {Source: dir, Target: machine + "/data"}}, "cat data/inner", "own"},
		{"covers its source", []Mount{{Source: dir, Target: own}, {Source: file, Target: machine + "/etc/hosts"}}, "ls " + own + "; cat etc/hosts", "inner own"},
		{"read-only", []Mount{{Source: dir, Target: machine + "/data", ReadOnly: true}}, "touch data/x || echo no", "no"},
		{"working directory", []Mount{{Source: dir, Target: machine + "/etc"}}, "cat etc/inner", "inner"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := inside(t, tt.mounts, "{ cd "+machine+"; "+tt.script+"; } 2>/dev/null || true")
			if got := strings.Join(strings.Fields(got), " "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if after := tree(t, machine); after != before {
				t.Errorf("the machine's files: got\n%s, want\n%s", after, before)
			}
		})
	}
	for name, tt := range map[string]struct {
		mount Mount
		want  string
	}{
		"no source":         {Mount{Source: own + "/gone", Target: machine + "/etc/hosts"}, "no such file"},
		"file for a dir":    {Mount{Source: dir, Target: machine + "/etc/hosts"}, "there is a file on this machine, where a directory is wanted"},
		"dir for a file":    {Mount{Source: file, Target: machine + "/etc/dir"}, "there is a directory on this machine, where a file is wanted"},
		"file on the way":   {Mount{Source: file, Target: machine + "/etc/hosts/x"}, "not a directory"},
		"links in a circle": {Mount{Source: file, Target: machine + "/etc/loop"}, "too many levels of symbolic links"},
	} {
		t.Run(name, func(t *testing.T) {
			p := Exec(newNamespace(t, "pod"), "true")
			p.Isolated, p.Mounts = true, []Mount{tt.mount}
			err := p.Start()
			if e := (*StartError)(nil); !errors.As(err, &e) || e.Code != exitRole && e.Code != exitNotFound || !strings.Contains(e.Problem, tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// A file from which the kernel mounts nothing is copied: one of a Directory on older kernels, one in memory on all.
func TestMountCopy(t *testing.T) {
	d, err := NewDirectory()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	fd, err := unix.MemfdCreate("file", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "file")
	defer memory.Close()
	if _, err := memory.WriteString("own\n"); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{write(t, d.Path()+"/file", "own\n"), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)} {
		target := write(t, t.TempDir()+"/target", "machine\n")
		mounts := []Mount{{Source: file, Target: target}, {Source: file, Target: "/middleway-no-such"}, {Source: file, Target: "/etc/passwd"}}
		if got := inside(t, mounts, "cat "+target+" /middleway-no-such /etc/passwd; ls /proc/1/exe; ls /* | grep -c '^copy$' || true"); got != "own\nown\nown\n/proc/1/exe\n0\n" {
			t.Errorf("%s: got %q", file, got)
		}
	}
}

// The working directory, and the program, are looked for among what the process sees.
func TestMountedProgram(t *testing.T) {
	own := t.TempDir()
	path := write(t, own+"/prepared", "#!/bin/sh\npwd\n")
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"prepared", "/middleway-no-such/prepared", "./prepared"} {
		one := isolated(t, "echo ready; sleep 1000")
		eventually(t, "ready", prints(one, "ready"))
		p := Exec(newNamespace(t, "pod"), name)
		p.Isolated, p.Dir, p.Mounts = true, "/middleway-no-such", []Mount{{Source: own, Target: "/middleway-no-such"}}
		p.Bare, p.Env = true, []string{"PATH=/no/such:/middleway-no-such:/bin"}
		start(t, p)
		if err := p.Wait(); err != nil || p.Tail() != "/middleway-no-such\n" {
			t.Errorf("%s: got %v, %q", name, err, p.Tail())
		}
	}
}

func TestStartError(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/data", "x")
	if err := os.WriteFile(dir+"/interpreter", []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	one := isolated(t, "echo ready; sleep 1000")
	eventually(t, "ready", prints(one, "ready"))
	for name, want := range map[string]int{
		"no-such-program": 127, "/no/such": 127, dir + "/interpreter": 127, dir + "/data": 126, dir: 126, "data": 126,
	} {
		for _, beside := range []*Process{nil, one} {
			p := Exec(one.ns, name)
			p.Isolated, p.Beside = beside == nil, beside
			p.Bare, p.Env = true, []string{"PATH=/bin:" + dir}
			err := p.Start()
			if e := (*StartError)(nil); !errors.As(err, &e) || e.Code != want || strings.Contains(e.Problem, "\n") {
				t.Errorf("%s: got %v, want exit code %d", name, err, want)
			}
			if p.Tail() != "" {
				t.Errorf("%s: it printed %q", name, p.Tail())
			}
		}
	}
	p := Exec(one.ns, "true")
	p.Isolated, p.Dir = true, "/no/such"
	if err := p.Start(); err == nil || err.Error() != "working directory /no/such: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

func TestHostname(t *testing.T) {
	ns := newNamespace(t, "pod")
	h, err := ns.NewHostname("web-1")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	p := Exec(ns, "sh", "-c", "uname -n; sleep 1000")
	p.Isolated, p.Hostname = true, h
	start(t, p)
	eventually(t, "it prints its name", prints(p, "web-1\n"))
	beside := Exec(ns, "uname", "-n")
	beside.Beside = p
	start(t, beside)
	if err := beside.Wait(); err != nil || beside.Tail() != "web-1\n" {
		t.Errorf("got %v, %q", err, beside.Tail())
	}
	if now, _ := os.Hostname(); now != own {
		t.Errorf("the lab's own name: got %s, want %s", now, own)
	}
	if _, err := ns.NewHostname(strings.Repeat("x", 65)); err == nil {
		t.Error("a name that is too long was taken")
	}
}
