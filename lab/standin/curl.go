package standin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Exit codes of curl(1).
const (
	curlUsage   = 2
	curlURL     = 3
	curlResolve = 6
	curlConnect = 7
	curlWrite   = 23
	curlHTTP    = 22
	curlTimeout = 28
	curlReceive = 56
)

// runCurl does as the image's entrypoint: arguments that begin with a program are a command, all others are curl's. Where this
// machine has curl, it is that one.
func runCurl(ctx context.Context, c *Config) error {
	argv := append([]string{"curl"}, c.Args...)
	if len(c.Args) > 0 && !strings.HasPrefix(c.Args[0], "-") {
		if _, err := exec.LookPath(c.Args[0]); err == nil {
			argv = c.Args
		}
	}
	if path, err := exec.LookPath(argv[0]); err == nil {
		return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, argv, os.Environ()))
	}
	return c.get(ctx, argv[1:])
}

// get is what curl does with its most common flags.
func (c *Config) get(ctx context.Context, args []string) error {
	f := flags("curl")
	silent, showError := f.BoolP("silent", "s", false, ""), f.BoolP("show-error", "S", false, "")
	fail, head, include := f.BoolP("fail", "f", false, ""), f.BoolP("head", "I", false, ""), f.BoolP("include", "i", false, "")
	location, insecure := f.BoolP("location", "L", false, ""), f.BoolP("insecure", "k", false, "")
	most, toConnect := f.Float64P("max-time", "m", 0, ""), f.Float64("connect-timeout", 0, "")
	output, format := f.StringP("output", "o", "-", ""), f.StringP("write-out", "w", "", "")
	header := f.StringArrayP("header", "H", nil, "")
	if err := f.Parse(args); err != nil {
		return &exit{curlUsage, fmt.Errorf("curl: %w; this machine has no curl, and its stand-in knows only the most common flags", err)}
	}
	if f.NArg() != 1 {
		return &exit{curlUsage, errors.New("curl: (2) no URL specified")}
	}
	address := f.Arg(0)
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	method := http.MethodGet
	if *head {
		method = http.MethodHead
	}
	if *most > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*most*float64(time.Second)))
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return &exit{curlURL, errors.New("curl: (3) URL rejected")}
	}
	req.Header.Set("User-Agent", "curl/8")
	for _, h := range *header {
		name, value, _ := strings.Cut(h, ":")
		req.Header.Set(strings.TrimSpace(name), strings.TrimSpace(value))
		if strings.EqualFold(name, "host") {
			req.Host = strings.TrimSpace(value)
		}
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext:     (&net.Dialer{Timeout: time.Duration(*toConnect * float64(time.Second))}).DialContext,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: *insecure}, // -k asks for it
	}}
	if !*location {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return quiet(*silent && !*showError, c.transfer(client, req, transfer{*output, *format, *fail, *head || *include}))
}

// quiet leaves the words of an error out.
func quiet(silent bool, err error) error {
	var e *exit
	if silent && errors.As(err, &e) {
		return &exit{e.code, nil}
	}
	return err
}

// transfer is what becomes of an answer.
type transfer struct {
	output, format string
	fail, headers  bool
}

func (c *Config) transfer(client *http.Client, req *http.Request, t transfer) error {
	resp, err := client.Do(req)
	if err != nil {
		return curlError(err)
	}
	defer resp.Body.Close()
	if t.fail && resp.StatusCode >= 400 {
		return &exit{curlHTTP, fmt.Errorf("curl: (22) The requested URL returned error: %d", resp.StatusCode)}
	}
	out := c.Out
	if t.output != "-" {
		file, err := os.Create(t.output)
		if err != nil {
			return &exit{curlWrite, fmt.Errorf("curl: (23) %w", err)}
		}
		defer file.Close()
		out = file
	}
	if t.headers {
		fmt.Fprintf(out, "%s %s\r\n", resp.Proto, resp.Status)
		_ = resp.Header.Write(out) // as the body below, whose error is told
		fmt.Fprint(out, "\r\n")
	}
	if _, err := io.Copy(out, resp.Body); err != nil {
		return &exit{curlReceive, fmt.Errorf("curl: (56) %w", err)}
	}
	fmt.Fprint(c.Out, strings.NewReplacer("%{http_code}", fmt.Sprint(resp.StatusCode), `\n`, "\n").Replace(t.format))
	return nil
}

func curlError(err error) error {
	var dns *net.DNSError
	var unknown *net.AddrError // of a name that no server may be asked for
	switch {
	case errors.As(err, &dns):
		return &exit{curlResolve, fmt.Errorf("curl: (6) Could not resolve host: %s", dns.Name)}
	case errors.As(err, &unknown):
		return &exit{curlResolve, fmt.Errorf("curl: (6) Could not resolve host: %s", unknown.Addr)}
	case isTimeout(err):
		return &exit{curlTimeout, errors.New("curl: (28) Operation timed out")}
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &exit{curlConnect, fmt.Errorf("curl: (7) Failed to connect: %w", op.Err)}
	}
	return &exit{curlReceive, fmt.Errorf("curl: (56) %w", err)}
}
