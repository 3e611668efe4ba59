package up

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// containerRights are the capabilities of root in the container of CONTRIBUTING.md: the fourteen that Docker gives, and the two
// that .devcontainer/devcontainer.json adds.
var containerRights = []uintptr{
	unix.CAP_AUDIT_WRITE, unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_MKNOD,
	unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SETFCAP, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_SETUID, unix.CAP_SYS_CHROOT,
	unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN,
}

// keepRights takes all other capabilities from the program that this thread executes next.
func keepRights(rights []uintptr) error {
	runtime.LockOSThread()
	for right := uintptr(0); right <= unix.CAP_LAST_CAP; right++ {
		if slices.Contains(rights, right) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, right, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) { // not of this kernel
			return err
		}
	}
	return nil
}

// The demo needs no capability that a container does not have.
func TestDemoInContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user has no capabilities to lose")
	}
	demo := exec.Command("/proc/self/exe", program, "demo", "--download", "16MiB", "--duration", "100ms", "--write", "")
	demo.Env = append(os.Environ(), withoutVar+"="+withoutRights)
	if out, err := demo.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
