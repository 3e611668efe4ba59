package cni

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each version of the specification: ADD, CHECK, DEL, GC, STATUS, as far as the version has them, and results in its form.
func TestVersions(t *testing.T) {
	n := newNode(t, nil)
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			r := newRuntime(t, n, version, nil)
			a, b := r.sandbox("a"), r.sandbox("b")
			r.mustAdd(a)
			checkResult(t, r.exec.output(), version, a)
			r.mustAdd(b)
			mustPing(t, a.Namespace, b.addrs[0])
			mustPing(t, b.Namespace, a.addrs[1])
			if version != "0.3.1" {
				if err := r.check(a); err != nil {
					t.Errorf("CHECK: %v", err)
				}
			} else {
				wantCode(t, rawCommand(t, r, "CHECK", a.conf, version), 1)
			}
			if version == "1.1.0" {
				if err := r.status(); err != nil {
					t.Errorf("STATUS: %v", err)
				}
				if err := r.gc(a); err != nil {
					t.Errorf("GC: %v", err)
				}
				if got := devices(t, b.Namespace); len(got) > 0 {
					t.Errorf("after GC: %v in the pod that is not valid", got)
				}
				mustPing(t, a.Namespace, netip.MustParseAddr("10.244.1.1"))
			}
			r.mustDel(a)
			r.mustDel(b)
			r.mustDel(b)
			if got := devices(t, a.Namespace); len(got) > 0 {
				t.Errorf("after DEL: %v", got)
			}
			if got := left(t, n); len(got) > 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// checkResult compares a result as it was printed, since libcni would convert it.
func checkResult(t *testing.T, out []byte, version string, s *sandbox) {
	t.Helper()
	var got any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	type m = map[string]any
	type l = []any
	dev := m{"name": "eth0", "sandbox": s.Path()}
	direct4, direct6 := m{"dst": "10.244.1.1/32"}, m{"dst": "fd00:10:244:1::1/128"}
	ip4 := m{"address": s.addrs[0].String() + "/32", "gateway": "10.244.1.1", "interface": 0.}
	ip6 := m{"address": s.addrs[1].String() + "/128", "gateway": "fd00:10:244:1::1", "interface": 0.}
	want := m{
		"cniVersion": version, "interfaces": l{dev}, "ips": l{ip4, ip6},
		"routes": l{
			direct4, m{"dst": "0.0.0.0/0", "gw": "10.244.1.1"}, direct6, m{"dst": "::/0", "gw": "fd00:10:244:1::1"},
		},
	}
	switch version {
	case "0.3.1", "0.4.0":
		ip4["version"], ip6["version"] = "4", "6"
		want["dns"] = m{}
	case "1.1.0":
		dev["mtu"] = 1450.
		direct4["scope"], direct6["scope"] = 253., 253.
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

// VERSION answers with the version of the question, and without CNI_COMMAND the plugin says what it is.
func TestVersionCommand(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	for _, version := range []string{"0.3.1", "1.0.0", "1.1.0"} {
		out, err := execute(t, r, []string{"CNI_COMMAND=VERSION"}, `{"cniVersion":"`+version+`"}`)
		want := `{"cniVersion":"` + version + `","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}`
		if got := strings.Join(strings.Fields(out), ""); err != nil || got != want {
			t.Errorf("%v, %s; want %s", err, got, want)
		}
	}
	out, err := execute(t, r, nil, "")
	if err != nil || out != "" {
		t.Errorf("without a command: %v, %q on standard output", err, out)
	}
	info, err := r.cni.GetVersionInfo(t.Context(), "middleway-cni")
	if err != nil || len(info.SupportedVersions()) != 4 {
		t.Errorf("%v, %v", info, err)
	}
}

// The plugin as the first of a chain and as a later one.
func TestChain(t *testing.T) {
	n := newNode(t, nil)
	for _, first := range []bool{true, false} {
		for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
			name := map[bool]string{true: "first, ", false: "later, "}[first] + version
			t.Run(name, func(t *testing.T) {
				r := newRuntime(t, n, version, func(conf map[string]any) {
					ours := conf["plugins"].([]any)
					other := []any{map[string]any{"type": chainedName}}
					if first {
						conf["plugins"] = append(ours, other...)
					} else {
						conf["plugins"] = append(other, ours...)
					}
				})
				s := r.sandbox("chain")
				res := r.mustAdd(s)
				mine := 1
				if first {
					mine = 0
				}
				if len(res.Interfaces) != 2 || res.Interfaces[mine].Name != "eth0" || res.Interfaces[1-mine].Name != "other0" {
					t.Errorf("interfaces %v", res.Interfaces)
				}
				if len(res.IPs) != 3 || *res.IPs[0].Interface != 0 || *res.IPs[2].Interface != 1 || *res.IPs[1].Interface != mine || len(res.Routes) != 4 {
					t.Errorf("addresses %v, routes %v", res.IPs, res.Routes)
				}
				if diff := cmp.Diff([]string{"203.0.113.53"}, res.DNS.Nameservers); diff != "" {
					t.Error(diff)
				}
				if version != "0.3.1" {
					if err := r.check(s); err != nil {
						t.Errorf("CHECK: %v", err)
					}
				}
				r.mustDel(s)
				if got := left(t, n); len(got) > 0 {
					t.Errorf("left: %v", got)
				}
			})
		}
	}
}
