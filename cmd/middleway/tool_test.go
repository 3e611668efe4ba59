package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/middleway-net/middleway/lab/tool"
)

func TestDigArguments(t *testing.T) {
	for _, tt := range []struct {
		args    string
		reverse bool
		want    string // name, type, server, TCP; or the error
	}{
		{"web", false, "web TypeA  false"},
		{"@10.96.0.10 web aaaa +tcp", false, "web TypeAAAA 10.96.0.10 true"},
		{"web TYPE99", false, "web 99  false"},
		{"mx mx", false, "mx TypeMX  false"},
		{"10.96.0.1", true, "1.0.96.10.in-addr.arpa. TypePTR  false"},
		{"", false, "want a name"},
		{"web nonsense", false, `"nonsense" is no type of record, and one name is asked for at a time`},
		{"web A AAAA", false, `"AAAA" is no type of record, and one name is asked for at a time`},
		{"web +short", false, `"+short" is not known here, only +tcp`},
		{"a..b", false, `name "a..b": a dot without anything before it`},
		{".web", false, `name ".web": a dot without anything before it`},
		{strings.Repeat("w", 64) + ".test", false, `name "` + strings.Repeat("w", 64) + `.test": 64 characters between dots, of which DNS takes 63`},
		{strings.Repeat("web.", 64), false, "a name of 255 characters, of which DNS takes 253"},
		{"..", false, `name "..": a dot without anything before it`},
		{".", false, ". TypeA  false"},
		{"web", true, `-x wants an address, not "web"`},
	} {
		f := digFlags{reverse: tt.reverse}
		got := fmt.Sprint(f.parse(strings.Fields(tt.args)))
		if got == "<nil>" {
			got = fmt.Sprint(f.name, " ", strings.TrimPrefix(f.kind.GoString(), "dnsmessage."), " ", f.server, " ", f.TCP)
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.args, got, tt.want)
		}
	}
}

func TestDigServer(t *testing.T) {
	for s, want := range map[string]string{
		"10.96.0.10": "10.96.0.10:53", "10.96.0.10:5353": "10.96.0.10:5353", "fd00:10:96::a": "[fd00:10:96::a]:53",
		"[fd00:10:96::a]": "[fd00:10:96::a]:53", "[fd00:10:96::a]:5353": "[fd00:10:96::a]:5353",
	} {
		if got, err := serverAddr(toolDigCommand(), s); err != nil || got != netip.MustParseAddrPort(want) {
			t.Errorf("%s: got %v, %v, want %s", s, got, err, want)
		}
	}
	for _, s := range []string{"dns.test:x", ":53", ""} {
		if _, err := serverAddr(toolDigCommand(), s); err == nil || !strings.Contains(err.Error(), "want a server like") {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

// runTool runs a tool in this process and returns what it prints and its exit code.
func runTool(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs(append([]string{"tool"}, args...))
	cmd.SetOut(&out)
	err := cmd.ExecuteContext(t.Context())
	if err == nil {
		return out.String(), 0
	}
	exit := &exitError{1, err}
	errors.As(err, &exit)
	if exit.err != nil {
		out.WriteString(exit.err.Error())
	}
	return out.String(), exit.code
}

// dnsOnce answers one query with one record.
func dnsOnce(t *testing.T, rcode dnsmessage.RCode) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1500)
		n, from, err := c.ReadFrom(b)
		var m dnsmessage.Message
		if err != nil || m.Unpack(b[:n]) != nil {
			return
		}
		m.Response, m.RCode = true, rcode
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 30},
			Body:   &dnsmessage.AResource{A: [4]byte{10, 96, 0, 1}},
		}}
		answer, _ := m.Pack()
		_, _ = c.WriteTo(answer, from)
	}()
	return "@" + c.LocalAddr().String()
}

func TestToolDig(t *testing.T) {
	if out, code := runTool(t, "dig", "web.test", dnsOnce(t, 0), "-W", "20"); code != 0 || !strings.Contains(out, "\nweb.test.\t30\tIN\tA\t10.96.0.1\n") {
		t.Errorf("got %d %q", code, out)
	}
	if out, code := runTool(t, "dig", "--short", "web.test", dnsOnce(t, 0), "-W", "20"); code != 0 || out != "10.96.0.1\n" {
		t.Errorf("short: got %d %q", code, out)
	}
	out, code := runTool(t, "dig", "-o", "json", "web.test", dnsOnce(t, dnsmessage.RCodeNameError), "-W", "20")
	var a tool.DNSAnswer
	if err := json.Unmarshal([]byte(out), &struct{ RCode *string }{&a.RCode}); err != nil || code != toolNo || a.RCode != "NXDOMAIN" {
		t.Errorf("json: got %d %q, %v", code, out, err)
	}
	if out, code := runTool(t, "dig", "a..b", dnsOnce(t, 0)); code != toolWrong || !strings.HasPrefix(out, `tool dig: name "a..b": a dot`) {
		t.Errorf("got %d %s", code, out)
	}
	if out, code := runTool(t, "dig"); code != toolWrong || !strings.Contains(out, "want a name") {
		t.Errorf("nothing: got %d %q", code, out)
	}
	if out, code := runTool(t, "dig", "--tries", "x", "web"); code != toolWrong || !strings.Contains(out, "want a whole number") {
		t.Errorf("a wrong flag: got %d %q", code, out)
	}
}

func TestToolGet(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := tool.Serve(l)
	defer server.Close()
	addr := l.Addr().String()
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string // a regular expression
	}{
		{"whom", []string{addr}, 0, `^asked from (127\.0\.0\.1:\d+), ` + addr + ` \(.*\) saw 127\.0\.0\.1:\d+, .*s\n$`},
		{"whom by URL", []string{"http://" + addr + "/"}, 0, `^asked from .* saw 127`},
		{"body", []string{"http://" + addr + "/hostname"}, 0, "^" + regexp.QuoteMeta(name) + "\n$"},
		{"data", []string{"-d", "hello", addr + "/echo"}, 0, "^hello$"},
		{"json", []string{"-o", "json", "http://" + addr + "/echo?msg=x"}, 0, `"body": "x",(.|\n)*"status": 200,`},
		{"repeat", []string{"--repeat", "5", "--concurrency", "2", addr}, 0, `^5 asked, 5 answered in .*\n     5  ` + regexp.QuoteMeta(name) + "\n$"},
		{"status", []string{addr + "/none"}, 1, `tool get: http://.*/none: 404 Not Found$`},
		{"local address", []string{"--local-addr", "127.0.0.9", addr}, 0, `^asked from 127\.0\.0\.9:\d+, .* saw 127\.0\.0\.9:`},
		{"refused", []string{"tcp://127.0.0.1:1"}, 1, "connection refused$"},
		{"no family", []string{"-6", addr}, 1, "no suitable address"},
		{"no argument", nil, 2, "want one URL or HOST:PORT"},
		{"a header", []string{"-H", "x", addr}, 2, "want a header like"},
		{"a scheme", []string{"ftp://" + addr}, 2, "want http, https, tcp or udp"},
		{"a number", []string{"--repeat", "0", addr}, 2, "want a number from 1 on"},
		{"a file", []string{"-d", "@/no/such/file", addr}, 2, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, code := runTool(t, append([]string{"get", "-W", "20"}, tt.args...)...)
			if code != tt.code || !regexp.MustCompile(tt.want).MatchString(out) {
				t.Errorf("got %d %q, want %d %q", code, out, tt.code, tt.want)
			}
		})
	}
}

func TestToolServe(t *testing.T) {
	for _, tt := range []struct{ listen, want string }{
		{"127.0.0.1:0", "serving on 127.0.0.1:"}, {"http://127.0.0.1:0", "serving on 127.0.0.1:"},
		{"tcp://127.0.0.1:0", "echoing tcp on 127.0.0.1:"}, {"udp://127.0.0.1:0", "echoing udp on 127.0.0.1:"},
	} {
		s, words, err := serveAt(tt.listen, tool.NewHandler(""), func(err error) { t.Error(err) })
		if err != nil || !strings.HasPrefix(words, tt.want) {
			t.Fatalf("%s: got %q, %v", tt.listen, words, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--listen", "127.0.0.1:0", "--listen", "sctp://:7"}, "want http, tcp or udp"},
		{[]string{"--listen", "nonsense"}, "missing port"},
		{[]string{"--dir", "/no/such"}, "want a directory"},
		{[]string{"extra"}, "takes no argument"},
	} {
		if out, code := runTool(t, append([]string{"serve"}, tt.args...)...); code != toolWrong || !strings.Contains(out, tt.want) {
			t.Errorf("%v: got %d %q, want %d %q", tt.args, code, out, toolWrong, tt.want)
		}
	}
}

func TestToolPing(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "want one host"},
		{[]string{"-c", "-1", "127.0.0.1"}, "want a number of requests"},
		{[]string{"-i", "x", "127.0.0.1"}, "want a time like"},
		{[]string{"-s", "70000", "127.0.0.1"}, "want 0 to 65507"},
	} {
		if out, code := runTool(t, append([]string{"ping"}, tt.args...)...); code != toolWrong || !strings.Contains(out, tt.want) {
			t.Errorf("%v: got %d %q, want %d %q", tt.args, code, out, toolWrong, tt.want)
		}
	}
}

func TestSecondsFlag(t *testing.T) {
	for s, want := range map[string]string{"0.25": "250ms", "3": "3s", "20ms": "20ms", "0": "", "-1s": "", "x": "", "": ""} {
		var f secondsFlag
		err := f.Set(s)
		if want == "" && err == nil || want != "" && (err != nil || f.String() != want) {
			t.Errorf("%q: got %v, %v, want %s", s, &f, err, want)
		}
	}
}
