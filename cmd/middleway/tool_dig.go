package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/middleway-net/middleway/lab/tool"
)

const digHelp = `Asks a DNS server for the records of a name: those of /etc/resolv.conf in turn, or SERVER, an address or name with or without a port.
TYPE is A, AAAA, ANY, CNAME, HTTPS, MX, NS, PTR, SOA, SRV, SVCB, TXT or like TYPE99; default A, with -x PTR. +tcp is as in dig(1).

NAME is taken as it is; with --search it is completed as programs do it, by search list and ndots of /etc/resolv.conf, until a
name has such a record.

Exit codes: 0 the server answered with NOERROR, 1 with another code, or no server answered, 2 it could not be asked.`

type digFlags struct {
	tool.DigConfig
	timeout                secondsFlag
	reverse, search, short bool
	output                 outputFlag

	name       string
	kind       dnsmessage.Type
	server     string
	resolvConf string // path
}

func toolDigCommand() *cobra.Command {
	f := digFlags{timeout: secondsFlag(2 * time.Second), resolvConf: "/etc/resolv.conf"}
	cmd := &cobra.Command{
		Use:   "dig [flags] NAME [TYPE] [@SERVER[:PORT]] [+tcp]",
		Short: "Ask a DNS server",
		Long:  digHelp,
		Example: `  middleway tool dig web.default.svc.cluster.local
  middleway tool dig --search web AAAA
  middleway tool dig _http._tcp.web.default.svc.cluster.local SRV @10.96.0.10
  middleway tool dig -x fd00:10:244:1::2 @[fd00:10:96::a]:53 +tcp
  middleway tool dig -o json example.test MX | jq '.answers[].data'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.parse(args); err != nil {
				return wrong("tool dig: %w; `%s --help` has examples", err, cmd.CommandPath())
			}
			return f.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.reverse, "reverse", "x", false, "NAME is an address: ask for its name")
	flags.BoolVar(&f.search, "search", false, "complete NAME as programs do, by /etc/resolv.conf")
	flags.BoolVar(&f.TCP, "tcp", false, "ask by TCP at once; else only where an answer does not fit into a datagram")
	flags.BoolVar(&f.PlainDNS, "no-edns", false, "without EDNS: answers by UDP of 512 bytes at most")
	flags.BoolVar(&f.short, "short", false, "print nothing but what the records say")
	flags.VarP(&f.timeout, "timeout", "W", "how long each try is waited for")
	flags.IntVar(&f.Tries, "tries", 2, "tries with each server")
	f.output.register(cmd)
	return cmd
}

// parse reads NAME, TYPE, @SERVER and +tcp in any order.
func (f *digFlags) parse(args []string) error {
	for _, a := range args {
		server, isServer := strings.CutPrefix(a, "@")
		kind, isKind := tool.ParseDNSType(a)
		switch {
		case isServer:
			f.server = server
		case a == "+tcp":
			f.TCP = true
		case strings.HasPrefix(a, "+"):
			return fmt.Errorf("%q is not known here, only +tcp", a)
		case f.name == "":
			f.name = a
		case isKind && f.kind == 0:
			f.kind = kind
		default:
			return fmt.Errorf("%q is no type of record, and one name is asked for at a time", a)
		}
	}
	if f.name == "" {
		return fmt.Errorf("want a name")
	}
	if f.kind == 0 && f.reverse {
		f.kind = dnsmessage.TypePTR
	}
	if f.kind == 0 {
		f.kind = dnsmessage.TypeA
	}
	if f.reverse {
		a, err := netip.ParseAddr(f.name)
		if err != nil {
			return fmt.Errorf("-x wants an address, not %q", f.name)
		}
		f.name = tool.ReverseName(a)
	}
	return tool.CheckDNSName(f.name)
}

func (f *digFlags) run(cmd *cobra.Command) error {
	f.Timeout = time.Duration(f.timeout)
	servers, names, err := f.plan(cmd)
	if err != nil {
		return wrong("tool dig: %w", err)
	}
	var a *tool.DNSAnswer
	for _, name := range names {
		if a, err = tool.Dig(cmd.Context(), name, f.kind, servers, f.DigConfig); err != nil {
			return &exitError{toolNo, fmt.Errorf("tool dig: %w", err)}
		}
		if len(a.Answers) > 0 {
			break
		}
	}
	f.print(cmd, a)
	if a.RCode != "NOERROR" {
		return &exitError{code: toolNo}
	}
	return nil
}

// plan says whom to ask for which names.
func (f *digFlags) plan(cmd *cobra.Command) (servers []netip.AddrPort, names []string, err error) {
	names = []string{f.name}
	var conf tool.ResolvConf
	if f.server == "" || f.search {
		text, err := os.ReadFile(f.resolvConf)
		if err != nil {
			return nil, nil, fmt.Errorf("%w; name a server as in @10.96.0.10, and do without --search", err)
		}
		conf = tool.ParseResolvConf(string(text))
	}
	if f.search {
		names = conf.Candidates(f.name)
	}
	if f.server != "" {
		server, err := serverAddr(cmd, f.server)
		return []netip.AddrPort{server}, names, err
	}
	if len(conf.Servers()) == 0 {
		return nil, nil, fmt.Errorf("%s names no server; name one as in @10.96.0.10", f.resolvConf)
	}
	return conf.Servers(), names, nil
}

// serverAddr reads ADDRESS, ADDRESS:PORT, NAME or NAME:PORT.
func serverAddr(cmd *cobra.Command, s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a, nil
	}
	host, port, found := strings.Cut(s, ":")
	if !found {
		port = "53"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || host == "" {
		return netip.AddrPort{}, fmt.Errorf("@%s: want a server like 10.96.0.10, 10.96.0.10:53 or dns.test:53", s)
	}
	a, err := (&familyFlags{}).resolve(cmd.Context(), host)
	return netip.AddrPortFrom(a, uint16(n)), err
}

func (f *digFlags) print(cmd *cobra.Command, a *tool.DNSAnswer) {
	w := cmd.OutOrStdout()
	switch {
	case f.output.json():
		fmt.Fprintln(w, toJSON(a))
	case f.short:
		for _, r := range a.Answers {
			fmt.Fprintln(w, r.Data)
		}
	default:
		fmt.Fprint(w, a)
	}
}
