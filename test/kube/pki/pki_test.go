package pki

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/middleway-net/middleway/test/kube/plan"
)

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	p := plan.Plan{Name: "kube", Nodes: 2, Family: plan.Dual}
	if err := Write(dir, p); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, authority string
		usage           x509.ExtKeyUsage
		user, group     string
		names           []string // that it must be good for
	}{
		{"apiserver", "ca", x509.ExtKeyUsageServerAuth, "kube-apiserver", "", []string{"kubernetes.default.svc", "192.168.254.11", "fd00:254::11", "10.96.0.1", "fd00:10:96::1", "127.0.0.1"}},
		{"kube-2-server", "ca", x509.ExtKeyUsageServerAuth, "system:node:kube-2", "system:nodes", []string{"kube-2", "192.168.254.12", "fd00:254::12"}},
		{"kube-2", "ca", x509.ExtKeyUsageClientAuth, "system:node:kube-2", "system:nodes", nil},
		{"admin", "ca", x509.ExtKeyUsageClientAuth, "admin", "system:masters", nil},
		{"proxy", "ca", x509.ExtKeyUsageClientAuth, "system:kube-proxy", "", nil},
		{"front-proxy-client", "front-proxy-ca", x509.ExtKeyUsageClientAuth, "front-proxy-client", "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert := load(t, dir, c.name)
			roots := x509.NewCertPool()
			roots.AddCert(load(t, dir, c.authority))
			if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{c.usage}}); err != nil {
				t.Error(err)
			}
			if cert.Subject.CommonName != c.user || c.group != "" && cert.Subject.Organization[0] != c.group {
				t.Errorf("it stands for %v, want %s of %s", cert.Subject, c.user, c.group)
			}
			for _, n := range c.names {
				if err := cert.VerifyHostname(n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	if err := load(t, dir, "kube-2-server").VerifyHostname("kube-1"); err == nil {
		t.Error("node 2's certificate is good for node 1 too")
	}
}

// load reads a certificate and its key, which must belong together and be its owner's alone.
func load(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	crt, key := filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	pair, err := tls.LoadX509KeyPair(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", key, st.Mode(), err)
	}
	return pair.Leaf
}
