package playground

import (
	"fmt"
	"strings"

	"github.com/middleway-net/middleway/lab/manifest"
)

// DefaultPort is where the default pods serve, and their Service at DefaultServicePort.
const (
	DefaultPort        = 8080
	DefaultService     = "web"
	DefaultServicePort = 80
)

// DefaultPods returns what runs where no manifest is given: two pods a node, each an HTTP server that tells who asks, and a
// Service of all of them.
func DefaultPods(nodes int) (*manifest.Set, error) {
	var b strings.Builder
	fmt.Fprintf(&b, `
apiVersion: v1
kind: Service
metadata:
  name: %s
spec:
  selector: {app: %[1]s}
  ports: [{name: http, port: %d, targetPort: %d}]
`, DefaultService, DefaultServicePort, DefaultPort)
	for n := 1; n <= nodes; n++ {
		for i := 1; i <= 2; i++ {
			fmt.Fprintf(&b, `---
apiVersion: v1
kind: Pod
metadata:
  name: pod-%d-%d
  labels: {app: %s}
spec:
  nodeName: %s
  containers:
  - name: server
    command: [middleway, tool, serve, --listen, ":%d"]
    ports: [{containerPort: %d}]
`, n, i, DefaultService, nodeName(n), DefaultPort, DefaultPort)
		}
	}
	return manifest.Parse("the default pods", []byte(b.String()))
}

// nodeName returns the name of the node with a number of the address plan.
func nodeName(number int) string { return fmt.Sprintf("node-%d", number) }
