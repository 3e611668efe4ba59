package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/middleway-net/middleway/lab/tool"
)

// resolvConf is where programs in a pod find who answers names.
const resolvConf = "/etc/resolv.conf"

// once asks one time.
func once(ctx context.Context, q Question, a *Answer) error {
	switch q.Kind {
	case HTTP:
		for range max(1, q.Times) {
			if err := whoAmI(ctx, q.To, a); err != nil {
				return err
			}
		}
		return nil
	case HTTPS:
		return status(ctx, q.To, a)
	case TCP:
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", q.To)
		if err != nil {
			return err
		}
		a.Own = addrPort(conn.LocalAddr())
		return conn.Close()
	case UDP:
		return echo(ctx, "udp", q.To, []byte(fmt.Sprintf("middleway check %d", q.ID)), a)
	case Bulk:
		return echo(ctx, "tcp", q.To, bytes.Repeat([]byte("middleway check "), bulkSize/16), a)
	case Path:
		return path(ctx, q.To, a)
	case DNS:
		return records(ctx, q, a)
	}
	return fmt.Errorf("this middleway does not know how to ask by %q: the image is older than the one who asks", q.Kind)
}

// bulkSize is what Bulk sends, in bytes: what sockets hold, so that both ends may write it before they read.
const bulkSize = 64 << 10

// fetch asks once and returns the answer's body.
func fetch(ctx context.Context, c tool.FetchConfig, a *Answer) ([]byte, tool.Fetch, error) {
	f, err := tool.NewFetcher(c)
	if err != nil {
		return nil, tool.Fetch{}, err
	}
	defer f.Close()
	var body bytes.Buffer
	result, err := f.Fetch(ctx, &body)
	a.Own = result.Client
	return body.Bytes(), result, err
}

func whoAmI(ctx context.Context, to string, a *Answer) error {
	body, result, err := fetch(ctx, tool.FetchConfig{URL: &url.URL{Scheme: "http", Host: to, Path: "/whoami"}}, a)
	if err != nil {
		return err
	}
	var who tool.WhoAmI
	if err := json.Unmarshal(body, &who); err != nil || !who.Client.IsValid() {
		return fmt.Errorf("somebody else answers there, with HTTP status %d", result.Status)
	}
	a.Seen, a.Reached = who.Client, who.Server
	if !slices.Contains(a.Hosts, who.Hostname) {
		a.Hosts = append(a.Hosts, who.Hostname)
	}
	return nil
}

func status(ctx context.Context, to string, a *Answer) error {
	u, err := url.Parse(to)
	if err != nil {
		return err
	}
	_, result, err := fetch(ctx, tool.FetchConfig{URL: u, Insecure: true}, a)
	a.Status = result.Status
	return err
}

// echo sends and compares what comes back.
func echo(ctx context.Context, network, to string, what []byte, a *Answer) error {
	body, _, err := fetch(ctx, tool.FetchConfig{URL: &url.URL{Scheme: network, Host: to}, Body: what}, a)
	if err != nil {
		return err
	}
	if !bytes.Equal(body, what) {
		return fmt.Errorf("%d bytes came back that are not the %d that were sent", len(body), len(what))
	}
	return nil
}

func records(ctx context.Context, q Question, a *Answer) error {
	text, err := os.ReadFile(resolvConf)
	if err != nil {
		return err
	}
	conf := tool.ParseResolvConf(string(text))
	names, err := candidates(conf, q)
	if err != nil {
		return err
	}
	kind, ok := tool.ParseDNSType(q.Type)
	if !ok {
		return fmt.Errorf("%q is no type of record", q.Type)
	}
	var last *tool.DNSAnswer
	a.Records = nil
	for _, name := range names {
		if last, err = tool.Dig(ctx, name, kind, conf.Servers(), tool.DigConfig{}); err != nil {
			return err
		}
		for _, r := range last.Answers {
			if r.Type == q.Type {
				a.Records = append(a.Records, r.Data)
			}
		}
		if n := len(a.Records); n >= max(1, q.Least) {
			slices.Sort(a.Records)
			return nil
		} else if n > 0 {
			return fmt.Errorf("%s %s: %d of %d records: %s", last.Name, q.Type, n, q.Least, strings.Join(a.Records, ", "))
		}
	}
	return fmt.Errorf("%s %s: %s, from %v", last.Name, q.Type, said(last), last.Server.Addr())
}

// said is an answer without records.
func said(a *tool.DNSAnswer) string {
	if a.RCode == "NOERROR" {
		return "no such record"
	}
	return a.RCode
}

// candidates are the names to ask for.
func candidates(conf tool.ResolvConf, q Question) ([]string, error) {
	if q.Type == "PTR" {
		addr, err := netip.ParseAddr(q.To)
		return []string{tool.ReverseName(addr)}, err
	}
	name := q.To
	if strings.Contains(name, "$DOMAIN") {
		domain := Domain(conf.Search)
		if domain == "" {
			return nil, fmt.Errorf("%s has no search domain like svc.cluster.local: %q", resolvConf, conf.Search)
		}
		name = strings.ReplaceAll(name, "$DOMAIN", domain)
	}
	return conf.Candidates(name), nil
}

// Domain finds the cluster's domain in a pod's search list: what stands behind "svc.".
func Domain(search []string) string {
	for _, s := range search {
		if domain, ok := strings.CutPrefix(s, "svc."); ok {
			return strings.TrimSuffix(domain, ".")
		}
	}
	return ""
}

// inWords says what went wrong, without ports that differ each time.
func inWords(err error) string {
	var name *net.DNSError
	var errno syscall.Errno
	switch {
	case errors.As(err, &name):
		switch {
		case name.IsNotFound:
			return "lookup " + name.Name + ": no such host"
		case name.IsTimeout:
			return "lookup " + name.Name + ": no answer from " + name.Server
		}
		words := name.Err[strings.LastIndex(name.Err, ": ")+1:]
		return "lookup " + name.Name + ": " + strings.TrimSpace(words) + ", from " + name.Server
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

func addrPort(a net.Addr) netip.AddrPort {
	p, _ := netip.ParseAddrPort(a.String()) // not valid for what is no IP socket
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
