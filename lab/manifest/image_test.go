package manifest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStandIns(t *testing.T) {
	const standIn = "middleway tool stand-in "
	for _, tt := range []struct{ image, fields, want string }{
		{"nginx", "", standIn + "nginx"},
		{"nginx:1.27-alpine", "", standIn + "nginx"},
		{"docker.io/library/nginx:1.27@sha256:" + strings.Repeat("0", 64), "", standIn + "nginx"},
		{"mirror.example:5000/docker/library/nginx", "", standIn + "nginx"},
		{"nginx", `args: [nginx, -g, daemon off;]`, standIn + "nginx"},
		{"nginx", `args: [sh, -c, "echo $(A)"]`, "sh -c echo 1"},
		{"nginx", `command: [other], args: [x]`, "other x"},
		{"registry.k8s.io/e2e-test-images/httpd:2.4.38-4", "", standIn + "httpd"},
		{"httpd", "args: [httpd-foreground]", standIn + "httpd"},
		{"busybox:1.36", "", standIn + "busybox"},
		{"busybox", `args: [sleep, "3600"]`, "sleep 3600"},
		{"registry.k8s.io/e2e-test-images/agnhost:2.47", "", standIn + "agnhost"},
		{"registry.k8s.io/e2e-test-images/agnhost", `args: [netexec, "--http-port=$(A)"]`, standIn + "agnhost netexec --http-port=1"},
		{"registry.k8s.io/e2e-test-images/agnhost", `args: ["$(A)"]`, standIn + "agnhost 1"},
		{"curlimages/curl", "", standIn + "curl"},
		{"quay.io/curl/curl:8.10.1", "args: [-s, web]", standIn + "curl -s web"},
		{"registry.k8s.io/pause:3.10", "", standIn + "pause"},
	} {
		t.Run(tt.image+" "+tt.fields, func(t *testing.T) {
			p := parseOne(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: main, env: [{name: A, value: '1'}], image: "+tt.image+", "+tt.fields+"}]}\n")
			argv, _ := p.Command(&p.Spec.Containers[0], Facts{})
			if diff := cmp.Diff(tt.want, strings.Join(argv, " ")); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
	for _, image := range []string{"", "nginx/unit", "bitnami/nginx", "example.org/nginx-proxy", "example.org/team/busybox", "UPPER", "nginx:", "a/../nginx"} {
		if name, _, ok := standInOf(image); ok {
			t.Errorf("%s: got %s, want none", image, name)
		}
	}
}

// A name of an image is never more than it says.
func FuzzStandIn(f *testing.F) {
	f.Add("docker.io/library/nginx:1.27")
	f.Add("localhost:5000/pause@sha256:00")
	f.Add("a/../nginx")
	f.Fuzz(func(t *testing.T, image string) {
		if name, _, ok := standInOf(image); ok && !strings.Contains(image, name) {
			t.Errorf("%q: got %s", image, name)
		}
	})
}
