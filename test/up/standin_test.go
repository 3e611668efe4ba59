package up

import (
	"fmt"
	"strings"
	"testing"
)

// image makes a manifest of a pod that has an image and no command.
func image(name, image, args string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {restartPolicy: OnFailure, containers: [{name: main, image: %q, args: [%s]}]}\n", name, image, args)
}

// Well-known images without a command listen, sleep or end as their own programs would, on their low ports for an ordinary user too.
func TestStandIns(t *testing.T) {
	p := newPlayground(t)
	p.up(image("nginx", "nginx:1.27-alpine", "") + image("httpd", "docker.io/library/httpd", "") + image("busybox", "busybox", "") +
		image("sleeper", "busybox", `sleep, "1000"`) + image("pause", "registry.k8s.io/pause:3.10", "") +
		image("netexec", "registry.k8s.io/e2e-test-images/agnhost:2.53", "netexec, --http-port=80"))
	for _, name := range []string{"nginx", "httpd", "sleeper", "pause", "netexec"} {
		if got := p.pod(name); got.Phase != "Running" || got.Restarts() != 0 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	p.eventually("a shell without input ends", func() bool { return p.pod("busybox").Phase == "Succeeded" })
	for name, want := range map[string]string{"nginx": "Welcome to nginx!", "httpd": "It works!", "netexec": "NOW: "} {
		for _, ip := range p.pod(name).IPs {
			server := ip.String()
			if ip.Is6() {
				server = "[" + server + "]"
			}
			p.eventually(name+" answers at "+server, func() bool {
				out, code := p.middleway("exec", "sleeper", "--", "middleway", "tool", "stand-in", "curl", "-sS", "-m", "5", "http://"+server+"/")
				return code == 0 && strings.Contains(out, want) && (name == "netexec" || strings.Contains(out, "pod "+name))
			})
		}
	}
	if out := p.must("logs", "nginx"); !strings.Contains(out, `"GET / HTTP/1.1" 200 `) {
		t.Errorf("the log of nginx: got %q", out)
	}
	before := p.processes()
	p.must("down") // all of them know SIGTERM
	p.gone(before)
}

// The examples of the documentation work as they are.
func TestExamples(t *testing.T) {
	p := newPlayground(t)
	out := p.must("up", "-d", "-f", "../../docs/examples")
	if strings.Contains(out, "warning:") {
		t.Errorf("got\n%s", out)
	}
	for _, name := range []string{"web", "visitor", "netexec"} {
		if got := p.pod(name); got.Phase != "Running" {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	visitor := p.pod("visitor")
	p.eventually("the visitor speaks", func() bool {
		return strings.Contains(p.must("logs", "visitor"), fmt.Sprintf(" visitor at %v on node-2\n", visitor.IPs[0]))
	})
	p.eventually("the crash is told", func() bool {
		crash := p.pod("crash")
		return crash.Restarts() > 0 && strings.Contains(crash.Reason(), "there is no database here") && p.must("logs", "-p", "crash") == "there is no database here\n"
	})
}
