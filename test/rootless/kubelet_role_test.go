package rootless

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// cgroupVar names the folder of each cgroup hierarchy that an administrator has given to a host's user; empty: none.
const cgroupVar = "TEST_CGROUP"

// subordinateVar names a directory for files of the user that an administrator has; empty: they have given no subordinate ids.
const subordinateVar = "TEST_SUBORDINATE"

// cgroups are the mounts of the machine's hierarchies.
const cgroups = "/sys/fs/cgroup"

// delegate does what an administrator does who gives a user a part of each cgroup hierarchy (version 1): a folder that is the user's, in which
// this process then is, and that is all there is to be seen.
func delegate(uid int, name string) error {
	if name == "" {
		return nil
	}
	hierarchies, err := os.ReadDir(cgroups)
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		dir := filepath.Join(cgroups, h.Name(), name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} { // a child has none until it is told
			if b, err := os.ReadFile(filepath.Join(cgroups, h.Name(), f)); err == nil {
				if err := os.WriteFile(filepath.Join(dir, f), b, 0); err != nil {
					return err
				}
			}
		}
		files, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, f := range append([]string{""}, names(files)...) {
			if err := os.Chown(filepath.Join(dir, f), uid, uid); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return err
		}
		if err := unix.Mount(dir, filepath.Join(cgroups, h.Name()), "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// subordinate gives a user 65,536 further ids, as an administrator does in /etc/subuid and /etc/subgid: containers have files and devices of
// other users and groups than root.
func subordinate(uid int, dir string) error {
	if dir == "" {
		return nil
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	range_ := fmt.Appendf(nil, "mw-rootless:%d:65536\n", uid<<16)
	for name, text := range map[string][]byte{
		"passwd": fmt.Appendf(passwd, "mw-rootless:x:%d:%[1]d::/:/bin/sh\n", uid), "subuid": range_, "subgid": range_,
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return err
		}
		if _, err := os.Stat("/etc/" + name); err != nil {
			return err
		}
		if err := unix.Mount(file, "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	// The namespaces are made by unshare(1), which then becomes this program: under a path that the user sees.
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "self"), program, 0o755)
}

func names(entries []fs.DirEntry) (all []string) {
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// kubelet says what runs in a node's user namespace in the place of libcni.
type kubelet struct {
	Bin        string // directory of kubelet, containerd, its shim, ctr and runc
	Images     []string
	Dir        string // of files
	Kubeconfig string
	Name       string
	Addr       string
}

// start starts containerd and kubelet, root of this user namespace, and returns what ends them.
func (k *kubelet) start(p plan) (stop func(), err error) {
	var started []*lab.Process
	stop = func() {
		for _, p := range started {
			p.Kill()
		}
	}
	for _, dir := range []string{"/run", "/var/lib", "/var/log"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return stop, fmt.Errorf("%s: %w", dir, err)
		}
	}
	socket := "/run/containerd.sock"
	containerd := filepath.Join(k.Dir, "containerd.toml")
	conf := fmt.Sprintf(`version = 3
root = %q
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "registry.k8s.io/pause:3.10.2"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [%q]
    conf_dir = %q
    use_internal_loopback = true
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = %q
        SystemdCgroup = false
`, filepath.Join(k.Dir, "containerd"), socket, p.Plugins, filepath.Join(k.Dir, "net.d"), filepath.Join(k.Bin, "runc"))
	kubeletConf := filepath.Join(k.Dir, "kubelet.yaml")
	text := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
featureGates: {KubeletInUserNamespace: true}
failCgroupV1: false
cgroupDriver: cgroupfs
failSwapOn: false
containerRuntimeEndpoint: unix://%s
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
podLogsDir: /var/log/pods
clusterDNS: ["10.96.0.10"]
clusterDomain: cluster.local
makeIPTablesUtilChains: false
evictionHard: {memory.available: 50Mi}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
`, socket)
	conflist, err := os.ReadFile(p.Conf)
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Join(k.Dir, "net.d"), 0o755),
			os.WriteFile(filepath.Join(k.Dir, "net.d", "10-middleway.conflist"), conflist, 0o644),
			os.WriteFile(containerd, []byte(conf), 0o644), os.WriteFile(kubeletConf, []byte(text), 0o644))
	}
	if err != nil {
		return stop, err
	}
	run := func(argv ...string) *lab.Process {
		r := lab.Exec(nil, argv...)
		r.Env = []string{"PATH=" + k.Bin + ":" + os.Getenv("PATH")}
		r.Path = filepath.Join(k.Bin, argv[0])
		r.Output = os.Stderr
		return r
	}
	c := run("containerd", "--config", containerd, "--log-level", "warn")
	if err := c.Start(); err != nil {
		return stop, err
	}
	started = append(started, c)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(end) {
			return stop, errors.New("containerd does not serve")
		}
	}
	for _, image := range k.Images {
		i := run("ctr", "--address", socket, "-n", "k8s.io", "images", "import", "--local", image)
		if err := i.Start(); err != nil {
			return stop, err
		}
		if err := i.Wait(); err != nil {
			return stop, fmt.Errorf("import %s: %w: %s", image, err, strings.TrimSpace(i.Tail()))
		}
	}
	l := run("kubelet", "--config", kubeletConf, "--kubeconfig", k.Kubeconfig, "--hostname-override", k.Name, "--node-ip", k.Addr, "--root-dir", filepath.Join(k.Dir, "kubelet"), "--v=1")
	if err := l.Start(); err != nil {
		return stop, err
	}
	started = append(started, l)
	return stop, nil
}
