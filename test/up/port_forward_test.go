package up

import (
	"bufio"
	"crypto/sha256"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// forwarded is a `middleway port-forward` that runs.
type forwarded struct {
	*playgroundAt
	cmd   *exec.Cmd
	lines chan string // of both streams
}

// portForward starts the command, which is ended with the test, and returns it with its local ports.
func (p *playgroundAt) portForward(ports int, args ...string) (f *forwarded, local []string) {
	p.Helper()
	f = &forwarded{p, p.command(append([]string{"port-forward"}, args...)...), make(chan string, 1000)}
	r, w := io.Pipe()
	f.cmd.Stdout, f.cmd.Stderr = w, w
	if err := f.cmd.Start(); err != nil {
		p.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			f.lines <- s.Text()
		}
		close(f.lines)
	}()
	p.Cleanup(sync.OnceFunc(func() {
		_ = f.cmd.Process.Kill()
		_ = f.cmd.Wait()
		w.Close()
	}))
	for len(local) < ports {
		local = append(local, f.await(`^Forwarding from 127\.0\.0\.1:(\d+) -> `))
	}
	return f, local
}

// await returns what a pattern's group is in the next line that matches.
func (f *forwarded) await(pattern string) string {
	f.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line := <-f.lines:
			if m := regexp.MustCompile(pattern).FindStringSubmatch(line); m != nil {
				return m[len(m)-1]
			}
		case <-timeout:
			f.Fatalf("no line like %s", pattern)
		}
	}
}

// wait returns the command's exit code.
func (f *forwarded) wait() int {
	f.Helper()
	done := make(chan bool)
	go func() {
		_ = f.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		f.Fatal("port-forward does not end")
	}
	return f.cmd.ProcessState.ExitCode()
}

func get(url string) (string, error) {
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// What listens on a pod's loopback alone is reached, by the pod's and by a Service's port.
func TestPortForward(t *testing.T) {
	p := newPlayground(t)
	service := `---
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {selector: {app: web}, ports: [{name: web, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: main
    command: [middleway, tool, serve, --listen, "127.0.0.1:8080", --listen, "[::1]:8081", --listen, "tcp://127.0.0.1:7"]
    ports: [{name: http, containerPort: 8080}]
`
	p.up(service, "--nodes", "1")
	p.eventually("the server answers in the pod", func() bool {
		_, code := p.middleway("exec", "web", "--", "middleway", "tool", "get", "http://127.0.0.1:8080/hostname")
		return code == 0
	})
	f, ports := p.portForward(5, "web", ":8080", ":http", ":8081", ":7", ":9")
	for _, port := range ports[:3] {
		if got, err := get("http://127.0.0.1:" + port + "/hostname"); err != nil || strings.TrimSpace(got) != "web" {
			t.Errorf("port %s: %q, %v", port, got, err)
		}
		f.await("^Handling connection for (" + port + ")$")
	}
	echo(t, "127.0.0.1:"+ports[3], 16<<20)
	if conn, err := net.Dial("tcp4", "127.0.0.1:"+ports[4]); err != nil {
		t.Error(err)
	} else {
		conn.Close()
		f.await("an error occurred forwarding (" + ports[4] + ") -> 9: connect to localhost:9 inside pod default/web: connection refused")
	}
	if err := f.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := f.wait(); code != 0 {
		t.Errorf("after Ctrl-C: exit code %d", code)
	}

	for _, target := range []string{"svc/front", "service/front"} {
		f, ports := p.portForward(1, target, ":80")
		if got, err := get("http://127.0.0.1:" + ports[0] + "/hostname"); err != nil || strings.TrimSpace(got) != "web" {
			t.Errorf("%s: %q, %v", target, got, err)
		}
		_ = f.cmd.Process.Signal(syscall.SIGTERM)
		f.wait()
	}
	for args, want := range map[string]string{
		"none 80":           `pods "none" not found`,
		"svc/front 81":      "Service front does not have a service port 81",
		"web":               "TYPE/NAME and list of ports are required for port-forward",
		"-n other web 80":   `pods "web" not found`,
		"web --address x 1": "x is not a valid IP",
	} {
		if out, code := p.middleway(append([]string{"port-forward"}, strings.Fields(args)...)...); code != 1 || !strings.Contains(out, want) {
			t.Errorf("%s: got %d %q", args, code, out)
		}
	}
}

// echo sends so many bytes through a server that echoes, and compares.
func echo(t *testing.T, addr string, size int64) {
	t.Helper()
	conn, err := net.Dial("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	sent, got := sha256.New(), sha256.New()
	go func() {
		block := []byte(strings.Repeat("0123456789abcdef", 4096))
		for left := size; left > 0; left -= int64(len(block)) {
			_, _ = sent.Write(block)
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	n, err := io.Copy(got, conn)
	if err != nil || n != size || string(got.Sum(nil)) != string(sent.Sum(nil)) {
		t.Errorf("echo: %d of %d bytes, %v", n, size, err)
	}
}

// The command ends with its pod, and with the cluster.
func TestPortForwardEnds(t *testing.T) {
	p, end := newPlayground(t), filepath.Join(t.TempDir(), "end")
	p.up(pods("stays: sleep 1000", "{restartPolicy: Never} ends: while ! [ -e "+end+" ]; do sleep 0.1; done"), "--nodes", "1")
	ends, _ := p.portForward(1, "pod/ends", ":80")
	stays, ports := p.portForward(1, "pod/stays", ":80")
	if out, code := p.middleway("exec", "ends", "--", "touch", end); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	ends.await("(lost connection to pod)")
	if code := ends.wait(); code != 1 {
		t.Errorf("the pod has ended: exit code %d", code)
	}
	if out, code := p.middleway("port-forward", "ends", ":80"); code != 1 || !strings.Contains(out, "unable to forward port because pod is not running. Current status=") {
		t.Errorf("got %d %q", code, out)
	}
	p.must("down")
	stays.await("(lost connection to pod)")
	if code := stays.wait(); code != 1 {
		t.Errorf("the cluster has ended: exit code %d", code)
	}
	if conn, err := net.Dial("tcp4", "127.0.0.1:"+ports[0]); err == nil {
		conn.Close()
		t.Error("the port still listens")
	}
}
