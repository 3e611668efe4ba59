package control

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Variables returns those by which a pod's containers find Services, as kubelet makes them (pkg/kubelet/envvars): of the Services of the
// pod's namespace, unless it has enableServiceLinks: false, and of default/kubernetes.
func (p *Plane) Variables(pod *corev1.Pod) map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	env := map[string]string{}
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	for _, s := range list[*corev1.Service](p.state, Services, "") {
		master := s.Namespace == metav1.NamespaceDefault && s.Name == "kubernetes"
		if master || links && s.Namespace == pod.Namespace {
			addVariables(env, s)
		}
	}
	return env
}

func addVariables(env map[string]string, s *corev1.Service) {
	ip := s.Spec.ClusterIP
	if ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
		return
	}
	name := variable(s.Name)
	env[name+"_SERVICE_HOST"] = ip
	env[name+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
	for i, port := range s.Spec.Ports {
		number, protocol := strconv.Itoa(int(port.Port)), strings.ToLower(string(port.Protocol))
		if port.Name != "" {
			env[name+"_SERVICE_PORT_"+variable(port.Name)] = number
		}
		// What follows are the variables of links between Docker's containers.
		url := fmt.Sprintf("%s://%s", protocol, net.JoinHostPort(ip, number))
		if i == 0 {
			env[name+"_PORT"] = url
		}
		prefix := fmt.Sprintf("%s_PORT_%s_%s", name, number, strings.ToUpper(protocol))
		env[prefix], env[prefix+"_PROTO"], env[prefix+"_PORT"], env[prefix+"_ADDR"] = url, protocol, number, ip
	}
}

// variable is a name as the beginning of a variable.
func variable(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }
