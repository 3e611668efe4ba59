package remote

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc" // kubeconfigs may have users of it
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// DefaultNamespace is where deploy/middleway.yaml puts the daemons.
const DefaultNamespace = "middleway"

// Config says which cluster is meant, and as whom. The zero value is what kubectl without flags means.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file. Default: the files of $KUBECONFIG, else ~/.kube/config, else the service account
	// of the pod in which this process runs.
	Kubeconfig string
	// Context is one of the kubeconfig. Default: its current one.
	Context string
	// Namespace is where the daemons' pods are. Default DefaultNamespace.
	Namespace string
	// Timeout bounds each question to the API server; commands and streams go on for as long as they want. Default 10s.
	Timeout time.Duration
	// Agent is the program's name and version, as the API server logs it.
	Agent string

	overrides clientcmd.ConfigOverrides // kubectl's other flags
}

const defaultTimeout = 10 * time.Second

// FlagNames are those of AddFlags.
var FlagNames = []string{"kubeconfig", "context", "middleway-namespace"}

// AddFlags registers the flags that say that a real cluster is meant, the first two with kubectl's names.
func (c *Config) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig file of a cluster; default $KUBECONFIG, else ~/.kube/config")
	flags.StringVar(&c.Context, "context", "", "context of the kubeconfig; default its current one")
	flags.StringVar(&c.Namespace, "middleway-namespace", DefaultNamespace, "namespace of middleway's pods in the cluster")
}

// AddKubectlFlags registers what else kubectl takes for every command and `kubectl options` lists, without help texts of its own.
func (c *Config) AddKubectlFlags(to *pflag.FlagSet) {
	o, flags := &c.overrides, pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.StringVar(&o.Context.Cluster, "cluster", "", "cluster of the kubeconfig")
	flags.StringVar(&o.Context.AuthInfo, "user", "", "user of the kubeconfig")
	flags.StringVar(&o.ClusterInfo.Server, "server", "", "address of the API server")
	flags.StringVar(&o.ClusterInfo.TLSServerName, "tls-server-name", "", "name that the API server's certificate has to have")
	flags.StringVar(&o.ClusterInfo.CertificateAuthority, "certificate-authority", "", "file with the certificate authority of the API server")
	flags.BoolVar(&o.ClusterInfo.InsecureSkipTLSVerify, "insecure-skip-tls-verify", false, "do not check the API server's certificate")
	flags.StringVar(&o.AuthInfo.Token, "token", "", "bearer token")
	flags.StringVar(&o.AuthInfo.ClientCertificate, "client-certificate", "", "file with a client certificate")
	flags.StringVar(&o.AuthInfo.ClientKey, "client-key", "", "file with the client certificate's key")
	flags.StringVar(&o.AuthInfo.Impersonate, "as", "", "user to act as")
	flags.StringArrayVar(&o.AuthInfo.ImpersonateGroups, "as-group", nil, "group to act as a member of")
	flags.StringVar(&o.AuthInfo.ImpersonateUID, "as-uid", "", "uid to act as")
	flags.DurationVar(&c.Timeout, "request-timeout", defaultTimeout, "time that the API server has for an answer")
	flags.VisitAll(func(f *pflag.Flag) { f.Hidden = true })
	to.AddFlagSet(flags)
}

// loader reads the kubeconfig.
func (c *Config) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.Kubeconfig
	rules.WarnIfAllMissing = false
	overrides := c.overrides
	overrides.CurrentContext = c.Context
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &overrides)
}

// Contexts returns the names of the kubeconfig's contexts, sorted.
func (c *Config) Contexts() ([]string, error) {
	raw, err := c.loader().RawConfig()
	if err != nil {
		return nil, c.unreadable(err)
	}
	return slices.Sorted(maps.Keys(raw.Contexts)), nil
}

// Cluster is a cluster as the user of a kubeconfig sees it. It may be used by several goroutines.
type Cluster struct {
	config    Config
	rest      *rest.Config
	core      rest.Interface
	namespace string
}

// New reads the kubeconfig. It does not connect.
func New(c Config) (*Cluster, error) {
	c.Namespace, c.Timeout = cmp.Or(c.Namespace, DefaultNamespace), cmp.Or(c.Timeout, defaultTimeout)
	loader := c.loader()
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, c.unreadable(err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, c.unreadable(err)
	}
	config.UserAgent = c.Agent
	config.QPS = -1 // a few questions for each command of a person; the server has priorities of its own
	config.WarningHandler = rest.NoWarnings{}
	core, err := coreClient(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.where(), err)
	}
	return &Cluster{config: c, rest: config, core: core, namespace: namespace}, nil
}

// Namespace returns the one that the kubeconfig's context means where none is said.
func (c *Cluster) Namespace() string { return c.namespace }

// Server returns the API server's address.
func (c *Cluster) Server() string { return c.rest.Host }

// Core asks the API server about the kinds of group "" (Pods, Services, Nodes, …).
func (c *Cluster) Core() rest.Interface { return c.core }

// coreClient knows the kinds of one group: client-go's own clientset knows all, whose types would be half of the program.
func coreClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion = "/api", &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return rest.RESTClientFor(c)
}

// unreadable says what is wrong with the kubeconfig.
func (c *Config) unreadable(err error) error {
	if clientcmd.IsEmptyConfig(err) {
		return fmt.Errorf("there is no cluster in %s; give --kubeconfig FILE, or set KUBECONFIG", c.where())
	}
	if c.Context != "" && (clientcmd.IsContextNotFound(err) || strings.Contains(err.Error(), fmt.Sprintf("context %q does not exist", c.Context))) {
		if names, rawErr := c.Contexts(); rawErr == nil && len(names) > 0 {
			return fmt.Errorf("there is no context %s in %s; it has %s", c.Context, c.where(), strings.Join(names, ", "))
		}
		return fmt.Errorf("there is no context %s in %s; give --kubeconfig FILE, or set KUBECONFIG", c.Context, c.where())
	}
	return fmt.Errorf("%s: %w", c.where(), err)
}

// where names the kubeconfig.
func (c *Config) where() string {
	files := cmp.Or(c.Kubeconfig, os.Getenv(clientcmd.RecommendedConfigPathEnvVar), clientcmd.RecommendedHomeFile)
	return "kubeconfig " + strings.Join(strings.FieldsFunc(files, func(r rune) bool { return r == os.PathListSeparator }), ", ")
}
