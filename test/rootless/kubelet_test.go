package rootless

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// TestKubelet: kubelet and containerd run in the nodes' user namespaces (feature gate KubeletInUserNamespace), with slirp4netns for what they
// want from outside and sockets that are handed in for the pods; the pods that they make reach each other.
func TestKubelet(t *testing.T) {
	if lab.InUserNamespace() {
		t.Skip("only root gives users a part of the cgroups")
	}
	for _, name := range []string{"unshare", "newuidmap", "slirp4netns"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("a rootless engine needs a program that this machine lacks: ", err)
		}
	}
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		t.Skip("the cgroups are of version 2, which systemd delegates; this test hands out folders of version 1")
	}
	removeFormer(t)
	bin := kubeBin()
	images, err := filepath.Glob(filepath.Join(filepath.Dir(bin), "images", "images.tar"))
	must(t, err)
	if images == nil { // or a file for each
		images = []string{filepath.Join(filepath.Dir(bin), "images", "pause.tar"), filepath.Join(filepath.Dir(bin), "images", "agnhost.tar")}
	}
	hosts := newHosts(t, 3)
	// What an administrator has installed, for all users to read.
	programs := filepath.Join(filepath.Dir(hosts[0].home), "programs")
	must(t, os.Mkdir(programs, 0o755))
	for _, name := range []string{"kubelet", "containerd", "containerd-shim-runc-v2", "ctr", "runc"} {
		copyFile(t, filepath.Join(bin, name), filepath.Join(programs, name))
	}
	for i, image := range images {
		images[i] = filepath.Join(programs, filepath.Base(image))
		copyFile(t, image, images[i])
	}
	server, hosts := hosts[2], hosts[:2]
	client := server.controlPlane()
	put(t, client, len(hosts))
	_, err = client.CoreV1().ServiceAccounts("default").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	must(t, err)
	for _, h := range hosts {
		h.configure(func(c *node.Config) {
			c.Kubernetes.Kubeconfig, c.PodCIDRs, c.Services.CIDRs, c.DNS.ResolvConf = h.kubeconfig(server), nil, lab.ServiceCIDRs(), "none"
			c.Address = h.addr(false)
		})
		h.plan.Device, h.plan.Own, h.plan.Gateway = "tap0", hiddenAddr, hiddenGateway
		h.wayOut = func(pid int) { bySlirp4netns(h, pid) }
		h.plan.Kubelet = &kubelet{Bin: programs, Dir: h.path("kube"), Kubeconfig: h.config.Kubernetes.Kubeconfig, Name: h.config.Name, Addr: h.addr(false).String()}
		h.plan.Kubelet.Images = images
		must(t, os.MkdirAll(h.path("kube"), 0o755))
		h.cgroup = fmt.Sprintf("%s%d-%d", cgroupPrefix, os.Getpid(), h.number)
		t.Cleanup(func() { removeCgroups(t, h.cgroup) })
		h.start()
	}
	for _, h := range hosts {
		h.waitReady()
		_, err := client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: h.plan.Pods[0]},
			Spec: corev1.PodSpec{
				NodeName: h.config.Name, AutomountServiceAccountToken: new(bool), TerminationGracePeriodSeconds: new(int64),
				Containers: []corev1.Container{{Name: "c", Image: "registry.k8s.io/e2e-test-images/agnhost:2.55", Args: []string{"netexec"}, ImagePullPolicy: corev1.PullNever}},
			},
		}, metav1.CreateOptions{})
		must(t, err)
	}
	addrs := map[string]string{}
	for _, h := range hosts {
		name := h.plan.Pods[0]
		eventually(t, 2*time.Minute, name+" runs", func() error {
			p, err := client.CoreV1().Pods("default").Get(t.Context(), name, metav1.GetOptions{})
			if err == nil && p.Status.Phase != corev1.PodRunning {
				err = fmt.Errorf("%+v", p.Status)
			}
			if err == nil {
				addrs[name] = p.Status.PodIP
			}
			return err
		})
	}
	for i, h := range hosts {
		from, to := h.plan.Pods[0], hosts[1-i].plan.Pods[0]
		url := fmt.Sprintf("http://%s:8080/dial?host=%s&port=8080&protocol=http&request=hostname", addrs[from], addrs[to])
		eventually(t, 30*time.Second, from+" reaches "+to, func() error {
			out, err := h.run("", "tool", "get", url)
			if err == nil && !strings.Contains(out, to) {
				err = errors.New(out)
			}
			return err
		})
	}
}

// cgroupPrefix begins the names of the folders; the number of the test's process follows.
const cgroupPrefix = "mw-rootless-"

// removeFormer removes what tests left that were killed.
func removeFormer(t *testing.T) {
	t.Helper()
	folders, err := filepath.Glob(filepath.Join(cgroups, "*", cgroupPrefix+"*"))
	must(t, err)
	for _, f := range folders {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(f), cgroupPrefix), "-")
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			removeCgroups(t, filepath.Base(f))
		}
	}
}

// copyFile makes a file that all may read and execute.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Skip("Kubernetes' programs and images are not on this machine: ", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, errors.Join(err, out.Close()))
}

// removeCgroups ends what is left in a folder of the cgroup hierarchies, as containers outlive kubelet and containerd, and removes it.
func removeCgroups(t *testing.T, name string) {
	hierarchies, err := os.ReadDir(cgroups)
	must(t, err)
	for _, h := range hierarchies {
		top := filepath.Join(cgroups, h.Name(), name)
		eventually(t, 60*time.Second, top+" is removed", func() error { return removeTree(top) })
	}
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil {
		for _, pid := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(pid); err == nil && n > 1 {
				_ = unix.Kill(n, unix.SIGKILL) // it may have ended
			}
		}
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}
