// Package informers brings a cluster's objects from its API server into a node's store (k8s.Source), and tells the API server what
// this node has to say about itself.
//
// client-go's reflectors list and watch; what they get is stripped at once (package object), and there is no second copy of it:
//
//	API server ── list, watch ──► reflector ──► stripped ──► k8s.Store
//	           ◄── patch of nodes/status ── Announce
//	           ◄── events ───────────────── Tell
//
// An API server that does not answer changes nothing: what is known stays in force, one sentence in the log says so, and one when it
// answers again.
package informers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/middleway-net/middleway/k8s"
	"github.com/middleway-net/middleway/k8s/object"
)

// Config says where the API server is.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file. Default: the service account of the pod in which this process runs.
	Kubeconfig string
	// Server is the API server's address, for example https://192.168.254.11:6443, in place of what Kubeconfig or the pod's environment
	// say.
	Server string
	// ServiceCIDRs are the ranges of Services. The API server must not be reached by an address in them: it would have to be reached
	// before this node knows where that leads.
	ServiceCIDRs []netip.Prefix
	// Node is this node's name: only its pods are asked for. Required.
	Node string
	// Dial connects to the API server, as net.Dialer does. Default: this process's own sockets.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Pod is the pod in which this process runs, whose Events tell what is wrong beside the node's. Default: none is known.
	Pod object.Key
	// Agent is the program's name and version, as the API server logs it.
	Agent string
	// Logger takes state changes. Required.
	Logger *slog.Logger
}

// Client is a connection to an API server.
type Client struct {
	config          Config
	server          string
	core, discovery rest.Interface
	health          health
	events          *events
}

var _ k8s.Source = (*Client)(nil)

// New makes a client. It does not connect.
func New(c Config) (*Client, error) {
	bridge(c.Logger)
	config, err := restConfig(c)
	if err != nil {
		return nil, err
	}
	client := &Client{config: c, server: config.Host, health: newHealth(c.Logger, config.Host), events: newEvents()}
	client.health.warn = client.Warn
	if err := notAmongServices(config.Host, c.ServiceCIDRs); err != nil {
		return nil, err
	}
	if client.core, err = restClient(config, "/api", corev1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	client.discovery, err = restClient(config, "/apis", discoveryv1.SchemeGroupVersion)
	return client, err
}

// Server returns the API server's address.
func (c *Client) Server() string { return c.server }

// Unreachable says since when and why the API server does not answer; nil while it does.
func (c *Client) Unreachable() *Unreachable { return c.health.unreachable() }

func restConfig(c Config) (config *rest.Config, err error) {
	if c.Kubeconfig == "" {
		if config, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("kubernetes.inCluster: %w; give kubernetes.kubeconfig outside of a pod", err)
		}
	} else if config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return nil, fmt.Errorf("kubernetes.kubeconfig: %s: %w", c.Kubeconfig, err)
	}
	if c.Server != "" {
		config.Host = c.Server
	}
	config.UserAgent = c.Agent
	config.Dial = c.Dial
	config.QPS = -1 // five watches and a patch now and then; the server has priorities of its own
	return config, nil
}

// notAmongServices refuses an address that only a proxy of Services leads to.
func notAmongServices(server string, services []netip.Prefix) error {
	u, err := url.Parse(server)
	if err != nil {
		return fmt.Errorf("kubernetes.server: %q is not like https://192.168.254.11:6443", server)
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil || !slices.ContainsFunc(services, func(r netip.Prefix) bool { return r.Contains(a) }) {
		return nil
	}
	return fmt.Errorf("kubernetes.server: %v is the address of a Service, which nothing leads to before this node has asked the API server; give the API server's own address, like https://192.168.254.11:6443", a)
}

// restClient makes a client for one group. Its scheme has our kinds and no others: client-go's own clients know all, whose
// types would be half of the program.
func restClient(config *rest.Config, path string, group schema.GroupVersion) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion = path, &group
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, errors.Join(errors.New("kubernetes: make a client"), err)
	}
	return client, nil
}

var bridged sync.Once

// bridge has what client-go logs go to our log, once for the process. What it says about retries is ours to say, in one sentence.
func bridge(log *slog.Logger) {
	bridged.Do(func() { klog.SetSlogLogger(slog.New(quiet{log.Handler()})) })
}
