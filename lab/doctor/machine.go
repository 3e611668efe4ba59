package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/stack"
)

// newReport tells whose report it is.
func newReport() *Report {
	r := &Report{UID: os.Geteuid(), Capable: lab.Capable(), Confined: lab.Confined()}
	if outer, ok := outerUID(); ok {
		r.UID, r.entered = outer, true
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		r.Kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
		r.Machine = unix.ByteSliceToString(name.Machine[:])
	}
	return r
}

// outerUID returns who root of this process's user namespace is outside of it, where it is the only user in it; false elsewhere.
func outerUID() (uid int, ok bool) {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || os.Geteuid() != 0 {
		return 0, false
	}
	var first, size int
	n, _ := fmt.Sscan(string(b), &first, &uid, &size)
	return uid, n == 3 && first == 0 && size == 1 && uid != 0
}

// haveCapabilities asks for those of a node.
func haveCapabilities() (string, error) {
	if !lab.Capable() {
		return "", fmt.Errorf("user %d has not both of them here", os.Geteuid())
	}
	return "", nil
}

// openHostSetting opens, and does not change, a setting that the daemon sets on the host's device.
func openHostSetting() (string, error) {
	f, err := os.OpenFile("/proc/sys/net/ipv4/conf/all/rp_filter", os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	return "may be changed", f.Close()
}

// writeRunDir makes a file without a name in the run directory, or in the first directory above it that is there.
func writeRunDir() (string, error) {
	dir := node.DefaultRunDir()
	if err := node.CheckRunDir(dir); err != nil {
		return "", err
	}
	at := dir
	for {
		_, err := os.Stat(at)
		if !errors.Is(err, fs.ErrNotExist) || at == "/" {
			break
		}
		at = filepath.Dir(at)
	}
	fd, err := unix.Open(at, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) { // a file system without such files
		fd, err = -1, unix.Faccessat(unix.AT_FDCWD, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	if err != nil {
		return "", fmt.Errorf("%s: write in %s: %w", dir, at, err)
	}
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err == nil && fs.Type != unix.TMPFS_MAGIC {
		return dir + ", not in a tmpfs: the flow table is written to a disk", nil
	}
	return dir, nil
}

// podsOfNode is how many pods kubelet takes on a node by default, and spareFiles what a daemon has open beside their queues.
const (
	podsOfNode = 110
	spareFiles = 200
)

// countFiles compares the limit of open files with what a full node has open.
func countFiles() (string, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return "", err
	}
	need := uint64(podsOfNode*stack.Workers(0) + spareFiles)
	if limit.Max < need {
		return "", &problem{fmt.Errorf("%d, and %d pods need %d", limit.Max, podsOfNode, need),
			fmt.Sprintf("raise the hard limit: `ulimit -Hn %d`, or LimitNOFILE=%d of the systemd unit", need, need)}
	}
	return fmt.Sprintf("%d, of which %d pods need %d", limit.Max, podsOfNode, need), nil
}
