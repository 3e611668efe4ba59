package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot is the folder of all test clusters, in each hierarchy.
const cgroupRoot = "middleway-kube"

// A Hierarchy is one of the machine's cgroup hierarchies: of version 1 one for each set of controllers, of version 2 the only
// one that has controllers.
type Hierarchy struct {
	Dir     string // where it is mounted
	Version int
	Options string // version 1: the controllers or the name, as mount(2) takes them
}

// Hierarchies is those of the machine that nodes need. A machine with both versions (systemd's "hybrid") has its controllers
// in version 1, and that is what is used.
func Hierarchies() ([]Hierarchy, error) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	all := parseMounts(string(text))
	if len(all) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted below /sys/fs/cgroup; nodes need one: mount -t cgroup2 none /sys/fs/cgroup")
	}
	return all, nil
}

// notControllers are the mount options of a version 1 hierarchy that do not choose it.
var notControllers = []string{"rw", "ro", "nosuid", "nodev", "noexec", "noatime", "relatime", "seclabel", "xattr", "clone_children"}

// parseMounts finds hierarchies in the text of /proc/PID/mounts (proc(5)).
func parseMounts(text string) []Hierarchy {
	var v1, v2 []Hierarchy
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[1], "/sys/fs/cgroup") {
			continue
		}
		switch f[2] {
		case "cgroup":
			options := slices.DeleteFunc(strings.Split(f[3], ","), func(o string) bool {
				return slices.Contains(notControllers, o) || strings.HasPrefix(o, "release_agent=")
			})
			if strings.HasPrefix(options[0], "name=") {
				options = append([]string{"none"}, options...)
			}
			v1 = append(v1, Hierarchy{Dir: f[1], Version: 1, Options: strings.Join(options, ",")})
		case "cgroup2":
			v2 = append(v2, Hierarchy{Dir: f[1], Version: 2})
		}
	}
	if len(v1) > 0 {
		return v1
	}
	return v2[:min(len(v2), 1)]
}

// A Cgroup is a folder in every hierarchy, below that of its cluster.
type Cgroup struct {
	Cluster string
	Name    string // of the node; empty: the cluster's own
}

func (c Cgroup) dir(h Hierarchy) string { return filepath.Join(h.Dir, cgroupRoot, c.Cluster, c.Name) }

// Make makes the folders, and gives them all that their hierarchy has to give.
func (c Cgroup) Make() error {
	hierarchies, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		err := c.makeIn(h)
		for range 3 { // another cluster that goes may have taken the folder of all clusters away meanwhile
			if !errors.Is(err, fs.ErrNotExist) {
				break
			}
			err = c.makeIn(h)
		}
		if err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	return nil
}

func (c Cgroup) makeIn(h Hierarchy) error {
	dir := h.Dir
	for _, part := range []string{cgroupRoot, c.Cluster, c.Name} {
		parent := dir
		dir = filepath.Join(parent, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := inherit(h, parent, dir); err != nil {
			return err
		}
	}
	return nil
}

// inherit opens a new folder's controllers: cpuset of version 1 begins without any processor, and in version 2 the parent
// decides which controllers there are at all.
func inherit(h Hierarchy, parent, dir string) error {
	if h.Version == 2 {
		return DelegateControllers(parent)
	}
	if !slices.Contains(strings.Split(h.Options, ","), "cpuset") {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
			return err
		}
	}
	return nil
}

// DelegateControllers lets the folders in a version 2 folder have all controllers that it has itself.
func DelegateControllers(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(text)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("delegate %s: %w", controller, err)
		}
	}
	return nil
}

// leaf is where the processes of a node itself are in version 2, which has no processes in a folder whose folders have
// controllers.
const leaf = "node"

// Join moves the calling process into the folders.
func (c Cgroup) Join() error {
	hierarchies, err := Hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		dir := c.dir(h)
		if _, err := os.Stat(filepath.Join(dir, leaf)); h.Version == 2 && err == nil {
			dir = filepath.Join(dir, leaf)
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// Processes is the ids of all processes in the folders and below them, as the caller sees them.
func (c Cgroup) Processes() ([]int, error) { return c.processes(func(string) bool { return true }) }

// PodProcesses is the ids of the processes of a pod, which kubelet gives a folder that is named after the pod's UID.
func (c Cgroup) PodProcesses(uid string) ([]int, error) {
	return c.processes(func(dir string) bool { return strings.Contains(dir, "pod"+uid) })
}

func (c Cgroup) processes(of func(dir string) bool) ([]int, error) {
	hierarchies, err := Hierarchies()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, h := range hierarchies {
		err := filepath.WalkDir(c.dir(h), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() || !of(path) {
				return ignoreGone(err)
			}
			text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for _, f := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 && !slices.Contains(pids, pid) {
					pids = append(pids, pid)
				}
			}
			return ignoreGone(err)
		})
		if err != nil {
			return nil, err
		}
	}
	return pids, nil
}

// ignoreGone drops the error about a folder that went away meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Remove kills every process in the folders and takes the folders away. All of them were started for this cluster: nobody else
// is put there.
func (c Cgroup) Remove(limit time.Duration) error {
	hierarchies, err := Hierarchies()
	if err != nil {
		return err
	}
	var left []int
	if !eventually(limit, func() bool {
		if left, err = c.Processes(); err != nil {
			return true
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by itself
		}
		return len(left) == 0
	}) {
		return fmt.Errorf("processes %v of cluster %s do not end", left, c.Cluster)
	}
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		var last error
		if !eventually(limit, func() bool { last = removeTree(c.dir(h)); return last == nil }) {
			return fmt.Errorf("remove cgroup: %w", last)
		}
		_ = os.Remove(filepath.Join(h.Dir, cgroupRoot)) // stays while other clusters are there
	}
	return nil
}

// removeTree removes a folder of a cgroup hierarchy, the innermost folders first.
func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return ignoreGone(err)
	})
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(dirs) {
		if err := os.Remove(d); ignoreGone(err) != nil {
			return err
		}
	}
	return nil
}

// MakeLeaf moves the calling process from a version 2 folder into one below, and opens the controllers for others below.
func MakeLeaf(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, leaf), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make cgroup: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("join cgroup: %w", err)
	}
	return DelegateControllers(dir)
}
