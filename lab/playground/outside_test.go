package playground

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node/parent"
)

// machine dials from the machine's own network namespace.
type machine struct{ *parent.Client }

// dial connects a socket of the machine.
func (m machine) dial(typ int, to netip.AddrPort) (net.Conn, error) {
	domain, addr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		domain, addr = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := m.Socket(domain, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), to.String())
	defer f.Close()
	if err := unix.Connect(fd, addr); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

// get asks an HTTP server.
func (m machine) get(to netip.AddrPort) (string, error) {
	c := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return m.dial(unix.SOCK_STREAM, to)
	}}}
	r, err := c.Get("http://" + to.String())
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

// ask sends a datagram and returns the answer.
func (m machine) ask(to netip.AddrPort) (string, error) {
	c, err := m.dial(unix.SOCK_DGRAM, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte("who")); err != nil {
		return "", err
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// TestOutside: the machine's programs reach node ports and host ports at its loopback, whatever joins the nodes and wherever the pod is.
func TestOutside(t *testing.T) {
	for _, underlay := range []Underlay{Machine, Userspace} {
		t.Run(string(underlay), func(t *testing.T) { testOutside(t, underlay) })
	}
}

func testOutside(t *testing.T, underlay Underlay) {
	port := uint16(30100 + os.Getpid()%2500) // others may test on this machine, too
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: %[1]s, labels: {app: %[1]s}}\nspec:\n  nodeName: %[2]s\n  containers: [{name: main, command: [sleep, '1000'], ports: [%[3]s]}]\n"
	c, err := New(t.Context(), Config{Underlay: underlay, Dir: filepath.Join(shortDir(t), "up"), Pods: parse(t, strings.Join([]string{
		fmt.Sprintf(pod, "web", "node-2", "{containerPort: 80}"),
		fmt.Sprintf(pod, "door", "node-1", fmt.Sprintf("{containerPort: 80, hostPort: %d}, {containerPort: 80, hostPort: %[1]d, protocol: UDP}", port+1)),
		fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: NodePort\n  ipFamilyPolicy: PreferDualStack\n  selector: {app: web}\n"+
			"  ports: [{name: tcp, port: 80, nodePort: %d}, {name: udp, protocol: UDP, port: 80}]\n", port),
		"apiVersion: v1\nkind: Service\nmetadata: {name: none}\nspec: {type: NodePort, selector: {app: none}, ports: [{port: 80, nodePort: 32767}]}\n",
	}, "---\n"))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, name := range []string{"web", "door"} {
		serveName(t, c.Pod("default", name))
	}
	client, err := parent.Dial(c.nodes[0].Config.OutsideSockets)
	if underlay == Machine {
		client, err = parent.Dial(c.nodes[0].Config.Sockets)
	}
	if err != nil {
		t.Fatal(err)
	}
	m := machine{client}
	at := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if lab.HasIPv6() {
		at = append(at, netip.IPv6Loopback())
	}
	if underlay == Machine {
		at = append(at, c.nodes[1].Config.Address)
	}
	for _, a := range at {
		m.answers(t, "web", netip.AddrPortFrom(a, port))
		if a.IsLoopback() && a != c.nodes[1].Config.Address {
			m.answers(t, "door", netip.AddrPortFrom(a, port+1))
		}
	}
	m.echoes(t, c.Pod("default", "web"), netip.AddrPortFrom(at[0], port))
	if _, err := m.get(netip.AddrPortFrom(at[0], 32767)); err == nil || !strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()) {
		t.Errorf("without a pod: got %v", err)
	}
}

// answers waits until a pod answers over TCP and UDP: listeners come a moment after what they are for.
func (m machine) answers(t *testing.T, pod string, at netip.AddrPort) {
	t.Helper()
	for name, try := range map[string]func(netip.AddrPort) (string, error){"TCP": m.get, "UDP": m.ask} {
		for end := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			got, err := try(at)
			if err == nil && got == pod {
				break
			}
			if time.Now().After(end) {
				t.Errorf("%s to %v: got %q, %v; want %s", name, at, got, err, pod)
				break
			}
		}
	}
}

// echoes has connections send 64 MiB together, then their end, and receive the same: the end of one direction is not that of the other.
func (m machine) echoes(t *testing.T, p *Pod, at netip.AddrPort) {
	t.Helper()
	serveEcho(t, p)
	const conns, size = 64, 1 << 20
	var g errgroup.Group
	for i := range conns {
		g.Go(func() error {
			c, err := m.dial(unix.SOCK_STREAM, at)
			if err != nil {
				return err
			}
			defer c.Close()
			data := bytes.Repeat([]byte{byte(i), byte(i >> 8), 7}, size/3)
			go func() {
				_, _ = c.Write(data)
				_ = c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err == nil && !bytes.Equal(got, data) {
				err = fmt.Errorf("%d of %d bytes came back, or other ones", len(got), len(data))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// serveEcho has a pod's port 80 echo from now on.
func serveEcho(t *testing.T, p *Pod) {
	t.Helper()
	servers[p.manifest.Name].Close()
	l, err := p.Namespace().Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
}

// servers are the pods' HTTP servers, by their names.
var servers = map[string]*http.Server{}

// serveName answers in a pod's namespace with its name, over HTTP and UDP at port 80.
func serveName(t *testing.T, p *Pod) {
	t.Helper()
	name := p.manifest.Name
	l, err := p.Namespace().Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })}
	servers[name] = s
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	u, err := p.Namespace().ListenPacket("udp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		b := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo([]byte(name), from)
		}
	}()
}
