package up

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// echoService is a Service of both families whose pod sends back what it gets.
const echoService = `apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: echo}
  ports: [{name: udp, port: 7, protocol: UDP, targetPort: 7007, nodePort: %[1]d}, {name: tcp, port: 7, targetPort: 7007, nodePort: %[1]d}]
---
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  nodeName: node-2
  containers:
  - name: main
    image: middleway
    command: [middleway, tool, serve, --listen, "udp://:7007", --listen, "tcp://:7007"]
`

// freeNodePort returns a node port that no program of this machine has.
func freeNodePort(t *testing.T) int {
	t.Helper()
	for port := 32000; port < 32700; port++ {
		udp, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		udp.Close()
		tcp, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		tcp.Close()
		return port
	}
	t.Fatal("no node port is free")
	return 0
}

// echoes asks an echo server once.
func echoes(network, addr string) error {
	c, err := net.DialTimeout(network, addr, 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	b := make([]byte, 5)
	_, err = c.Read(b)
	if err == nil && string(b) != "hello" {
		err = fmt.Errorf("got %q", b)
	}
	return err
}

// NodePorts answer on the machine's loopback, whatever joins the nodes, and wherever the pod is.
func TestNodePort(t *testing.T) {
	for _, underlay := range []string{"kernel", "machine"} {
		t.Run(underlay, func(t *testing.T) {
			p, port := newPlayground(t), freeNodePort(t)
			file := filepath.Join(t.TempDir(), "echo.yaml")
			if err := os.WriteFile(file, fmt.Appendf(nil, echoService, port), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, code := p.middleway("up", "-d", "--underlay", underlay, "-f", file); code != 0 {
				t.Fatalf("up: %d %s", code, out)
			}
			for _, network := range []string{"udp", "tcp"} {
				for _, addr := range []string{"127.0.0.1", "[::1]"} {
					var err error
					p.eventually("an answer over "+network+" at "+addr, func() bool {
						err = echoes(network, fmt.Sprintf("%s:%d", addr, port))
						return err == nil
					})
				}
			}
		})
	}
}
