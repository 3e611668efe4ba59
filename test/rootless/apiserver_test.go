package rootless

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// kubeBin is where make kube-build puts Kubernetes' programs.
func kubeBin() string {
	dir := os.Getenv("MIDDLEWAY_KUBE_DIR")
	if cache, err := os.UserCacheDir(); dir == "" && err == nil {
		dir = filepath.Join(cache, "middleway-kube")
	}
	return filepath.Join(dir, "bin")
}

// token is the administrator's, and in this test the nodes' too.
const token = "admin-of-the-test"

// controlPlane runs etcd and kube-apiserver as a host's user, and returns a client of them.
func (h *host) controlPlane() *kubernetes.Clientset {
	t := h.t
	t.Helper()
	for _, name := range []string{"etcd", "kube-apiserver"} {
		b, err := os.ReadFile(filepath.Join(kubeBin(), name))
		if err != nil {
			t.Skip("Kubernetes' programs are not on this machine (make kube-build builds them, MIDDLEWAY_KUBE_DIR says where they are): ", err)
		}
		h.write(h.path(name), b, 0o755)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	h.write(h.path("sa.key"), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600)
	h.write(h.path("tokens"), []byte(token+`,admin,admin,system:masters`), 0o600)
	h.own(h.home)
	addr := h.addr(false)
	for _, argv := range [][]string{
		{h.path("etcd"), "--data-dir", h.path("etcd.data"), "--unsafe-no-fsync", "--log-level", "warn"},
		{h.path("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379", "--advertise-address", addr.String(), "--bind-address", addr.String(), "--secure-port=6443",
			"--cert-dir", h.path("certs"), "--token-auth-file", h.path("tokens"), "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
			"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file", h.path("sa.key"), "--service-account-signing-key-file", h.path("sa.key")},
	} {
		p := h.user(argv...)
		must(t, p.Start())
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s: %s", argv[0], p.Tail())
			}
			p.Kill()
		})
	}
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: "https://" + netip.AddrPortFrom(addr, 6443).String(), BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, Dial: h.ns.Dial, QPS: -1,
	})
	must(t, err)
	eventually(t, 2*time.Minute, "the API server is ready", func() error {
		_, err := client.RESTClient().Get().AbsPath("/readyz").DoRaw(t.Context())
		if err == nil {
			_, err = client.CoreV1().Namespaces().Get(t.Context(), "default", metav1.GetOptions{})
		}
		return err
	})
	return client
}

// kubeconfig gives a host what it needs to ask the API server at an address, whose certificate it knows.
func (h *host) kubeconfig(server *host) (path string) {
	h.t.Helper()
	ca, err := os.ReadFile(server.path("certs", "apiserver.crt"))
	must(h.t, err)
	h.write(h.path("ca.crt"), ca, 0o644)
	path = h.path("kubeconfig")
	h.write(path, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
"clusters":[{"name":"c","cluster":{"server":"https://%v","certificate-authority":%q}}],"users":[{"name":"u","user":{"token":%q}}]}`,
		netip.AddrPortFrom(server.addr(false), 6443), h.path("ca.crt"), token), 0o600)
	return path
}

// put gives the API server the nodes and the Service.
func put(t *testing.T, client *kubernetes.Clientset, hosts int) {
	t.Helper()
	for n := 1; n <= hosts; n++ {
		o := nodeObject(n)
		made, err := client.CoreV1().Nodes().Create(t.Context(), o, metav1.CreateOptions{})
		must(t, err)
		made.Status.Addresses = o.Status.Addresses
		_, err = client.CoreV1().Nodes().UpdateStatus(t.Context(), made, metav1.UpdateOptions{})
		must(t, err)
	}
	for _, o := range objects(hosts) {
		var err error
		switch o := o.(type) {
		case *corev1.Service:
			_, err = client.CoreV1().Services("default").Create(t.Context(), o, metav1.CreateOptions{})
		case *discoveryv1.EndpointSlice:
			_, err = client.DiscoveryV1().EndpointSlices("default").Create(t.Context(), o, metav1.CreateOptions{})
		}
		must(t, err)
	}
}

// TestAPIServer: two rootless nodes know each other by an API server on a third host, which they reach by the sockets that are handed in.
func TestAPIServer(t *testing.T) {
	hosts := newHosts(t, 3)
	server, hosts := hosts[2], hosts[:2]
	client := server.controlPlane()
	put(t, client, len(hosts))
	for _, h := range hosts {
		h.configure(func(c *node.Config) {
			c.Kubernetes.Kubeconfig, c.PodCIDRs, c.Services.CIDRs, c.DNS.ResolvConf = h.kubeconfig(server), nil, lab.ServiceCIDRs(), "none"
		})
		h.start()
	}
	for _, h := range hosts {
		h.waitReady()
		awaitPeers(t, h, 1)
	}
	checkReach(t, hosts[0], hosts[1], 1450)
	checkReach(t, hosts[1], hosts[0], 1450)
}
