package report

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/cluster"
	"github.com/middleway-net/middleway/cluster/clustertest"
)

// unpack returns an archive's files by name.
func unpack(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, folder+"/")] = string(text)
	}
}

// What is planted: each must not be in an archive, wherever it stood.
const (
	planted       = "xyzzy-plugh"
	plantedBearer = "s3cr3tbearervalue"
	plantedJWT    = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"
)

func TestNoSecrets(t *testing.T) {
	s := clustertest.New(t, 1)
	s.Put("/api/v1/namespaces/middleway/secrets/key", clustertest.Object{"data": clustertest.Object{"key": planted}})
	s.Put("/api/v1/namespaces/middleway/configmaps/middleway", clustertest.Object{"data": clustertest.Object{
		"node.yaml": "name: node-1\nkubernetes: {server: \"https://me:" + planted + "@192.168.254.11:6443\"}\npassword: " + planted + "\n", "kubeconfig": planted,
	}})
	s.Put("/api/v1/nodes/node-1", clustertest.Object{
		"metadata": clustertest.Object{"name": "node-1", "annotations": clustertest.Object{
			"kubectl.kubernetes.io/last-applied-configuration": planted, "middleway.net/tunnel": "1", "cloud.example/join": planted,
		}, "labels": clustertest.Object{"kubernetes.io/os": "linux", "owner": planted}},
	})
	s.Put("/apis/apps/v1/namespaces/middleway/daemonsets/middleway", clustertest.Object{
		"metadata": clustertest.Object{"name": "middleway", "labels": clustertest.Object{"app": "middleway"}, "annotations": clustertest.Object{"note": planted}},
		"spec": clustertest.Object{"template": clustertest.Object{"spec": clustertest.Object{"containers": []any{clustertest.Object{
			"name": "node", "image": "middleway:test", "env": []any{clustertest.Object{"name": "PROXY_LOGIN", "value": planted}},
			"args": []any{"node", "--token=" + planted},
		}}}}},
	})
	s.Put("/api/v1/namespaces/middleway/events/1", clustertest.Object{
		"metadata": clustertest.Object{"namespace": "middleway"}, "message": "Authorization: Bearer " + plantedBearer, "reason": "Refused",
	})
	log := "/api/v1/namespaces/middleway/pods/middleway-1/log?node,"
	s.Texts[log+"false"] = "time=now msg=\"asked with " + plantedJWT + "\"\n"
	s.Texts[log+"true"] = "panic: secret=" + planted + "\n-----BEGIN RSA PRIVATE KEY-----\n" + planted + "\n-----END RSA PRIVATE KEY-----\n"
	s.Run = func(_ context.Context, _ cluster.Container, _ []string, _ io.Reader, out, _ io.Writer) error {
		a := New(out, nil, nil)
		a.Add("status.json", []byte(`{"notes": ["api_key: `+planted+`"]}`), nil)
		a.Add("cni.txt", nil, errors.New("no such directory"))
		return a.Close()
	}
	var archive bytes.Buffer
	a := New(&archive, nil, nil)
	a.AddCluster(t.Context(), s.API(t))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, archive.Bytes())
	for name, text := range files {
		for _, secret := range []string{planted, plantedBearer, plantedJWT} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q:\n%s", name, secret, text)
			}
		}
	}
	for name, want := range map[string]string{
		"cluster/nodes.json":                 `"middleway.net/tunnel": "1"`,
		"cluster/daemonset.json":             `"PROXY_LOGIN"`,
		"cluster/configmap/node.yaml":        "name: node-1",
		"cluster/events.json":                "Refused",
		"nodes/node-1/log-node.txt":          "asked with",
		"nodes/node-1/log-node-previous.txt": "panic:",
		"nodes/node-1/status.json":           "notes",
		"index.txt":                          "missing  nodes/node-1/cni.txt: no such directory",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s: %q is missing in %q", name, want, files[name])
		}
	}
	for _, asked := range s.Asked() {
		if strings.Contains(asked, "secrets") {
			t.Errorf("asked for %s", asked)
		}
	}
}

// What is missing is a line of the index, and the rest is there.
func TestPartsMissing(t *testing.T) {
	s := clustertest.New(t, 2)
	s.Forbidden = []string{"events", "configmaps", "endpointslices"}
	s.Run = func(_ context.Context, c cluster.Container, _ []string, _ io.Reader, out, _ io.Writer) error {
		if c.Pod == "middleway-1" {
			return errors.New("container node is not running")
		}
		_, err := out.Write([]byte("no archive"))
		return err
	}
	var archive bytes.Buffer
	a := New(&archive, nil, nil)
	a.AddCluster(t.Context(), s.API(t))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, archive.Bytes())
	for _, want := range []string{
		"missing  cluster/events.json: ", "missing  cluster/configmap: ", "missing  cluster/services.json: ",
		"missing  nodes/node-1/status.json and what else the daemon tells: container node is not running", "missing  nodes/node-2/status.json and what else", "cluster/nodes.json\n",
	} {
		if !strings.Contains(files["index.txt"], want) {
			t.Errorf("%q is missing in\n%s", want, files["index.txt"])
		}
	}
	if a.Missing() < 5 || files["cluster/nodes.json"] == "" {
		t.Errorf("%d parts missing, files %q", a.Missing(), files)
	}
}

// What a daemon could not tell about itself, or not all of, is not there, or not whole, in the cluster's archive either.
func TestCopyKeepsWhatIsMissing(t *testing.T) {
	var inner, outer bytes.Buffer
	of := New(&inner, nil, nil)
	of.Add("status.json", []byte("{}"), nil)
	of.Add("flows.json", nil, errors.New("nobody answers: not now"))
	of.Add("metrics.txt", []byte("half"), errors.New("HTTP status 503"))
	if err := of.Close(); err != nil {
		t.Fatal(err)
	}
	a := New(&outer, nil, nil)
	if err := a.copyFrom("nodes/node-1", &inner); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{"nodes/node-1/flows.json", 0, "nobody answers: not now"}, {"nodes/node-1/metrics.txt", 4, "HTTP status 503"}, {"nodes/node-1/status.json", 2, ""},
	}
	if !slices.Equal(a.entries, want) {
		t.Errorf("got %+v\nwant %+v", a.entries, want)
	}
	if got := unpack(t, outer.Bytes())["nodes/node-1/metrics.txt"]; got != "half" {
		t.Errorf("metrics.txt: got %q", got)
	}
}

func TestLocalWithoutDaemon(t *testing.T) {
	dir := t.TempDir()
	conf := `{"cniVersion": "1.1.0", "name": "other", "plugins": [{"type": "bridge", "token": "` + planted + `"}, {"type": "portmap"}]}`
	if err := os.WriteFile(filepath.Join(dir, "10-other.conflist"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	a := New(&archive, nil, nil)
	a.AddLocal(t.Context(), "", Local{RunDir: filepath.Join(dir, "run"), CNI: []string{dir, filepath.Join(dir, "none")}})
	text, err := networkConfigurations([]string{dir, filepath.Join(dir, "none")})
	if want := "10-other.conflist: \"other\" of version 1.1.0, plugins bridge, portmap\n"; err != nil || !strings.HasSuffix(string(text), want) || strings.Contains(string(text), planted) {
		t.Errorf("got %q, %v, want …%q", text, err, want)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if index := unpack(t, archive.Bytes())["index.txt"]; !strings.Contains(index, "missing  status.json: ") {
		t.Errorf("index %q", index)
	}
}

func TestScrub(t *testing.T) {
	for in, want := range map[string]string{
		"Authorization: Bearer abcdefgh12345":        "Authorization: [removed]",
		"msg: Bearer abcdefgh12345":                  "msg: Bearer [removed]",
		"authorization:\n  mode: Webhook":            "authorization:\n  mode: Webhook",
		`{"token": "abc def", "name": "x"}`:          `{"token": "[removed]", "name": "x"}`,
		`msg="{\"password\":\"abc\",\"a\":1}"`:       `msg="{\"password\":\"[removed]\",\"a\":1}"`,
		"client-key-data: QUJD\nname: x":             "client-key-data: [removed]\nname: x",
		"?access_token=abc&x=1":                      "?access_token=[removed]&x=1",
		`"automountServiceAccountToken": false`:      `"automountServiceAccountToken": false`,
		"join abcdef.0123456789abcdef":               "join [removed]",
		"https://me:pass@host/":                      "https://[removed]@host/",
		"10.244.1.2:8080 → 10.96.0.1:80, 3 flows":    "10.244.1.2:8080 → 10.96.0.1:80, 3 flows",
		"https://abcdef123@host/":                    "https://[removed]@host/",
		"Authorization: Token abc123":                "Authorization: [removed]",
		`"authorization":"Digest abc"`:               `"authorization":"[removed]"`,
		"run --api-token abc --verbose":              "run --api-token [removed] --verbose",
		"args: [--token, abc, --verbose]":            "args: [--token, [removed], --verbose]",
		`["--password", "abc"]`:                      `["--password", "[removed]"]`,
		"- --token\n- abc\n- --verbose":              "- --token\n- [removed]\n- --verbose",
		"- --rotate-secret\n- --verbose":             "- --rotate-secret\n- --verbose",
		"a:\n  token: |\n    abc\n\n    def\n  b: 1": "a:\n  token: |\n    [removed]\n  b: 1",
		"- password: >-\n    abc\n- x":               "- password: >-\n    [removed]\n- x",
	} {
		if got := string(scrub([]byte(in))); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
		if again := string(scrub([]byte(want))); again != want {
			t.Errorf("%s: scrubbed again it is %s", want, again)
		}
	}
}

func TestAddresses(t *testing.T) {
	a := NewAddresses()
	same := func(s string) string { return string(a.Rewrite([]byte(s))) }
	for _, s := range []string{
		"127.0.0.1", "::1", "0.0.0.0:80", "18:07:06", "stack::New", "255.255.255.0", "00:00:00:00:00:00", "v1.37.2", "a: b: c",
	} {
		if got := same(s); got != s {
			t.Errorf("%s: became %s", s, got)
		}
	}
	one, other := same("10.244.1.2"), same("10.244.1.3")
	if one == "10.244.1.2" || one == other || one != same("10.244.1.2") {
		t.Errorf("got %s and %s", one, other)
	}
	for in, want := range map[string]string{
		"asked 10.244.1.2:8080, from 10.244.1.2.": "asked " + one + ":8080, from " + one + ".",
		"ip-10-244-1-2 x":                         "ip-" + strings.ReplaceAll(one, ".", "-") + " x",
		"[fd00:10:244::2]:80":                     "[" + same("fd00:10:244::2") + "]:80",
		"10.244.1.2/32":                           one + "/32",
	} {
		if got := same(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	if got := same("02:11:22:33:44:55"); got == "02:11:22:33:44:55" || len(got) != 17 || !strings.HasPrefix(got, "02:") {
		t.Errorf("MAC became %s", got)
	}
}

// Ranges hold what they held, of both families.
func TestRangesStay(t *testing.T) {
	a := NewAddresses()
	for _, tt := range []struct {
		cidr    string
		in, out []string
	}{
		{"10.244.1.0/24", []string{"10.244.1.0", "10.244.1.2", "10.244.1.255"}, []string{"10.244.2.2", "10.244.0.255", "192.168.254.11"}},
		{"fd00:10:244:1::/64", []string{"fd00:10:244:1::2", "fd00:10:244:1:ffff::1"}, []string{"fd00:10:244:2::2", "fd00:10:96::a"}},
	} {
		cidr := netip.MustParsePrefix(string(a.Rewrite([]byte(tt.cidr))))
		if cidr.Masked() != cidr {
			t.Errorf("%s became %v, which is no range", tt.cidr, cidr)
		}
		for _, addr := range slices.Concat(tt.in, tt.out) {
			image := netip.MustParseAddr(string(a.Rewrite([]byte(addr))))
			if got, want := cidr.Contains(image), slices.Contains(tt.in, addr); got != want {
				t.Errorf("%s in %s: %v in %v is %v, want %v", addr, tt.cidr, image, cidr, got, want)
			}
		}
	}
}

func TestAnonymised(t *testing.T) {
	var archive bytes.Buffer
	a := New(&archive, NewAddresses().Rewrite, nil)
	a.Add("nodes/ip-10-0-0-7/status.json", []byte(`{"address": "192.168.254.11"}`), nil)
	a.Add("other", nil, fmt.Errorf("dial 192.168.254.11:6443: refused"))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range unpack(t, archive.Bytes()) {
		if strings.Contains(name+text, "10-0-0-7") || strings.Contains(text, "192.168.254.11") {
			t.Errorf("%s: %s", name, text)
		}
	}
}
