package playground

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/unixsock"
)

// directory is a cluster's state directory. Its lock is held by the cluster's process as long as that lives.
//
//	up.lock           held while the cluster runs
//	up.json           its outer process, for Down
//	up.sock           its control socket
//	up.log            what it printed, if it is detached
//	output/           what containers print, in NAMESPACE/POD/CONTAINER/RUN.log
//	pods/             what pods find in place of the machine's files, in UID
//	sockets           where the daemons of an ordinary user get their sockets
//	bin/middleway     this program, for pods' commands
//	cni/middleway-cni this program, as the plugin; beside it libcni's cache of results
//	state/            the objects of the control plane, for the daemons (package k8s/folder)
//	node-N/           the node's run directory, and its configuration node-N.yaml
type directory struct {
	path      string
	lock      *os.File
	inherited bool           // the lock, from Detach
	private   *lab.Directory // in place of a named one; nil if it has a name
}

const (
	lockName   = "up.lock"
	ownerName  = "up.json"
	socketName = "up.sock"
	logName    = "up.log"
	// socketsName is the lab's, for sockets in the machine's namespace.
	socketsName = "sockets"
	outputDir   = "output"
	podsDir     = "pods"
	programDir  = "bin"
	pluginDir   = "cni"
	pluginName  = "middleway-cni"
	stateDir    = "state"
)

// maxPath is the longest state directory, in bytes: sockets lie in it, whose paths the kernel bounds.
const maxPath = unixsock.MaxPath - len("/node-89/node.sock")

// errRuns is the error of taking a directory whose cluster runs.
var errRuns = errors.New("a cluster runs there")

// openDirectory makes the directory, takes its lock, and removes what a crashed cluster left. It is a private one for "".
func openDirectory(path string) (*directory, error) {
	if path == "" {
		private, err := lab.NewDirectory()
		if err != nil {
			return nil, fmt.Errorf("make state directory: %w", err)
		}
		return &directory{path: private.Path(), private: private}, nil
	}
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path of the state directory, %s, is longer than %d bytes; choose a shorter one by --dir", path, maxPath)
	}
	if lock := inheritedLock(path); lock != nil {
		return &directory{path: path, lock: lock, inherited: true}, nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w; choose another one by --dir", err)
	}
	if err := node.CheckRunDir(path); err != nil {
		return nil, err
	}
	if err := checkForeign(path); err != nil {
		return nil, err
	}
	d, err := lockDirectory(path, os.O_CREATE)
	if errors.Is(err, errRuns) {
		return nil, fmt.Errorf("a cluster runs in %s already; %s takes it down, --dir chooses a directory for another one", path, Hint("down", path))
	}
	if err != nil {
		return nil, err
	}
	if err := d.clear(lockName, logName); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	return d, nil
}

// checkForeign refuses a directory that holds other things: a cluster's end would remove what has the names of its own.
func checkForeign(path string) error {
	foreign, _, err := remains(path)
	if err == nil && foreign != "" {
		err = fmt.Errorf("%s holds other things (%s); choose an empty or new directory by --dir", path, foreign)
	}
	return err
}

// remains tells what is in a directory: something that is no cluster's, or what a cluster has left, by its lock or, without
// one, by names that nothing else has.
func remains(path string) (foreign string, left bool, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", false, fmt.Errorf("read state directory: %w", err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == lockName:
			return "", true, nil
		case name == logName, name == ownerName, name == socketName, (name == socketsName || name == outsideName) && e.Type() == fs.ModeSocket:
			left = true
		case foreign == "":
			foreign = name
		}
	}
	return foreign, left && foreign == "", nil
}

// lockDirectory takes the lock; flags may have os.O_CREATE. The error is errRuns if it is taken, and fs.ErrNotExist if there is
// no lock to take.
func lockDirectory(path string, flags int) (*directory, error) {
	for {
		f, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|flags, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock of the state directory: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, errRuns
			}
			return nil, fmt.Errorf("lock state directory: %w", err)
		}
		// It may have been removed by its holder between the two calls.
		held, err := f.Stat()
		if err == nil {
			if present, err := os.Stat(f.Name()); err == nil && os.SameFile(held, present) {
				return &directory{path: path, lock: f}, nil
			}
		}
		f.Close()
	}
}

func (d *directory) join(names ...string) string {
	return filepath.Join(append([]string{d.path}, names...)...)
}

// clear removes what a cluster has put there, and nothing else, but for what is to be kept.
func (d *directory) clear(keep ...string) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("clear state directory: %w", err)
	}
	own := []string{ownerName, socketName, socketsName, outsideName, logName, outputDir, podsDir, programDir, pluginDir, stateDir, lockName}
	var errs []error
	for _, e := range entries {
		if slices.Contains(keep, e.Name()) || !slices.Contains(own, e.Name()) && !strings.HasPrefix(e.Name(), "node-") {
			continue
		}
		errs = append(errs, removeAll(d.join(e.Name())))
	}
	return errors.Join(errs...)
}

// removeAll removes a directory with all that is in it, also where a pod has closed what is in its volumes to its own user.
func removeAll(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(path, func(path string, e fs.DirEntry, _ error) error { // what it could not open stays, and is told below
		if e != nil && e.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}

// remove removes all of it, the lock last, and the directory itself if nothing else is in it.
func (d *directory) remove() error {
	if d.private != nil {
		return d.private.Close()
	}
	err := d.clear(lockName)
	err = errors.Join(err, os.Remove(d.join(lockName)), d.lock.Close())
	if gone := os.Remove(d.path); gone != nil && !errors.Is(gone, unix.ENOTEMPTY) {
		err = errors.Join(err, gone)
	} else if gone == nil && isDefault(d.path) {
		_ = os.Remove(filepath.Dir(d.path)) // unless a daemon has something in it
	}
	return err
}

// isDefault reports whether a directory is one that DefaultDir returns to some user.
func isDefault(path string) bool {
	parent, name := filepath.Split(path)
	parent = filepath.Base(parent)
	return name == upName && (parent == "middleway" || strings.HasPrefix(parent, "middleway-"))
}

// populate puts the links to this program there.
func (d *directory) populate() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	for _, dir := range []string{programDir, pluginDir} {
		if err := os.Mkdir(d.join(dir), 0o755); err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	// The plugin is started by this process, and is taken from it, so that it goes on where the file is removed or replaced.
	return errors.Join(os.Symlink(self, d.join(programDir, "middleway")), os.Symlink(selfPath, d.join(pluginDir, pluginName)))
}

// owner tells which process to end where the cluster does not answer.
type owner struct {
	PID   int    `json:"pid"`   // of the outer process, as the machine sees it
	Start string `json:"start"` // of the process, in ticks since boot: the number may belong to another one later
	Boot  string `json:"boot"`
}

// writeOwner notes the process, if there is one.
func (d *directory) writeOwner(pid int) error {
	if pid == 0 {
		return nil
	}
	b, err := json.Marshal(ownerOf(pid))
	if err != nil {
		return err
	}
	return os.WriteFile(d.join(ownerName), b, 0o600)
}

// readOwner returns the process of up.json; false if it is another one by now, or none.
func readOwner(path string) (owner, bool) {
	b, err := os.ReadFile(filepath.Join(path, ownerName))
	if err != nil {
		return owner{}, false
	}
	var o owner
	if json.Unmarshal(b, &o) != nil || o.PID <= 1 {
		return owner{}, false
	}
	return o, o.alive()
}

// alive reports whether the process is still that one, and not only waited for by its parent.
func (o owner) alive() bool { return o == ownerOf(o.PID) }

// ownerOf describes a process of this machine.
func ownerOf(pid int) owner {
	o := owner{PID: pid}
	if boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		o.Boot = strings.TrimSpace(string(boot))
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		// The name, in parentheses, may hold anything; the 20th field after it is the start (proc_pid_stat(5)).
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 19 && fields[0] != "Z" {
			o.Start = fields[19]
		}
	}
	return o
}

// waitUnlocked takes the lock as soon as it is free.
func waitUnlocked(path string, timeout time.Duration) (*directory, error) {
	for end := time.Now().Add(timeout); ; time.Sleep(10 * time.Millisecond) {
		d, err := lockDirectory(path, os.O_CREATE)
		if !errors.Is(err, errRuns) || time.Now().After(end) {
			return d, err
		}
	}
}
