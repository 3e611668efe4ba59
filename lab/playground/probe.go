package playground

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/manifest"
)

// probe asks a probe once; nil is a good answer. As kubelet does, it asks from the node's network namespace (pkg/kubelet/prober).
func (c *container) probe(ctx context.Context, p *lab.Process, probe *corev1.Probe) error {
	timeout := time.Duration(probe.TimeoutSeconds) * time.Second
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := c.probeOnce(asking, p, &probe.ProbeHandler)
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("no answer within %v", timeout)
	}
	return err
}

func (c *container) probeOnce(ctx context.Context, p *lab.Process, h *corev1.ProbeHandler) error {
	switch {
	case h.Exec != nil:
		return c.exec(ctx, p, h.Exec.Command)
	case h.HTTPGet != nil:
		code, err := c.get(ctx, h.HTTPGet)
		if err == nil && (code < http.StatusOK || code >= http.StatusBadRequest) {
			return fmt.Errorf("the HTTP status is %d", code)
		}
		return err
	case h.TCPSocket != nil:
		addr, err := c.address(h.TCPSocket.Host, h.TCPSocket.Port)
		if err != nil {
			return err
		}
		conn, err := c.dial(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	addr, err := c.address("", intstr.FromInt32(h.GRPC.Port))
	if err != nil {
		return err
	}
	service := ""
	if h.GRPC.Service != nil {
		service = *h.GRPC.Service
	}
	return askHealth(ctx, c.dial, addr, service)
}

// maxAnswer bounds what is read of an answer, in bytes, as kubelet does.
const maxAnswer = 10 << 10

// exitKilled is the exit code of what SIGKILL has ended.
const exitKilled = 128 + int(syscall.SIGKILL)

// endWait bounds the wait for the end of a container that may be why something in it has ended.
const endWait = time.Second

// exec runs a command beside the container's own, and kills it when ctx ends. The error is os.ErrProcessDone if the container has
// ended by itself meanwhile.
func (c *container) exec(ctx context.Context, own *lab.Process, argv []string) error {
	p := c.beside(own, argv)
	if err := p.Start(); err != nil {
		if failed := (*lab.StartError)(nil); !errors.As(err, &failed) && endsToo(ctx, own) {
			return os.ErrProcessDone
		}
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.Kill() // it has ended otherwise
		return ctx.Err()
	}
	code := exitCode(p.Wait())
	if code == 0 {
		return nil
	}
	if code == exitKilled && endsToo(ctx, own) {
		return os.ErrProcessDone
	}
	err := fmt.Errorf("%s: exit code %d", argv[0], code)
	if line := lastLine(p.Tail()); line != "" {
		err = fmt.Errorf("%w: %s", err, line)
	}
	return err
}

// endsToo reports whether a container ends: the kernel kills all that runs beside its process 1 before the end of that is seen.
func endsToo(ctx context.Context, own *lab.Process) bool {
	select {
	case <-own.Done():
		return true
	case <-ctx.Done():
		return true
	case <-time.After(endWait):
		return false
	}
}

// dial connects from the node's network namespace.
func (c *container) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := c.pod.node.Namespace.Dial(ctx, network, addr)
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return nil, fmt.Errorf("connect to %s: %w", addr, op.Err) // without the namespace's name
	}
	return conn, err
}

// address returns where a probe asks: at the pod's address, unless it names a host, which must be an address too, since nobody
// resolves names for a node here.
func (c *container) address(host string, port intstr.IntOrString) (string, error) {
	number, _ := manifest.PortNumber(c.spec, port) // checked
	switch {
	case host == "":
		addrs := c.pod.Addrs()
		if len(addrs) == 0 {
			return "", errors.New("the pod has no address")
		}
		host = addrs[0].String()
	case host == "localhost":
		host = "127.0.0.1"
	default:
		if _, err := netip.ParseAddr(host); err != nil {
			return "", fmt.Errorf("host %q: give an IP address; names are not resolved for nodes here", host)
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), nil
}

// get makes an HTTP request as kubelet does and returns the status of the answer. Redirects to other hosts are not followed.
func (c *container) get(ctx context.Context, g *corev1.HTTPGetAction) (code int, err error) {
	port := g.Port
	if port == (intstr.IntOrString{}) || port == intstr.FromString("") {
		port = intstr.FromInt32(80) // of a hook
	}
	addr, err := c.address(g.Host, port)
	if err != nil {
		return 0, err
	}
	target, err := url.Parse(g.Path)
	if err != nil {
		target = &url.URL{Path: g.Path}
	}
	target.Scheme, target.Host = strings.ToLower(string(g.Scheme)), addr
	if !strings.HasPrefix(target.Path, "/") {
		target.Path = "/" + target.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("User-Agent", "kube-probe/middleway")
	req.Header.Set("Accept", "*/*")
	for _, h := range g.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		}
		req.Header.Set(h.Name, h.Value)
	}
	transport := &http.Transport{
		DialContext: c.dial, DisableKeepAlives: true, DisableCompression: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // a probe asks whether somebody serves, not who
	}
	client := &http.Client{Transport: transport, CheckRedirect: nearRedirects}
	resp, err := client.Do(req)
	if err != nil {
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err // the target is the manifest's
		}
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // the status is the answer
	return resp.StatusCode, nil
}

// nearRedirects lets a client follow redirects within one host.
func nearRedirects(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("10 redirects are too many")
	}
	return nil
}
