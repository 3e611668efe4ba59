package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/lab/tool"
)

const getHelp = `Asks a server and prints the answer: HTTP by http:// and https://, and by tcp:// and udp:// what comes back for the data of -d.

HOST:PORT alone, or an http:// URL without a path, asks a middleway tool serve whom it sees, which shows address translation on the
way; what else answers there is printed. With --repeat it counts who answered, which shows how a Service balances; each request has a connection of its own then.

Exit codes: 0 an answer came, 1 none came in time, or an HTTP status from 400 on (with --repeat: once), 2 it could not be asked.`

type getFlags struct {
	tool.FetchConfig
	family      familyFlags
	timeout     secondsFlag
	headers     []string
	data        string
	localAddr   string
	unixSocket  string
	verbose     bool
	repeat      int
	concurrency int
	output      outputFlag

	whom bool // no path
}

func toolGetCommand() *cobra.Command {
	f := getFlags{timeout: secondsFlag(5 * time.Second)}
	cmd := &cobra.Command{
		Use:   "get [flags] URL|HOST:PORT",
		Short: "Ask a server, by HTTP, TCP or UDP",
		Long:  getHelp,
		Example: `  middleway tool get 10.244.2.2:8080
  middleway tool get -v http://web.default.svc.cluster.local/hostname
  middleway tool get -X PUT 'http://10.244.2.2:8080/healthz?status=503'
  middleway tool get -H 'Host: shop.test' -d @order.json http://203.0.113.1/orders
  middleway tool get --repeat 100 --concurrency 4 http://10.96.3.4/hostname
  middleway tool get -d hello udp://[fd00:10:244:2::2]:7`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return wrong("tool get: want one URL or HOST:PORT, as in `%s 10.244.2.2:8080`", cmd.CommandPath())
			}
			if err := f.parse(cmd, args[0]); err != nil {
				return wrong("tool get: %w", err)
			}
			return f.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.Method, "method", "X", "", "method of HTTP; default GET, with -d POST")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "header of HTTP like 'Host: shop.test'; may be given several times")
	flags.StringVarP(&f.data, "data", "d", "", "what to send; @FILE a file's content, @- standard input's")
	flags.BoolVarP(&f.Follow, "location", "L", false, "go where HTTP redirects to")
	flags.BoolVarP(&f.Insecure, "insecure", "k", false, "take any certificate")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "show addresses, status, headers and timings too, on standard error")
	flags.VarP(&f.timeout, "timeout", "W", "how long each answer is waited for")
	flags.StringVar(&f.localAddr, "local-addr", "", "address, with a port or without, to ask from")
	flags.StringVar(&f.unixSocket, "unix-socket", "", "path of a unix socket to ask, whatever the URL's host")
	flags.IntVar(&f.repeat, "repeat", 1, "how many times to ask; counts are printed instead of answers")
	flags.IntVar(&f.concurrency, "concurrency", 1, "how many of them at once")
	flags.BoolVar(&f.KeepAlive, "keep-alive", false, "make several requests over a connection")
	f.family.register(cmd)
	f.output.register(cmd)
	return cmd
}

func (f *getFlags) parse(cmd *cobra.Command, target string) (err error) {
	if f.repeat < 1 || f.concurrency < 1 {
		return errors.New("--repeat and --concurrency want a number from 1 on")
	}
	if !strings.Contains(target, "://") {
		target = "http://" + target
	}
	if f.URL, err = url.Parse(target); err != nil {
		return err
	}
	f.whom = f.URL.Scheme == "http" && strings.Trim(f.URL.RequestURI(), "/") == ""
	f.Header = http.Header{}
	for _, h := range f.headers {
		name, value, found := strings.Cut(h, ":")
		if !found || strings.TrimSpace(name) == "" {
			return fmt.Errorf("-H %q: want a header like 'Host: shop.test'", h)
		}
		f.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	if f.Body, err = readData(cmd.InOrStdin(), f.data); err != nil {
		return err
	}
	f.whom = f.whom && f.Method == "" && f.Body == nil && !f.output.json() && !f.verbose
	if f.URL.Scheme == "tcp" || f.URL.Scheme == "udp" {
		if f.Body == nil {
			f.Body = []byte("middleway\n")
		}
	}
	f.Dial, err = f.dial()
	return err
}

// readData returns what -d stands for; nil for nothing.
func readData(stdin io.Reader, data string) ([]byte, error) {
	name, isFile := strings.CutPrefix(data, "@")
	switch {
	case data == "":
		return nil, nil
	case isFile && name == "-":
		return io.ReadAll(stdin)
	case isFile:
		return os.ReadFile(name)
	}
	return []byte(data), nil
}

func (f *getFlags) dial() (tool.Dial, error) {
	d := net.Dialer{}
	if f.unixSocket != "" {
		return func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", f.unixSocket)
		}, nil
	}
	if f.localAddr != "" {
		local, err := netip.ParseAddrPort(f.localAddr)
		if a, errAddr := netip.ParseAddr(f.localAddr); errAddr == nil {
			local, err = netip.AddrPortFrom(a, 0), nil
		}
		if err != nil {
			return nil, fmt.Errorf("--local-addr %q: want an address like 10.244.1.2 or 10.244.1.2:1234", f.localAddr)
		}
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
		if f.URL.Scheme == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(local)
		}
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return d.DialContext(ctx, network+f.family.suffix(), addr)
	}, nil
}

func (f *getFlags) run(cmd *cobra.Command) error {
	fetcher, err := tool.NewFetcher(f.FetchConfig)
	if err != nil {
		return wrong("tool get: %w", err)
	}
	defer fetcher.Close()
	if f.repeat > 1 {
		return f.runMany(cmd, fetcher)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Duration(f.timeout))
	defer cancel()
	w := cmd.OutOrStdout()
	head := tool.Head{Limit: maxHead, Rest: w}
	object := getJSON{w: w, url: f.URL.String(), body: tool.JSONText{W: w}}
	to := w
	switch {
	case f.output.json():
		to = &object
	case f.whom:
		to = &head
	}
	start := time.Now()
	fetch, err := fetcher.Fetch(ctx, to)
	if f.output.json() {
		err = errors.Join(err, object.end(fetch, err))
	}
	if err != nil {
		return &exitError{toolNo, fmt.Errorf("tool get: %v: %w", f.URL, f.inTime(err))}
	}
	switch {
	case f.whom && !head.Over():
		fmt.Fprint(w, whomSaw(f.URL.Host, fetch, head.Bytes(), time.Since(start)))
	case f.verbose && !f.output.json():
		printFetch(cmd.ErrOrStderr(), fetch)
	}
	if !fetch.OK() {
		return &exitError{toolNo, fmt.Errorf("tool get: %v: %d %s", f.URL, fetch.Status, http.StatusText(fetch.Status))}
	}
	return nil
}

// maxHead is how much of an answer is kept where something is looked for in it, in bytes.
const maxHead = 64 << 10

// getJSON prints an answer as an object, whose body it passes on as it comes.
type getJSON struct {
	w     io.Writer
	url   string
	body  tool.JSONText
	begun bool
}

func (g *getJSON) Write(p []byte) (int, error) {
	if err := g.begin(); err != nil {
		return 0, err
	}
	return g.body.Write(p)
}

func (g *getJSON) begin() error {
	if g.begun {
		return nil
	}
	g.begun = true
	_, err := fmt.Fprintf(g.w, "{\n  \"url\": %s,\n  \"body\": \"", toJSON(g.url))
	return err
}

// end prints the rest of the object, and why the body is not whole if it is not. Without an answer there is no object.
func (g *getJSON) end(fetch tool.Fetch, failed error) error {
	if failed != nil && !g.begun {
		return nil
	}
	if err := errors.Join(g.begin(), g.body.Close()); err != nil {
		return err
	}
	rest := struct {
		tool.Fetch
		Error string `json:"error,omitempty"`
	}{Fetch: fetch}
	if failed != nil {
		rest.Error = failed.Error()
	}
	_, err := fmt.Fprintf(g.w, "\",\n%s\n", strings.TrimPrefix(toJSON(rest), "{\n"))
	return err
}

// inTime says how long was waited where time was up.
func (f *getFlags) inTime(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %v", time.Duration(f.timeout))
	}
	return err
}

// whomSaw is one line where the server tells whom it saw, else its answer.
func whomSaw(server string, fetch tool.Fetch, body []byte, took time.Duration) string {
	var who tool.WhoAmI
	if json.Unmarshal(body, &who) != nil || !who.Client.IsValid() {
		return string(body)
	}
	return fmt.Sprintf("asked from %v, %s (%s) saw %v, %v\n", fetch.Client, server, who.Hostname, who.Client, took.Round(time.Microsecond))
}

func printFetch(w io.Writer, f tool.Fetch) {
	fmt.Fprintf(w, "* %v to %v\n", f.Client, f.Server)
	if f.Status > 0 {
		fmt.Fprintf(w, "< %s %d %s\n", f.Proto, f.Status, http.StatusText(f.Status))
		for name, values := range f.Header {
			for _, v := range values {
				fmt.Fprintf(w, "< %s: %s\n", name, v)
			}
		}
	}
	for _, t := range []struct {
		what string
		at   tool.Millis
	}{
		{"resolved", f.Timings.Resolved}, {"connected", f.Timings.Connected}, {"secured", f.Timings.Secured},
		{"first byte", f.Timings.FirstByte}, {fmt.Sprintf("all %d bytes", f.Bytes), f.Timings.Total},
	} {
		if t.at > 0 {
			fmt.Fprintf(w, "* %-14s %v\n", t.what, t.at)
		}
	}
}

func (f *getFlags) runMany(cmd *cobra.Command, fetcher *tool.Fetcher) error {
	r := tool.Repeat(cmd.Context(), f.repeat, f.concurrency, func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(f.timeout))
		defer cancel()
		head := tool.Head{Limit: maxHead, Rest: io.Discard}
		fetch, err := fetcher.Fetch(ctx, &head)
		if err != nil {
			return "", withoutPorts(f.inTime(err))
		}
		if !fetch.OK() {
			return "", fmt.Errorf("%d %s", fetch.Status, http.StatusText(fetch.Status))
		}
		return f.inShort(head.Bytes()), nil
	})
	if f.output.json() {
		fmt.Fprintln(cmd.OutOrStdout(), toJSON(r))
	} else {
		fmt.Fprintln(cmd.OutOrStdout(), r)
	}
	if r.Answered == 0 || len(r.Errors) > 0 {
		return &exitError{code: toolNo}
	}
	return nil
}

// inShort is what of an answer is counted: the server's name, or the first line.
func (f *getFlags) inShort(body []byte) string {
	var who tool.WhoAmI
	if f.whom && json.Unmarshal(body, &who) == nil && who.Hostname != "" {
		return who.Hostname
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	const most = 60 // as fits beside a number
	if runes := []rune(line); len(runes) > most {
		line = string(runes[:most]) + "…"
	}
	return line
}

// withoutPorts leaves away the client's own port, which differs each time.
func withoutPorts(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s %v: %w", op.Op, op.Addr, op.Err)
	}
	return err
}
