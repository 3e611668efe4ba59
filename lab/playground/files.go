package playground

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/tool"
)

// What a pod's directory holds, pods/UID in the state directory.
const (
	etcDir     = "etc"     // files that its containers find in /etc
	volumesDir = "volumes" // a directory for each emptyDir
)

func (p *Pod) join(names ...string) string {
	return p.cluster.dir.join(append([]string{podsDir, p.uid}, names...)...)
}

// PodFile is where a file lies that the containers of a pod find in /etc, for those who look on from outside.
func PodFile(dir, uid, name string) string { return filepath.Join(dir, podsDir, uid, etcDir, name) }

// makeFiles makes the pod's files and volumes. Its addresses must be known.
func (p *Pod) makeFiles() error {
	if err := os.MkdirAll(p.join(etcDir), 0o755); err != nil {
		return fmt.Errorf("files of pod %s: %w", p.manifest.Key(), err)
	}
	for name, text := range p.etc() {
		if err := os.WriteFile(p.join(etcDir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("files of pod %s: %w", p.manifest.Key(), err)
		}
	}
	for _, v := range p.manifest.Spec.Volumes {
		if v.EmptyDir == nil {
			continue
		}
		dir := p.join(volumesDir, v.Name)
		err := os.MkdirAll(dir, 0o777)
		if err == nil {
			err = os.Chmod(dir, 0o777) // whatever the umask is
		}
		if err != nil {
			return fmt.Errorf("volume %s of pod %s: %w", v.Name, p.manifest.Key(), err)
		}
	}
	return nil
}

// etc returns the files that every container of the pod finds in /etc.
func (p *Pod) etc() map[string]string {
	spec := &p.manifest.Spec
	hosts := nodeHosts(machineFile("/etc/hosts"), spec.HostAliases)
	if !spec.HostNetwork {
		hosts = hostsOf(p.Addrs(), p.names, spec.HostAliases)
	}
	return map[string]string{
		"hostname":    p.names.host + "\n",
		"hosts":       hosts,
		"resolv.conf": podResolver(spec, p.manifest.Namespace, tool.ParseResolvConf(machineFile("/etc/resolv.conf"))).String(),
	}
}

// machineFile returns a file of the machine, "" where it cannot be read.
func machineFile(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// mounts are what a container finds in place of the machine's files.
func (p *Pod) mounts(spec *corev1.Container) ([]lab.Mount, error) {
	var all []lab.Mount
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		all = append(all, lab.Mount{Source: p.join(etcDir, name), Target: filepath.Join("/etc", name)})
	}
	for _, m := range spec.VolumeMounts {
		v := p.manifest.Volume(m.Name)
		if v == nil || v.EmptyDir == nil {
			continue
		}
		source := p.join(volumesDir, v.Name)
		if err := makeSubPath(source, m.SubPath); err != nil {
			return nil, fmt.Errorf("subPath %s of volume %s: %w", m.SubPath, m.Name, err)
		}
		all = append(all, lab.Mount{Source: filepath.Join(source, m.SubPath), Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	return all, nil
}

// makeSubPath makes a directory of a volume, unless there is something of that name.
func makeSubPath(volume, path string) error {
	if path == "" {
		return nil
	}
	root, err := os.OpenRoot(volume) // links do not lead out of it
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return root.MkdirAll(path, 0o777)
}
