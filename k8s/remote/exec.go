package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
)

// Container is one of a running pod.
type Container struct{ Namespace, Pod, Name string }

// Streams are a command's. Of those that are nil the command has none, but what it writes to standard error, the end of which goes
// into the error.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// program is this one, in the daemon's container; a container runtime looks for it along the PATH of the image.
const program = "middleway"

// Run runs this program with arguments in a daemon's container, for example `status -o json`. It has no standard input, and ends with
// ctx or with the connection, however that ends.
func (c *Cluster) Run(ctx context.Context, d Daemon, args []string, s Streams) error {
	in, out := io.Pipe()
	done := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() { (&frames{w: out}).beat(done) })
	s.Stdin = in
	err := c.Exec(ctx, c.containerOf(d), append([]string{program, "attached", "--"}, args...), s)
	close(done)
	_ = in.Close()
	beating.Wait()
	return err
}

func (c *Cluster) containerOf(d Daemon) Container {
	return Container{c.config.Namespace, d.Pod, container}
}

// Exec runs a command in a container until it ends, which is an *ExitError where its code is not 0, or until ctx does. A kubelet does not
// end a command whose client has gone: its standard input ends, and a command that does not read it goes on.
func (c *Cluster) Exec(ctx context.Context, in Container, command []string, s Streams) error {
	stderr := &tail{}
	if s.Stderr == nil {
		s.Stderr = stderr
	}
	where := c.core.Post().Namespace(in.Namespace).Resource("pods").Name(in.Pod).SubResource("exec").
		Param("container", in.Name).Param("stdin", fmt.Sprint(s.Stdin != nil)).Param("stdout", fmt.Sprint(s.Stdout != nil)).Param("stderr", "true")
	for _, word := range command {
		where.Param("command", word)
	}
	err := c.stream(ctx, where.URL(), remotecommand.StreamOptions{Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr})
	var code exec.CodeExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &code):
		return &ExitError{code.Code, stderr.String()}
	}
	return fmt.Errorf("exec in pod %s/%s: %w", in.Namespace, in.Pod, c.inWords(err, "verbs get and create on pods/exec in namespace "+in.Namespace))
}

// stream speaks by WebSocket, and by SPDY with API servers before Kubernetes 1.30, through proxies that let no WebSocket through, and where
// only SPDY's verb is allowed, which is create; the other needs get, and from 1.35 on both.
func (c *Cluster) stream(ctx context.Context, where *url.URL, o remotecommand.StreamOptions) error {
	spdy, err := remotecommand.NewSPDYExecutor(c.rest, http.MethodPost, where)
	if err != nil {
		return err
	}
	socket, err := remotecommand.NewWebSocketExecutor(c.rest, http.MethodGet, where.String())
	if err != nil {
		return err
	}
	ctx = klog.NewContext(ctx, klog.Logger{})
	err = socket.StreamWithContext(ctx, o)
	if !httpstream.IsUpgradeFailure(err) && !httpstream.IsHTTPSProxyError(err) {
		return err
	}
	refused := refusal(err)
	if err = spdy.StreamWithContext(ctx, o); err != nil && refused != nil && strings.Contains(err.Error(), "unable to upgrade") {
		return refused // of which SPDY's error has the text alone
	}
	return err
}

// refusal returns what an API server said that speaks WebSocket and would not let this user do it; nil if that is not so.
func refusal(err error) error {
	var upgrade *httpstream.UpgradeFailureError
	if !errors.As(err, &upgrade) || !apierrors.IsForbidden(upgrade.Cause) && !apierrors.IsUnauthorized(upgrade.Cause) && !apierrors.IsNotFound(upgrade.Cause) {
		return nil
	}
	return upgrade.Cause
}

// tail keeps the end of what is written.
type tail struct{ b bytes.Buffer }

// keptTail is how much that is, in bytes: more than any sentence has.
const keptTail = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.b.Write(p)
	t.b.Next(max(0, t.b.Len()-keptTail))
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(t.b.String()) }
