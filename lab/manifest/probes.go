package manifest

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// setProbeDefaults fills in what Kubernetes does (SetDefaults_Probe in pkg/apis/core/v1/defaults.go).
func setProbeDefaults(p *corev1.Probe) {
	for value, byDefault := range map[*int32]int32{&p.TimeoutSeconds: 1, &p.PeriodSeconds: 10, &p.SuccessThreshold: 1, &p.FailureThreshold: 3} {
		if *value == 0 {
			*value = byDefault
		}
	}
	setHTTPDefaults(p.HTTPGet)
}

func setHTTPDefaults(g *corev1.HTTPGetAction) {
	if g == nil {
		return
	}
	if g.Path == "" {
		g.Path = "/"
	}
	if g.Scheme == "" {
		g.Scheme = corev1.URISchemeHTTP
	}
}

func setContainerDefaults(c *corev1.Container) {
	for i := range c.Ports {
		if c.Ports[i].Protocol == "" {
			c.Ports[i].Protocol = corev1.ProtocolTCP
		}
	}
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if probe != nil {
			setProbeDefaults(probe)
		}
	}
	if c.Lifecycle == nil {
		return
	}
	for _, hook := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
		if hook != nil {
			setHTTPDefaults(hook.HTTPGet)
		}
	}
}

// checkProbes checks a container's probes and hooks.
func (p *Pod) checkProbes(at string, c *corev1.Container) error {
	for _, probe := range []struct {
		name  string
		probe *corev1.Probe
	}{{"startupProbe", c.StartupProbe}, {"livenessProbe", c.LivenessProbe}, {"readinessProbe", c.ReadinessProbe}} {
		if probe.probe == nil {
			continue
		}
		if err := p.checkProbe(at+"."+probe.name, c, probe.probe, probe.name == "readinessProbe"); err != nil {
			return err
		}
	}
	if c.Lifecycle == nil {
		return nil
	}
	for _, hook := range []struct {
		name string
		hook *corev1.LifecycleHandler
	}{{"postStart", c.Lifecycle.PostStart}, {"preStop", c.Lifecycle.PreStop}} {
		if hook.hook == nil {
			continue
		}
		if err := p.checkHook(at+".lifecycle."+hook.name, c, hook.hook); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pod) checkProbe(at string, c *corev1.Container, probe *corev1.Probe, readiness bool) error {
	for _, n := range []struct {
		name  string
		value int32
	}{
		{"initialDelaySeconds", probe.InitialDelaySeconds}, {"timeoutSeconds", probe.TimeoutSeconds}, {"periodSeconds", probe.PeriodSeconds},
		{"successThreshold", probe.SuccessThreshold}, {"failureThreshold", probe.FailureThreshold},
	} {
		if n.value < 0 {
			return p.Errorf(at+"."+n.name, "%d is less than 0", n.value)
		}
	}
	grace := probe.TerminationGracePeriodSeconds
	switch {
	case !readiness && probe.SuccessThreshold != 1:
		return p.Errorf(at+".successThreshold", "%d: want 1, only a readinessProbe may ask for more", probe.SuccessThreshold)
	case readiness && grace != nil:
		return p.Errorf(at+".terminationGracePeriodSeconds", "a readinessProbe ends nothing; remove it")
	case grace != nil && *grace <= 0:
		return p.Errorf(at+".terminationGracePeriodSeconds", "%d: want more than 0", *grace)
	}
	h := &probe.ProbeHandler
	if err := p.checkOne(at, "exec, httpGet, tcpSocket and grpc", h.Exec != nil, h.HTTPGet != nil, h.TCPSocket != nil, h.GRPC != nil); err != nil {
		return err
	}
	switch {
	case h.Exec != nil:
		return p.checkExec(at, h.Exec)
	case h.HTTPGet != nil:
		return p.checkHTTP(at+".httpGet", c, h.HTTPGet)
	case h.TCPSocket != nil:
		return p.checkPort(at+".tcpSocket.port", c, h.TCPSocket.Port)
	}
	return p.checkPort(at+".grpc.port", c, intstr.FromInt32(h.GRPC.Port))
}

func (p *Pod) checkHook(at string, c *corev1.Container, h *corev1.LifecycleHandler) error {
	if err := p.checkOne(at, "exec, httpGet and sleep", h.Exec != nil, h.HTTPGet != nil, h.TCPSocket != nil, h.Sleep != nil); err != nil {
		return err
	}
	switch {
	case h.Exec != nil:
		return p.checkExec(at, h.Exec)
	case h.HTTPGet != nil:
		return p.checkHTTP(at+".httpGet", c, h.HTTPGet)
	case h.Sleep != nil && h.Sleep.Seconds < 0:
		return p.Errorf(at+".sleep.seconds", "%d is less than 0", h.Sleep.Seconds)
	}
	return nil
}

// checkOne wants one of several.
func (p *Pod) checkOne(at, names string, set ...bool) error {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	if n != 1 {
		return p.Errorf(at, "want one of %s; there are %d", names, n)
	}
	return nil
}

func (p *Pod) checkExec(at string, e *corev1.ExecAction) error {
	if len(e.Command) == 0 || e.Command[0] == "" {
		return p.Errorf(at+".exec.command", "say what to run, for example [cat, /tmp/healthy]")
	}
	return nil
}

func (p *Pod) checkHTTP(at string, c *corev1.Container, g *corev1.HTTPGetAction) error {
	if g.Scheme != corev1.URISchemeHTTP && g.Scheme != corev1.URISchemeHTTPS {
		return p.Errorf(at+".scheme", "%q is none; want HTTP or HTTPS", g.Scheme)
	}
	for i, h := range g.HTTPHeaders {
		if validation.IsHTTPHeaderName(h.Name) != nil {
			return p.Errorf(fmt.Sprintf("%s.httpHeaders[%d].name", at, i), "%q is no name for a header; take letters, digits and dashes, for example X-Probe", h.Name)
		}
	}
	return p.checkPort(at+".port", c, g.Port)
}

// checkPort wants a port by its number, or by a name that one of the container's ports has.
func (p *Pod) checkPort(at string, c *corev1.Container, port intstr.IntOrString) error {
	if number, ok := PortNumber(c, port); !ok {
		return p.Errorf(at, "the container has no port named %q; give its number, or name it in the container's ports", port.StrVal)
	} else if validation.IsValidPortNum(number) != nil {
		return p.Errorf(at, "%d is no port; want 1 to 65535", number)
	}
	return nil
}

// PortNumber returns the number of a port that may be named.
func PortNumber(c *corev1.Container, port intstr.IntOrString) (int, bool) {
	if port.Type == intstr.Int {
		return port.IntValue(), true
	}
	i := slices.IndexFunc(c.Ports, func(known corev1.ContainerPort) bool { return known.Name == port.StrVal })
	if i < 0 {
		return 0, false
	}
	return int(c.Ports[i].ContainerPort), true
}
