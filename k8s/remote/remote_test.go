package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s/remote"
	"github.com/middleway-net/middleway/k8s/remote/remotetest"
)

func open(t *testing.T, s *remotetest.Server) *remote.Cluster {
	t.Helper()
	c, err := remote.New(remote.Config{Kubeconfig: s.Kubeconfig(t)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// waiting is a daemon's pod whose container does not run.
func waiting(node string) corev1.Pod {
	p := remotetest.Daemon(node, "192.168.254.12")
	p.Name += "-waiting"
	p.Status.Phase = corev1.PodPending
	p.Status.ContainerStatuses[0] = corev1.ContainerStatus{Name: "node", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such image"}}}
	return p
}

func TestDaemons(t *testing.T) {
	s := remotetest.New(t)
	other := remotetest.Daemon("node-1", "192.168.254.11")
	other.Name, other.Labels = "middleway-check", nil
	ending := remotetest.Daemon("node-1", "192.168.254.11")
	ending.Name, ending.DeletionTimestamp = "middleway-old", &metav1.Time{Time: time.Now()}
	s.Add(waiting("node-2"), other, ending, remotetest.Daemon("node-1", "192.168.254.11"), waiting("node-1"))
	c := open(t, s)
	all, err := c.Daemons(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range all {
		got = append(got, fmt.Sprint(d.Node, " ", d.Pod, " ", d.Addresses, " ", d.Ready))
	}
	if diff := cmp.Diff([]string{"node-1 middleway-node-1 [192.168.254.11] true", "node-2 middleway-node-2-waiting [192.168.254.12] false"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if d, err := c.Daemon(t.Context(), "node-1"); err != nil || d.Pod != "middleway-node-1" {
		t.Errorf("node-1: got %+v, %v", d, err)
	}
	for node, want := range map[string]string{
		"node-2": "node node-2: pod middleway-node-2-waiting is not running (container node waits: ErrImagePull, no such image)",
		"node-3": "node node-3: there is no pod of middleway in namespace middleway on it",
	} {
		if _, err := c.Daemon(t.Context(), node); !errors.Is(err, remote.ErrNoDaemon) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", node, err, want)
		}
	}
	if c.Namespace() != "shop" {
		t.Errorf("namespace: got %s, want that of the context", c.Namespace())
	}
}

func TestRun(t *testing.T) {
	for _, spdy := range []bool{false, true} {
		t.Run(fmt.Sprint("spdy ", spdy), func(t *testing.T) {
			s := remotetest.New(t)
			s.NoWebSocket = spdy
			s.Run = func(pod string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
				fmt.Fprintln(stdout, pod, args)
				fmt.Fprintln(stderr, "a word")
				if args[len(args)-1] == "fail" {
					return 3
				}
				_, _ = io.Copy(stdout, stdin)
				return 0
			}
			s.Add(remotetest.Daemon("node-1", "192.168.254.11"))
			c := open(t, s)
			var out, errs bytes.Buffer
			in := remote.Container{Namespace: "shop", Pod: "web-0", Name: "web"}
			if err := c.Exec(t.Context(), in, []string{"cat", "a b"}, remote.Streams{Stdin: strings.NewReader("text"), Stdout: &out, Stderr: &errs}); err != nil {
				t.Fatal(err)
			}
			if out.String() != "web-0 [cat a b]\ntext" || errs.String() != "a word\n" {
				t.Errorf("got %q and %q", &out, &errs)
			}
			d, err := c.Daemon(t.Context(), "node-1")
			if err != nil {
				t.Fatal(err)
			}
			var exit *remote.ExitError
			if err := c.Run(t.Context(), d, []string{"fail"}, remote.Streams{}); !errors.As(err, &exit) || exit.Code != 3 || exit.Error() != "a word" {
				t.Errorf("got %v, want exit code 3", err)
			}
			// Without a client it ends: its standard input does, which the server waits for when the test ends.
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := c.Run(ctx, d, []string{"wait"}, remote.Streams{}); !errors.Is(err, context.Canceled) {
				t.Errorf("canceled: got %v", err)
			}
		})
	}
}

// relayed serves `middleway relay` in front of a server that says what it hears.
func relayed(t *testing.T) remotetest.Command {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "node.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			socket, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer socket.Close()
				_, _ = io.Copy(socket, socket)
			}()
		}
	}()
	return func(_ string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
		socket, err := net.Dial("unix", l.Addr().String())
		if err == nil {
			err = remote.Relay(socket, stdin, stdout)
		}
		if err != nil {
			fmt.Fprintln(stderr, "middleway:", err)
			return 1
		}
		return 0
	}
}

func TestDial(t *testing.T) {
	for _, spdy := range []bool{false, true} {
		t.Run(fmt.Sprint("spdy ", spdy), func(t *testing.T) {
			s := remotetest.New(t)
			s.NoWebSocket = spdy
			ended := make(chan int, 1)
			relay := relayed(t)
			s.Run = func(pod string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
				code := relay(pod, args, stdin, stdout, stderr)
				ended <- code
				return code
			}
			s.Add(remotetest.Daemon("node-1", "192.168.254.11"))
			c := open(t, s)
			d, err := c.Daemon(t.Context(), "node-1")
			if err != nil {
				t.Fatal(err)
			}
			conn, err := c.Dial(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			go func() { _, _ = conn.Write(sent) }()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("what comes back is not what was sent: %v", err)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			<-ended // with its client
			if n, err := conn.Read(got); err == nil {
				t.Errorf("after Close: got %d bytes", n)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := free.Addr().String()
	free.Close()
	for _, tt := range []struct {
		name  string
		alter func(*remotetest.Server)
		run   string
		code  int
		want  string
	}{
		{name: "forbidden pods", alter: func(s *remotetest.Server) { s.Forbidden = []string{"pods"} }, want: "this needs the RBAC verb list on pods in namespace middleway"},
		{name: "forbidden exec", alter: func(s *remotetest.Server) { s.Forbidden = []string{"pods/exec"} }, want: "this needs the RBAC verbs get and create on pods/exec in namespace middleway"},
		{name: "no daemon there", run: "middleway: no middleway node answers on /run/middleway/node.sock\n", code: 1, want: "pod middleway-node-1 on node node-1: no middleway node answers on /run/middleway/node.sock"},
		{name: "old", run: "middleway: unknown command \"relay\"; `middleway --help` lists the commands\n", code: 1, want: "bring it to the version of this program"},
		{name: "no such program", run: "exec: \"middleway\": executable file not found in $PATH\n", code: 127, want: "executable file not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := remotetest.New(t)
			s.Add(remotetest.Daemon("node-1", "192.168.254.11"))
			s.Run = func(_ string, _ []string, _ io.Reader, _, stderr io.Writer) int {
				_, _ = io.WriteString(stderr, tt.run)
				return tt.code
			}
			if tt.alter != nil {
				tt.alter(s)
			}
			c := open(t, s)
			d, err := c.Daemon(t.Context(), "node-1")
			if err == nil {
				_, err = c.Dial(t.Context(), d)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
	t.Run("nobody answers", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "kubeconfig")
		write(t, file, fmt.Sprintf("{current-context: a, clusters: [{name: a, cluster: {server: 'http://%s'}}], contexts: [{name: a, context: {cluster: a}}, {name: b, context: {cluster: a}}]}", nobody))
		c, err := remote.New(remote.Config{Kubeconfig: file})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Daemons(t.Context()); err == nil || !strings.Contains(err.Error(), "the API server http://"+nobody+" cannot be asked") || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
		_, err = remote.New(remote.Config{Kubeconfig: file, Context: "c"})
		if err == nil || !strings.Contains(err.Error(), "there is no context c in kubeconfig "+file+"; it has a, b") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("slow", func(t *testing.T) {
		s := remotetest.New(t)
		s.Add(remotetest.Daemon("node-1", "192.168.254.11"))
		s.Run = func(_ string, _ []string, stdin io.Reader, _, _ io.Writer) int {
			_, _ = io.Copy(io.Discard, stdin)
			return 0
		}
		c, err := remote.New(remote.Config{Kubeconfig: s.Kubeconfig(t), Timeout: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.Dial(t.Context(), remote.Daemon{Node: "node-1", Pod: "middleway-node-1"}); err == nil || !strings.Contains(err.Error(), "has not begun to answer within 50ms") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no kubeconfig", func(t *testing.T) {
		t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
		t.Setenv("KUBERNETES_SERVICE_HOST", "")
		if _, err := remote.New(remote.Config{}); err == nil || !strings.Contains(err.Error(), "give --kubeconfig FILE, or set KUBECONFIG") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no API server", func(t *testing.T) {
		web := httptest.NewServer(nil) // which answers 404 to all
		defer web.Close()
		file := filepath.Join(t.TempDir(), "kubeconfig")
		write(t, file, fmt.Sprintf("{current-context: a, clusters: [{name: a, cluster: {server: %q}}], contexts: [{name: a, context: {cluster: a}}]}", web.URL))
		c, err := remote.New(remote.Config{Kubeconfig: file})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Daemons(t.Context()); err == nil {
			t.Error("got no error")
		}
	})
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
