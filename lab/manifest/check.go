package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// MaxGrace bounds the seconds that a container has after SIGTERM; a person waits for it.
const MaxGrace = 60

// labelLetters are the characters of a name (RFC 1123).
const labelLetters = "small letters, digits and, between them, dashes"

// check finds the first thing for which Kubernetes would refuse the pod, or for which it cannot run here.
func (p *Pod) check() error {
	if err := checkMetadata(p, validation.IsDNS1123Subdomain, subdomainWords); err != nil {
		return err
	}
	policies := []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}
	if !slices.Contains(policies, p.Spec.RestartPolicy) {
		return p.Errorf("spec.restartPolicy", "%q is none; want Always, OnFailure or Never", p.Spec.RestartPolicy)
	}
	if s := p.Spec.TerminationGracePeriodSeconds; s != nil && *s < 0 {
		return p.Errorf("spec.terminationGracePeriodSeconds", "%d is less than 0", *s)
	}
	if len(p.Spec.Containers) == 0 {
		return p.Errorf("spec.containers", "a pod needs at least one container")
	}
	for _, check := range []func() error{p.checkNames, p.checkDNS, p.checkVolumes} {
		if err := check(); err != nil {
			return err
		}
	}
	if err := p.checkContainers(); err != nil {
		return err
	}
	return p.checkHostPorts()
}

// checkContainers checks the containers and init containers, whose names must differ.
func (p *Pod) checkContainers() error {
	names := map[string]string{}
	for _, list := range []struct {
		field      string
		containers []corev1.Container
	}{{"initContainers", p.Spec.InitContainers}, {"containers", p.Spec.Containers}} {
		for i := range list.containers {
			c := &list.containers[i]
			at := fmt.Sprintf("%s[%d]", list.field, i)
			if err := p.checkContainer("spec."+at, c); err != nil {
				return err
			}
			if other, taken := names[c.Name]; taken {
				return p.Errorf("spec."+at+".name", "%q is the name of %s already; choose another one", c.Name, other)
			}
			names[c.Name] = at
			if list.field == "initContainers" && !IsSidecar(c) {
				if err := p.checkInit("spec."+at, c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// IsSidecar reports whether an init container goes on beside the containers (KEP-753).
func IsSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// checkInit refuses what makes no sense for a container that ends before the others begin.
func (p *Pod) checkInit(at string, c *corev1.Container) error {
	for name, set := range map[string]bool{
		"lifecycle": c.Lifecycle != nil, "livenessProbe": c.LivenessProbe != nil,
		"readinessProbe": c.ReadinessProbe != nil, "startupProbe": c.StartupProbe != nil,
	} {
		if set {
			return p.Errorf(at+"."+name, "an init container has none; only one with restartPolicy: Always, which goes on beside the others, may")
		}
	}
	return nil
}

func (p *Pod) checkContainer(at string, c *corev1.Container) error {
	if c.Name == "" {
		return p.Errorf(at+".name", "a container needs a name")
	}
	if validation.IsDNS1123Label(c.Name) != nil {
		return p.Errorf(at+".name", "%q is no name for a container; take at most 63 %s, for example main", c.Name, labelLetters)
	}
	if err := p.checkCommand(at, c); err != nil {
		return err
	}
	if c.WorkingDir != "" && c.WorkingDir[0] != '/' {
		return p.Errorf(at+".workingDir", "%q is no absolute path", c.WorkingDir)
	}
	for _, list := range []struct {
		name  string
		words []string
	}{{"command", c.Command}, {"args", c.Args}, {"workingDir", []string{c.WorkingDir}}} {
		for i, word := range list.words {
			if strings.ContainsRune(word, 0) {
				return p.Errorf(fmt.Sprintf("%s.%s[%d]", at, list.name, i), "a NUL byte cannot be passed to a program")
			}
		}
	}
	policies := []corev1.ContainerRestartPolicy{corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyOnFailure, corev1.ContainerRestartPolicyNever}
	if c.RestartPolicy != nil && !slices.Contains(policies, *c.RestartPolicy) {
		return p.Errorf(at+".restartPolicy", "%q is none; want Always, OnFailure or Never", *c.RestartPolicy)
	}
	if err := p.checkPorts(at, c); err != nil {
		return err
	}
	if err := p.checkProbes(at, c); err != nil {
		return err
	}
	if err := p.checkMounts(at, c); err != nil {
		return err
	}
	for i, e := range c.Env {
		if err := p.checkEnv(fmt.Sprintf("%s.env[%d]", at, i), e); err != nil {
			return err
		}
	}
	return nil
}

// checkPorts checks the ports that a container names: Services find them by their names.
func (p *Pod) checkPorts(at string, c *corev1.Container) error {
	names := map[string]int{}
	for i, port := range c.Ports {
		at := fmt.Sprintf("%s.ports[%d]", at, i)
		switch {
		case port.Name != "" && validation.IsValidPortName(port.Name) != nil:
			return p.Errorf(at+".name", "%q is no name for a port; take at most 15 %s, a letter among them, for example http", port.Name, labelLetters)
		case validation.IsValidPortNum(int(port.ContainerPort)) != nil:
			return p.Errorf(at+".containerPort", "%d is no port; want 1 to 65535", port.ContainerPort)
		case !slices.Contains(protocols, port.Protocol):
			return p.Errorf(at+".protocol", "%q is none; want TCP, UDP or SCTP", port.Protocol)
		}
		if err := p.checkHostPort(at, &port); err != nil {
			return err
		}
		if other, taken := names[port.Name]; taken && port.Name != "" {
			return p.Errorf(at+".name", "%q is the name of ports[%d] already; choose another one", port.Name, other)
		}
		names[port.Name] = i
	}
	return nil
}

func (p *Pod) checkEnv(at string, e corev1.EnvVar) error {
	if validation.IsRelaxedEnvVarName(e.Name) != nil {
		return p.Errorf(at+".name", "%q is no name for a variable; take letters, digits and _, for example PORT", e.Name)
	}
	if strings.ContainsRune(e.Value, 0) {
		return p.Errorf(at+".value", "a NUL byte cannot be passed to a program")
	}
	if e.ValueFrom == nil {
		return nil
	}
	if e.Value != "" {
		return p.Errorf(at+".valueFrom", "value is set too; keep one of them")
	}
	if ref := e.ValueFrom.FieldRef; ref != nil {
		if _, ok := p.FieldValue(ref.FieldPath, Facts{}); !ok {
			return p.Errorf(at+".valueFrom.fieldRef.fieldPath", "%q cannot be had; want one of %s", ref.FieldPath, strings.Join(fieldPaths, ", "))
		}
	}
	return nil
}

// Facts are what becomes known of a pod when it runs.
type Facts struct {
	UID      string
	NodeName string
	HostIP   string
	PodIPs   []string
	// Services are the variables of Services, which a container's own take the place of.
	Services map[string]string
}

// fieldPaths are what FieldValue knows.
var fieldPaths = []string{
	"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels['KEY']", "metadata.annotations['KEY']",
	"spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.podIP", "status.podIPs",
}

// subscript is a field path with a key (KEP-1287 has no name for it; the downward API's documentation calls it so).
var subscript = regexp.MustCompile(`^metadata\.(labels|annotations)\['([^']+)'\]$`)

// FieldValue returns a field of the pod as the downward API gives it to a variable; false for one that it does not give.
func (p *Pod) FieldValue(path string, f Facts) (string, bool) {
	if m := subscript.FindStringSubmatch(path); m != nil {
		p.mu.RLock()
		defer p.mu.RUnlock()
		if m[1] == "labels" {
			return p.Labels[m[2]], true
		}
		return p.Annotations[m[2]], true
	}
	switch path {
	case "metadata.name":
		return p.Name, true
	case "metadata.namespace":
		return p.Namespace, true
	case "metadata.uid":
		return f.UID, true
	case "spec.nodeName":
		return f.NodeName, true
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, true
	case "status.hostIP":
		return f.HostIP, true
	case "status.podIP":
		return strings.Join(f.PodIPs[:min(1, len(f.PodIPs))], ""), true
	case "status.podIPs":
		return strings.Join(f.PodIPs, ","), true
	}
	return "", false
}
