package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// settle prepares the fresh namespaces as lab.Enter does: mounts stay private, loopback works. Where it may not, it says so, and
// nothing else can be tried.
func settle(say func(outcome)) bool {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		say(judge("mount-namespace", "", lab.ExplainNamespaces(fmt.Errorf("make mounts private: %w", err))))
		return false
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		say(judge("network-namespace", "", lab.ExplainNamespaces(fmt.Errorf("set up loopback device: %w", err))))
		return false
	}
	return true
}

// makeNamespace makes a node's or pod's network namespace, with its settings.
func makeNamespace() (string, error) {
	ns, err := lab.NewNamespace("doctor")
	if errors.Is(err, unix.EROFS) {
		return "", &problem{err, "in a container start it with --privileged, or with --security-opt systempaths=unconfined: /proc/sys must be writable"}
	}
	if err != nil {
		return "", err
	}
	return "made, with settings of its own", ns.Close()
}

// mountProc mounts a /proc of the process's own PID namespace.
func mountProc() (string, error) {
	err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if errors.Is(err, unix.EPERM) {
		return "", fmt.Errorf("parts of /proc are covered, as in many containers: %w", err)
	}
	return "", err
}

// mountOver mounts a file over a file, and an empty directory over a directory.
func mountOver() (string, error) {
	if err := unix.Mount("/dev/null", "/dev/null", "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("mount a file: %w", err)
	}
	if err := unix.Mount("tmpfs", os.TempDir(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return "", fmt.Errorf("mount a tmpfs: %w", err)
	}
	return "", nil
}

// makeDirectory makes a directory that is mounted nowhere.
func makeDirectory() (string, error) {
	d, err := lab.NewDirectory()
	if err != nil {
		return "", missingInKernel(err, "fsopen(2)")
	}
	return "", d.Close()
}

// attemptAsUser is what the process of an ordinary user tries, and says: the TUN device, user namespaces, and what is needed in
// them.
func attemptAsUser(say func(outcome)) {
	inside := map[string]outcome{}
	tryInside(context.Background(), true, func(o outcome) {
		if _, known := inside[o.Name]; !known {
			inside[o.Name] = o
		}
	})
	namespaces := outcome{Name: "user-namespace", State: Works, Detail: fmt.Sprintf("tried as user %d", ordinaryID)}
	for _, name := range []string{"user-namespace", "network-namespace", "mount-namespace", "pid-namespace", "pod-namespace"} {
		if o := inside[name]; o.State != Works {
			namespaces = outcome{Name: "user-namespace", State: o.State, Detail: o.Detail, Remedy: o.Remedy}
			break
		}
	}
	say(namespaces)
	device, err := openTUN()
	tun := judge("tun-ordinary", device, err)
	if pod := inside["tun-pod"]; tun.State == Works && namespaces.State == Works && pod.State != Works {
		tun.State, tun.Detail, tun.Remedy = pod.State, pod.Detail, pod.Remedy
	}
	say(tun)
}
