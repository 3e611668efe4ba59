package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/middleway-net/middleway/lab"
)

// programsVar is the directory with etcd and kube-apiserver.
const programsVar = "MIDDLEWAY_APISERVER"

// adminToken is the one of a user who may everything.
const adminToken = "admin"

// apiServer is kube-apiserver with its etcd, in a namespace on the underlay.
type apiServer struct {
	*kubernetes.Clientset // as somebody who may everything

	t         testing.TB
	namespace *lab.Namespace
	addr      netip.AddrPort // where nodes reach it
	programs  string
	dir       string // state, keys, certificate
	process   *lab.Process
}

// newAPIServer makes a namespace for one that will have an address, and starts it there.
func newAPIServer(t testing.TB, addr netip.Addr) *apiServer {
	t.Helper()
	s := &apiServer{t: t, addr: netip.AddrPortFrom(addr, 6443), programs: os.Getenv(programsVar)}
	if s.programs == "" {
		t.Skipf("%s does not name a directory with etcd and kube-apiserver: run make test-apiserver", programsVar)
	}
	dir, err := lab.NewDirectory()
	must(t, err)
	s.namespace, err = lab.NewNamespace("api-server")
	must(t, err)
	t.Cleanup(func() { s.namespace.Close(); dir.Close() })
	s.dir = dir.Path()
	must(t, os.WriteFile(s.file("tokens.csv"), []byte(adminToken+",admin,1,system:masters\n"), 0o600))
	s.writeAccountKey()

	etcd := lab.Exec(s.namespace, filepath.Join(s.programs, "etcd"), "--data-dir="+s.file("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://127.0.0.1:2380")
	must(t, etcd.Start())
	t.Cleanup(func() { _ = etcd.Kill() })
	s.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kube-apiserver: %s\netcd: %s", tail(s.process), tail(etcd))
		}
		s.kill()
	})
	return s
}

func (s *apiServer) file(name string) string { return filepath.Join(s.dir, name) }

// writeAccountKey makes the key by which service accounts' tokens are signed.
func (s *apiServer) writeAccountKey() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(s.t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(s.t, err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(s.t, err)
	must(s.t, os.WriteFile(s.file("account.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	must(s.t, os.WriteFile(s.file("account.pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
}

// start starts kube-apiserver and waits until it is ready.
func (s *apiServer) start() {
	s.t.Helper()
	s.process = lab.Exec(s.namespace, filepath.Join(s.programs, "kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379",
		"--cert-dir="+s.file("certificates"), "--bind-address=0.0.0.0", "--secure-port="+port(s.addr), "--advertise-address="+s.addr.Addr().String(),
		"--service-cluster-ip-range="+serviceCIDRs[0].String()+","+serviceCIDRs[1].String(), "--authorization-mode=Node,RBAC", "--token-auth-file="+s.file("tokens.csv"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-account-key-file="+s.file("account.pub"),
		"--service-account-signing-key-file="+s.file("account.key"))
	must(s.t, s.process.Start())
	certificate := s.file("certificates/apiserver.crt")
	eventually(s.t, time.Minute, "kube-apiserver has made its certificate", func() bool { _, err := os.Stat(certificate); return err == nil })
	var err error
	s.Clientset, err = kubernetes.NewForConfig(&rest.Config{
		Host: "https://" + s.addr.String(), BearerToken: adminToken, TLSClientConfig: rest.TLSClientConfig{CAFile: certificate}, QPS: 1000, Burst: 1000,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return s.namespace.Dial(ctx, network, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.addr.Port()).String())
		},
	})
	must(s.t, err)
	eventually(s.t, time.Minute, "kube-apiserver is ready", func() bool {
		b, err := s.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(s.t.Context())
		return err == nil && string(b) == "ok"
	})
}

// kill ends kube-apiserver by SIGKILL; etcd stays.
func (s *apiServer) kill() {
	if err := s.process.Kill(); err != nil {
		s.t.Error(err)
	}
}

// kubeconfig writes one with a token, and returns its path.
func (s *apiServer) kubeconfig(name, token string) string {
	s.t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["lab"] = &clientcmdapi.Cluster{Server: "https://" + s.addr.String(), CertificateAuthority: s.file("certificates/apiserver.crt")}
	c.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	c.Contexts["lab"] = &clientcmdapi.Context{Cluster: "lab", AuthInfo: name}
	c.CurrentContext = "lab"
	path := s.file(name + ".kubeconfig")
	must(s.t, clientcmd.WriteToFile(*c, path))
	return path
}
