// Package pki makes a test cluster's certificates and kubeconfigs: what kubeadm would make, for as long as a test cluster
// lives (https://kubernetes.io/docs/setup/best-practices/certificates/). They are made anew for every cluster, and nothing
// is written twice.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/middleway-net/middleway/test/kube/plan"
)

// lifetime is that of every certificate; a cluster is not kept longer.
const lifetime = 365 * 24 * time.Hour

// masters is the group that may do everything, by the ClusterRoleBinding cluster-admin.
const masters = "system:masters"

// Write makes everything a cluster of this plan needs in dir, which only its owner may read: NAME.crt and NAME.key of each
// certificate, sa.pub and sa.key of service accounts' tokens, and NAME.kubeconfig of each client.
func Write(dir string, p plan.Plan) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	w := &writer{dir: dir, server: p.Server()}
	cluster := w.authority("ca", "kubernetes")
	front := w.authority("front-proxy-ca", "front-proxy")
	w.tokens("sa")

	api := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for _, n := range p.Interface(1) {
		api = append(api, n.Addr())
	}
	api = append(api, p.APIService()...)
	w.leaf(cluster, certificate{name: "apiserver", subject: "kube-apiserver", addrs: api, names: []string{"localhost", p.Node(1),
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}})
	w.leaf(cluster, certificate{name: "kubelet-client", subject: "kube-apiserver-kubelet-client", group: masters})
	w.leaf(front, certificate{name: "front-proxy-client", subject: "front-proxy-client"})

	w.client(cluster, certificate{name: "admin", subject: "admin", group: masters})
	w.client(cluster, certificate{name: "controller-manager", subject: "system:kube-controller-manager"})
	w.client(cluster, certificate{name: "scheduler", subject: "system:kube-scheduler"})
	w.client(cluster, certificate{name: "proxy", subject: "system:kube-proxy"})
	for i := 1; i <= p.Nodes; i++ {
		name, addrs := p.Node(i), []netip.Addr(nil)
		for _, n := range p.Interface(i) {
			addrs = append(addrs, n.Addr())
		}
		w.client(cluster, certificate{name: name, subject: "system:node:" + name, group: "system:nodes"})
		w.leaf(cluster, certificate{name: name + "-server", subject: "system:node:" + name, group: "system:nodes", names: []string{name}, addrs: addrs})
	}
	return w.err
}

// certificate is what is asked of an authority. One with names or addresses is a server's, any other a client's.
type certificate struct {
	name           string // of its files
	subject, group string // the user and the group that it stands for (CN, O)
	names          []string
	addrs          []netip.Addr
}

// authority is a certificate that signs others.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pem  []byte
}

// writer makes files up to the first error.
type writer struct {
	dir    string
	server string
	err    error
}

func (w *writer) authority(name, subject string) *authority {
	key := w.key()
	if w.err != nil {
		return nil
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: subject},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert := w.sign(template, template, key.Public(), key)
	w.file(name+".crt", cert)
	w.privateKey(name+".key", key)
	if w.err != nil {
		return nil
	}
	block, _ := pem.Decode(cert)
	parsed, err := x509.ParseCertificate(block.Bytes)
	w.fail(err)
	return &authority{cert: parsed, key: key, pem: cert}
}

// leaf writes NAME.crt and NAME.key, and returns both.
func (w *writer) leaf(by *authority, c certificate) (cert, key []byte) {
	signer := w.key()
	if w.err != nil {
		return nil, nil
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: c.subject},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:    c.names,
	}
	if c.group != "" {
		template.Subject.Organization = []string{c.group}
	}
	for _, a := range c.addrs {
		template.IPAddresses = append(template.IPAddresses, net.IP(a.AsSlice()))
	}
	if len(c.names)+len(c.addrs) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	cert = w.sign(template, by.cert, signer.Public(), by.key)
	w.file(c.name+".crt", cert)
	return cert, w.privateKey(c.name+".key", signer)
}

// client writes a leaf, and NAME.kubeconfig with it.
func (w *writer) client(by *authority, c certificate) {
	cert, key := w.leaf(by, c)
	if w.err == nil {
		w.file(c.name+".kubeconfig", Kubeconfig(w.server, by.pem, Credentials{Certificate: cert, Key: key}))
	}
}

// tokens writes the keys by which service accounts' tokens are signed and checked.
func (w *writer) tokens(name string) {
	key := w.key()
	if w.err != nil {
		return
	}
	w.privateKey(name+".key", key)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	w.fail(err)
	w.file(name+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
}

func (w *writer) key() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.fail(err)
	return key
}

func (w *writer) sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) []byte {
	if w.err != nil {
		return nil
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	w.fail(err)
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour) // a machine's clock may be set back meanwhile
	template.NotAfter = template.NotBefore.Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	w.fail(err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (w *writer) privateKey(name string, key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	w.fail(err)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	w.file(name, text)
	return text
}

func (w *writer) file(name string, text []byte) {
	if w.err == nil {
		w.fail(os.WriteFile(filepath.Join(w.dir, name), text, 0o600))
	}
}

func (w *writer) fail(err error) {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("make certificates: %w", err)
	}
}

// Credentials is how a client says who it is: by a certificate, or by a token.
type Credentials struct {
	Certificate, Key []byte // PEM
	Token            string
}

// Kubeconfig is the text of a kubeconfig (client.authentication, kubectl's "config" API v1) for one server.
func Kubeconfig(server string, ca []byte, c Credentials) []byte {
	user := "token: " + c.Token
	if c.Token == "" {
		user = fmt.Sprintf("client-certificate-data: %s\n    client-key-data: %s", encode(c.Certificate), encode(c.Key))
	}
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: user
  user:
    %s
contexts:
- name: context
  context: {cluster: cluster, user: user}
current-context: context
`, server, encode(ca), user)
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
