package playground

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	stdlog "log"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

// asks reports whether a probe of a pod's first container, made of a line of YAML, is answered well, and how it is not.
func (r running) asks(name, probe string) error {
	r.Helper()
	m := parse(r.T, spec("x", fmt.Sprintf("containers: [{name: main, command: [x], ports: [{name: http, containerPort: 8080}], readinessProbe: {%s}}]", probe)))
	own := r.Pod("default", name).containers[0]
	c := &container{pod: own.pod, spec: &m.Pods()[0].Spec.Containers[0], process: own.process}
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	defer cancel()
	return c.probe(ctx, c.process, c.spec.ReadinessProbe)
}

// serve answers HTTP requests in a pod's namespace at a port.
func (r running) serve(name, port string, certificate *tls.Certificate, handler http.HandlerFunc) {
	r.Helper()
	l, err := r.Pod("default", name).Namespace().Listen("tcp", ":"+port)
	if err != nil {
		r.Fatal(err)
	}
	if certificate != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*certificate}})
	}
	s := &http.Server{Handler: handler, ErrorLog: stdlog.New(io.Discard, "", 0)} // a TCP probe is no handshake
	go func() { _ = s.Serve(l) }()
	r.Cleanup(func() { s.Close() })
}

// What each kind of probe takes for a good answer, and what it says of another one.
func TestProbe(t *testing.T) {
	r := run(t, spec("web", sleeps), spec("host", "hostNetwork: true", sleeps))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	handler := func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/ok":
		case "/header":
			if req.Host != "web.example" || req.Header.Get("X-Probe") != "yes" || !strings.HasPrefix(req.UserAgent(), "kube-probe/") || req.URL.RawQuery != "a=b" {
				http.Error(w, "wrong", http.StatusBadRequest)
			}
		case "/near":
			http.Redirect(w, req, "/ok", http.StatusFound)
		case "/astray":
			http.Redirect(w, req, "/gone", http.StatusFound)
		case "/far":
			http.Redirect(w, req, "http://192.0.2.1/", http.StatusFound)
		case "/slow":
			<-req.Context().Done()
		default:
			http.NotFound(w, req)
		}
	}
	for _, name := range []string{"web", "host"} {
		r.serve(name, "8080", nil, handler)
		r.serve(name, "8443", &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, handler)
	}
	silent, err := r.Pod("default", "web").Namespace().Listen("tcp", ":9")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, tt := range []struct{ name, probe, want string }{
		{"HTTP", "httpGet: {port: 8080, path: /ok}", ""},
		{"path without a slash", "httpGet: {port: 8080, path: ok}", ""},
		{"named port", "httpGet: {port: http, path: /ok}", ""},
		{"headers", `httpGet: {port: 8080, path: "/header?a=b", httpHeaders: [{name: Host, value: web.example}, {name: X-Probe, value: "yes"}]}`, ""},
		{"HTTPS", "httpGet: {port: 8443, path: /ok, scheme: HTTPS}", ""},
		{"not found", "httpGet: {port: 8080, path: /gone}", "the HTTP status is 404"},
		{"redirect", "httpGet: {port: 8080, path: /near}", ""},
		{"redirect to what is not there", "httpGet: {port: 8080, path: /astray}", "the HTTP status is 404"},
		{"redirect to another host", "httpGet: {port: 8080, path: /far}", ""},
		{"no answer", "httpGet: {port: 8080, path: /slow}", "no answer within 1s"},
		{"nobody listens", "httpGet: {port: 81}", "connection refused"},
		{"a host by its name", "httpGet: {port: 8080, host: web.example}", `host "web.example": give an IP address`},
		{"TCP", "tcpSocket: {port: 8443}", ""},
		{"TCP, nobody listens", "tcpSocket: {port: 81}", "connection refused"},
		{"TCP, the node", "tcpSocket: {port: 8080, host: localhost}", ""},
		{"exec", "exec: {command: [sh, -c, 'test $HOSTNAME = $(uname -n)']}", ""},
		{"exec fails", "exec: {command: [sh, -c, 'echo why; exit 3']}", "sh: exit code 3: why"},
		{"exec leaves something running", "timeoutSeconds: 20, exec: {command: [sh, -c, 'sleep 1000 & exit 0']}", ""},
		{"exec hangs", "exec: {command: [sleep, '1000']}", "no answer within 1s"},
		{"exec of nothing", "exec: {command: [no-such-program]}", "there is no program no-such-program"},
		{"gRPC, no such server", "grpc: {port: 8080}", "HTTP/1.1"},
	} {
		for _, pod := range []string{"web", "host"} {
			t.Run(tt.name+", "+pod, func(t *testing.T) {
				err := r.asks(pod, tt.probe)
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("got %v, want %s", err, tt.want)
				}
			})
		}
	}
	t.Run("gRPC", func(t *testing.T) {
		l, err := r.Pod("default", "web").Namespace().Listen("tcp", ":50051")
		if err != nil {
			t.Fatal(err)
		}
		serveHealth(t, l, func(request string) (string, string) {
			if strings.HasSuffix(request, "db") {
				return "\x00\x00\x00\x00\x02\x08\x02", "0"
			}
			return "\x00\x00\x00\x00\x02\x08\x01", "0"
		})
		if err := r.asks("web", "grpc: {port: 50051}"); err != nil {
			t.Error(err)
		}
		if err := r.asks("web", "grpc: {port: 50051, service: db}"); err == nil || !strings.Contains(err.Error(), "NOT_SERVING") {
			t.Errorf("got %v", err)
		}
	})
}

// A container whose livenessProbe fails is ended, and starts again; restartPolicy Never leaves it ended.
func TestLiveness(t *testing.T) {
	failing := `containers: [{name: main, command: [sh, -c, 'trap : TERM; while :; do sleep 0.05; done'],
  livenessProbe: {exec: {command: [sh, -c, 'echo ill; exit 1']}, periodSeconds: 1, failureThreshold: 2, terminationGracePeriodSeconds: 1}}]`
	r := run(t, spec("again", failing), spec("never", "restartPolicy: Never", failing), spec("well", `containers: [{name: main, command: [sleep, "1000"],
  livenessProbe: {exec: {command: ["true"]}, periodSeconds: 1}}]`))
	s := r.eventually("it starts again", "again", func(s PodStatus) bool { return s.Restarts() > 0 })
	if last := s.Containers[0].LastState; last.ExitCode != 137 || last.Reason != "Error" || last.Message != "exit code 137: liveness probe failed: sh: exit code 1: ill" {
		t.Errorf("got %+v", last)
	}
	if took := s.Containers[0].LastState.Finished.Sub(s.Containers[0].LastState.Started); took < 2*time.Second {
		t.Errorf("it ended after %v, before two answers in a row and its grace period", took)
	}
	s = r.eventually("it has failed", "never", func(s PodStatus) bool { return s.Phase == "Failed" })
	if s.Status != "Error" || s.Restarts() != 0 || *s.Containers[0].ExitCode != 137 {
		t.Errorf("got %+v", s)
	}
	if !strings.Contains(r.log.String(), "default/again: container main is ended: liveness probe failed: sh: exit code 1: ill\n") {
		t.Errorf("got\n%s", r.log)
	}
	if s := r.pod("well"); s.Status != "Running" || s.Restarts() != 0 {
		t.Errorf("got %+v", s)
	}
}

// A startupProbe holds the others back, and ends what does not come up.
func TestStartup(t *testing.T) {
	r := run(t, spec("slow", "volumes: [{name: v, emptyDir: {}}]", `containers: [{name: main, command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /srv/middleway}],
  startupProbe: {exec: {command: [test, -e, /srv/middleway/up]}, periodSeconds: 1, failureThreshold: 60},
  livenessProbe: {exec: {command: [test, -e, /srv/middleway/up]}, periodSeconds: 1, failureThreshold: 1}}]`),
		spec("stuck", `containers: [{name: main, command: [sleep, "1000"], startupProbe: {tcpSocket: {port: 1}, periodSeconds: 1, failureThreshold: 1}}]`),
		spec("delayed", `containers: [{name: main, command: [sleep, "1000"], readinessProbe: {exec: {command: ["true"]}, initialDelaySeconds: 2, periodSeconds: 1}}]`))
	r.eventually("the startupProbe says why", "slow", func(s PodStatus) bool { return s.Reason() == "main: startup probe: test: exit code 1" })
	s := r.eventually("what does not come up starts again", "stuck", func(s PodStatus) bool { return s.Restarts() > 0 })
	if last := s.Containers[0].LastState; !strings.Contains(last.Message, "startup probe failed: connect to ") {
		t.Errorf("got %+v", last)
	}
	if s := r.pod("slow"); s.Containers[0].StartedUp || s.Containers[0].Ready || s.Restarts() != 0 || s.Phase != "Running" {
		t.Errorf("got %+v", s)
	}
	r.sh("slow", "touch /srv/middleway/up")
	r.eventually("it is ready", "slow", func(s PodStatus) bool { return s.Containers[0].Ready && s.Reason() == "" })
	r.sh("slow", "rm /srv/middleway/up")
	r.eventually("the livenessProbe is asked", "slow", func(s PodStatus) bool { return s.Restarts() > 0 })
	s = r.eventually("it is ready after its delay", "delayed", func(s PodStatus) bool { return s.Containers[0].Ready })
	if ran := time.Since(s.Containers[0].Started); ran < 2*time.Second {
		t.Errorf("it is ready after %v, before the probe's delay", ran)
	}
}

// Readiness changes what is ready, and nothing else.
func TestReadiness(t *testing.T) {
	r := run(t, spec("web", "volumes: [{name: v, emptyDir: {}}]", `containers: [{name: main, command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /srv/middleway}],
  readinessProbe: {exec: {command: [test, -e, /srv/middleway/ready]}, periodSeconds: 1, successThreshold: 2, failureThreshold: 1}}]`))
	s := r.eventually("it is not ready", "web", func(s PodStatus) bool { return s.Reason() == "main: readiness probe: test: exit code 1" })
	if ready, of := s.ReadyContainers(); ready != 0 || of != 1 || s.Status != "Running" || !s.Containers[0].StartedUp {
		t.Errorf("got %+v", s)
	}
	r.sh("web", "touch /srv/middleway/ready")
	r.eventually("it is ready", "web", func(s PodStatus) bool { return s.Containers[0].Ready && s.Reason() == "" })
	r.sh("web", "rm /srv/middleway/ready")
	r.eventually("it is not ready again", "web", func(s PodStatus) bool { return !s.Containers[0].Ready })
	if s := r.pod("web"); s.Restarts() != 0 || s.Status != "Running" {
		t.Errorf("got %+v", s)
	}
	for _, want := range []string{"default/web: container main is ready\n", "default/web: container main is not ready: test: exit code 1\n"} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("%q is not in\n%s", want, r.log)
		}
	}
}

// A postStart hook that fails ends its container; until it is done the container is not ready.
func TestPostStart(t *testing.T) {
	r := run(t, spec("web", "volumes: [{name: v, emptyDir: {}}]", `containers: [{name: main, command: [sleep, "1000"], volumeMounts: [{name: v, mountPath: /srv/middleway}],
  lifecycle: {postStart: {exec: {command: [sh, -c, 'until test -e /srv/middleway/go; do sleep 0.05; done']}}, preStop: {sleep: {seconds: 0}}}}]`),
		spec("fails", `containers: [{name: main, command: [sleep, "1000"], lifecycle: {postStart: {exec: {command: [sh, -c, 'exit 3']}}}}]`),
		spec("asks", `containers: [{name: main, command: [sleep, "1000"], lifecycle: {postStart: {httpGet: {port: 81}}}}]`))
	if s := r.pod("web"); s.Containers[0].Ready || s.Containers[0].State != ContainerRunning {
		t.Errorf("got %+v", s)
	}
	r.sh("web", "touch /srv/middleway/go")
	r.eventually("it is ready", "web", func(s PodStatus) bool { return s.Containers[0].Ready })
	for name, want := range map[string]string{"fails": "postStart hook: sh: exit code 3", "asks": "connection refused"} {
		s := r.eventually(name+" starts again", name, func(s PodStatus) bool { return s.Restarts() > 0 })
		if last := s.Containers[0].LastState; !strings.Contains(last.Message, want) {
			t.Errorf("got %+v, want %s", last, want)
		}
	}
}

// A container that ends by itself has not ended by what ran in it at that moment: its own words say why.
func TestEndsDuringHook(t *testing.T) {
	r := run(t, spec("hook", "restartPolicy: Never", `containers: [{name: main, command: [sh, -c, 'sleep 0.3; echo own words; exit 3'],
  lifecycle: {postStart: {exec: {command: [sleep, "1000"]}}}}]`),
		spec("probe", "restartPolicy: Never", `containers: [{name: main, command: [sh, -c, 'sleep 0.3; echo own words; exit 3'],
  livenessProbe: {exec: {command: [sleep, "1000"]}, failureThreshold: 1, timeoutSeconds: 60}}]`))
	for _, name := range []string{"hook", "probe"} {
		s := r.eventually(name+" has failed", name, func(s PodStatus) bool { return s.Phase == "Failed" })
		if got := s.Reason(); got != "main: exit code 3: own words" {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if log := r.log.String(); strings.Contains(log, "is ended") {
		t.Errorf("got\n%s", log)
	}
}
