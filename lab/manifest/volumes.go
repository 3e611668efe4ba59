package manifest

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// checkVolumes checks the pod's volumes.
func (p *Pod) checkVolumes() error {
	names := map[string]int{}
	for i, v := range p.Spec.Volumes {
		at := fmt.Sprintf("spec.volumes[%d].name", i)
		if validation.IsDNS1123Label(v.Name) != nil {
			return p.Errorf(at, "%q is no name for a volume; take at most 63 %s, for example data", v.Name, labelLetters)
		}
		if other, taken := names[v.Name]; taken {
			return p.Errorf(at, "%q is the name of volumes[%d] already; choose another one", v.Name, other)
		}
		names[v.Name] = i
	}
	return nil
}

// Volume returns a volume of the pod, or nil.
func (p *Pod) Volume(name string) *corev1.Volume {
	i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	if i < 0 {
		return nil
	}
	return &p.Spec.Volumes[i]
}

// checkMounts checks where a container finds volumes.
func (p *Pod) checkMounts(at string, c *corev1.Container) error {
	paths := map[string]int{}
	for i, m := range c.VolumeMounts {
		at := fmt.Sprintf("%s.volumeMounts[%d]", at, i)
		if p.Volume(m.Name) == nil && !strings.HasPrefix(m.Name, tokenPrefix) {
			return p.Errorf(at+".name", "the pod has no volume %q in spec.volumes", m.Name)
		}
		switch {
		case !path.IsAbs(m.MountPath):
			return p.Errorf(at+".mountPath", "%q is no absolute path", m.MountPath)
		case path.Clean(m.MountPath) == "/" || strings.ContainsAny(m.MountPath, ":\x00"):
			return p.Errorf(at+".mountPath", "nothing can be mounted at %q; take a directory below /, without colons", m.MountPath)
		case path.IsAbs(m.SubPath) || slices.Contains(strings.Split(m.SubPath, "/"), ".."):
			return p.Errorf(at+".subPath", "%q is no path within the volume", m.SubPath)
		}
		if other, taken := paths[m.MountPath]; taken {
			return p.Errorf(at+".mountPath", "%s is that of volumeMounts[%d] already", m.MountPath, other)
		}
		paths[m.MountPath] = i
	}
	return nil
}
