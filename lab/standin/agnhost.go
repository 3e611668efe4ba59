package standin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

// agnhost are the subcommands of Kubernetes' test image that have a stand-in
// (https://github.com/kubernetes/kubernetes/tree/master/test/images/agnhost).
var agnhost = map[string]func(context.Context, *Config, []string) error{
	"pause":          func(ctx context.Context, c *Config, _ []string) error { return pause(ctx, c) },
	"netexec":        netexec,
	"serve-hostname": serveHostname,
	"connect":        connect,
}

func runAgnhost(ctx context.Context, c *Config) error {
	if len(c.Args) == 0 {
		return pause(ctx, c)
	}
	run := agnhost[c.Args[0]]
	if run == nil {
		return &exit{1, fmt.Errorf("agnhost %s has no stand-in here; say what to run by the container's command", c.Args[0])}
	}
	return run(ctx, c, c.Args[1:])
}

// flags returns an empty set of flags of a subcommand.
func flags(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	return f
}

// misused is the error of a command line that is not understood.
func misused(name string, err error) error { return &exit{2, fmt.Errorf("%s: %w", name, err)} }

// netexec answers HTTP and UDP with what a test wants to know: whom the server sees, who it is, and what it finds elsewhere.
func netexec(ctx context.Context, c *Config, args []string) error {
	f := flags("netexec")
	httpPort := f.Int("http-port", 8080, "")
	udpPort := f.Int("udp-port", 8081, "")
	f.Int("sctp-port", -1, "")
	delay := f.Int("delay-shutdown", 0, "")
	if err := f.Parse(args); err != nil {
		return misused("agnhost netexec", err)
	}
	ended := make(chan int, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	serving, stop := context.WithCancel(context.Background())
	defer stop()
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Duration(*delay)*time.Second, stop) })
	mux := c.netexecMux(func(code int) {
		select {
		case ended <- code:
			cancel()
		default:
		}
	})
	servers := []func(context.Context) error{func(ctx context.Context) error { return c.serveHTTP(ctx, *httpPort, mux) }}
	if *udpPort > 0 {
		servers = append(servers, func(ctx context.Context) error { return c.serveUDP(ctx, *udpPort, c.netexecUDP) })
	}
	err := together(serving, servers...)
	select {
	case code := <-ended:
		if code != 0 {
			return &exit{code, fmt.Errorf("asked to exit with code %d", code)}
		}
	default:
	}
	return err
}

func (c *Config) netexecMux(end func(code int)) *http.ServeMux {
	mux := http.NewServeMux()
	say := func(path string, answer func(r *http.Request) string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(c.Out, "%s %s from %s\n", r.Method, r.RequestURI, r.RemoteAddr)
			_, _ = io.WriteString(w, answer(r)) // a client that has gone needs none
		})
	}
	say("/{$}", func(*http.Request) string { return "NOW: " + time.Now().String() })
	say("/clientip", func(r *http.Request) string { return r.RemoteAddr })
	say("/hostname", func(*http.Request) string { return c.Hostname })
	say("/hostName", func(*http.Request) string { return c.Hostname })
	say("/header", func(r *http.Request) string { return r.Header.Get(r.FormValue("key")) })
	say("/healthz", func(*http.Request) string { return "" })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		if code, err := strconv.Atoi(r.FormValue("code")); err == nil && code >= 200 && code <= 999 {
			w.WriteHeader(code)
		}
		_, _ = io.WriteString(w, r.FormValue("msg")) // a client that has gone needs none
	})
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.FormValue("code"))
		if err != nil || code < 300 || code > 399 {
			code = http.StatusFound
		}
		http.Redirect(w, r, r.FormValue("location"), code)
	})
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		end(code & 0xff)
	})
	mux.HandleFunc("/dial", dial)
	return mux
}

// netexecUDP answers a datagram.
func (c *Config) netexecUDP(datagram string, from net.Addr) string {
	word, rest, _ := strings.Cut(strings.TrimSpace(datagram), " ")
	switch strings.ToLower(word) {
	case "echo":
		return rest
	case "clientip":
		return from.String()
	case "hostname":
		return c.Hostname
	}
	return ""
}

// maxTries bounds what one request makes the server send.
const maxTries = 100

// dial asks another server, which knows the same words, and tells what it said.
func dial(w http.ResponseWriter, r *http.Request) {
	protocol, request := r.FormValue("protocol"), r.FormValue("request")
	addr := net.JoinHostPort(r.FormValue("host"), r.FormValue("port"))
	tries, err := strconv.Atoi(r.FormValue("tries"))
	if err != nil {
		tries = 1
	}
	if tries < 1 || tries > maxTries || protocol != "http" && protocol != "udp" {
		http.Error(w, fmt.Sprintf("want protocol http or udp, and 1 to %d tries", maxTries), http.StatusBadRequest)
		return
	}
	if request == "" {
		request = "hostname"
	}
	answer := map[string][]string{}
	for range tries {
		ask := askHTTP
		if protocol == "udp" {
			ask = askUDP
		}
		text, err := ask(r.Context(), addr, request)
		if err != nil {
			answer["errors"] = append(answer["errors"], err.Error())
			continue
		}
		answer["responses"] = append(answer["responses"], text)
	}
	_ = json.NewEncoder(w).Encode(answer) // a client that has gone needs none
}

// askWait bounds the wait for one answer.
const askWait = 5 * time.Second

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 64 << 10

func askHTTP(ctx context.Context, addr, request string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	path, query, _ := strings.Cut(request, "?")
	u := url.URL{Scheme: "http", Host: addr, Path: "/" + strings.TrimPrefix(path, "/"), RawQuery: query}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return string(b), err
}

func askUDP(ctx context.Context, addr, request string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // sockets have them
	if _, err := io.WriteString(conn, request); err != nil {
		return "", err
	}
	b := make([]byte, maxAnswer)
	n, err := conn.Read(b)
	return string(b[:n]), err
}

// serveHostname answers everybody with the pod's name.
func serveHostname(ctx context.Context, c *Config, args []string) error {
	f := flags("serve-hostname")
	port := f.Int("port", 9376, "")
	overHTTP, overTCP, overUDP := f.Bool("http", true, ""), f.Bool("tcp", false, ""), f.Bool("udp", false, "")
	if err := f.Parse(args); err != nil {
		return misused("agnhost serve-hostname", err)
	}
	var servers []func(context.Context) error
	switch {
	case *overTCP:
		servers = append(servers, func(ctx context.Context) error { return c.serveTCP(ctx, *port, c.Hostname) })
	case *overHTTP && !*overUDP:
		servers = append(servers, func(ctx context.Context) error {
			return c.serveHTTP(ctx, *port, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.Hostname) }))
		})
	}
	if *overUDP {
		servers = append(servers, func(ctx context.Context) error {
			return c.serveUDP(ctx, *port, func(string, net.Addr) string { return c.Hostname })
		})
	}
	return together(ctx, servers...)
}

// serveTCP says one thing to all who connect.
func (c *Config) serveTCP(ctx context.Context, port int, text string) error {
	l, err := c.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, for example
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(askWait))
		_, _ = io.WriteString(conn, text) // a client that has gone needs none
		conn.Close()
	}
}

// connect finds out whether a TCP connection can be made, and says in one word why not.
func connect(ctx context.Context, c *Config, args []string) error {
	f := flags("connect")
	timeout := f.Duration("timeout", 0, "")
	protocol := f.String("protocol", "tcp", "")
	err := f.Parse(args)
	switch {
	case err != nil:
	case f.NArg() != 1:
		err = errors.New("want one HOST:PORT")
	case *protocol != "tcp":
		err = fmt.Errorf("--protocol %s has no stand-in here; want tcp", *protocol)
	}
	if err != nil {
		return misused("agnhost connect", err)
	}
	conn, err := (&net.Dialer{Timeout: *timeout}).DialContext(ctx, "tcp", f.Arg(0))
	if err == nil {
		return conn.Close()
	}
	word := "OTHER: " + err.Error()
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		word = "DNS: " + err.Error()
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		word = "TIMEOUT"
	case errors.Is(err, syscall.ECONNREFUSED):
		word = "REFUSED"
	}
	return &exit{1, errors.New(word)}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
