package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/middleway-net/middleway/test/kube/cluster"
	"github.com/middleway-net/middleway/test/kube/components"
	"github.com/middleway-net/middleway/test/kube/network"
	"github.com/middleway-net/middleway/test/kube/plan"
)

// upOptions are the flags of kube up.
type upOptions struct {
	plan.Plan
	network      string
	beside       []string
	proxyMode    string
	manifest     string
	image        string
	kubeletRules bool
}

func upCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Make a cluster; what it needs and the cache lacks is built before",
		Example: `  kube up
  kube up --nodes 3 --family dual --cluster three
  kube up --beside kube-proxy,coredns
  kube up --nodes 3 --network mixed
  kube up --network flannel --proxy-mode iptables --cluster reference`,
		Args: cobra.NoArgs,
	}
	var o upOptions
	name := clusterName(cmd)
	f := cmd.Flags()
	f.IntVarP(&o.Nodes, "nodes", "n", 2, "number of nodes; the first has the control plane, and pods as the others")
	f.StringVar((*string)(&o.Family), "family", string(plan.IPv4), "ipv4, dual or ipv6")
	f.StringVar(&o.network, "network", "middleway", "middleway; the reference, kube-proxy and CoreDNS with routes between nodes (reference) or flannel's VXLAN (flannel); or mixed, middleway and on the last node flannel with kube-proxy")
	f.StringSliceVar(&o.beside, "beside", nil, "what runs beside middleway and does its part: kube-proxy, coredns")
	f.StringVar(&o.proxyMode, "proxy-mode", "nftables", "of the reference's kube-proxy: nftables or iptables")
	f.StringVar(&o.manifest, "manifest", "", "what installs middleway; default deploy/middleway.yaml of this checkout, and for mixed bin/middleway-mixed.yaml, which make kube-up writes")
	f.StringVar(&o.image, "image", "", "middleway's image; default bin/middleway-image.tar of this checkout, which make image writes")
	f.BoolVar(&o.kubeletRules, "kubelet-rules", false, "let kubelets make iptables rules of their own beside middleway, as they do beside the reference (makeIPTablesUtilChains)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Name = *name
		return o.up(cmd)
	}
	return cmd
}

func (o upOptions) up(cmd *cobra.Command) error {
	if err := o.Check(); err != nil {
		return err
	}
	cache, err := components.Open()
	if err != nil {
		return err
	}
	if err := cache.Build(cmd.Context(), cmd.OutOrStdout()); err != nil {
		return err
	}
	images, err := cache.Images()
	if err != nil {
		return err
	}
	net, own, err := o.choose()
	if err != nil {
		return err
	}
	dir, err := clusterDir(o.Name)
	if err != nil {
		return err
	}
	config := cluster.Config{
		Plan:         o.Plan,
		Dir:          dir,
		Deploy:       o.deploy(),
		Network:      strings.Join(append([]string{o.network}, o.beside...), "+"),
		KubeletRules: o.kubeletRules || o.network != "middleway" && o.network != "mixed",
		Programs: cluster.Programs{
			Bin:     cache.Bin(""),
			CNI:     cache.CNI(),
			Images:  append(own, images...),
			Pause:   components.PauseImage,
			CoreDNS: components.CoreDNSImage,
		},
	}
	_, err = cluster.Up(cmd.Context(), config, net, cmd.OutOrStdout())
	return err
}

// choose returns the network, and its own images.
func (o upOptions) choose() (cluster.Network, []string, error) {
	for _, b := range o.beside {
		if o.network != "middleway" && o.network != "mixed" || b != "kube-proxy" && b != "coredns" {
			return nil, nil, fmt.Errorf("--beside %s: kube-proxy and coredns may run beside middleway", b)
		}
	}
	if o.proxyMode != "nftables" && o.proxyMode != "iptables" {
		return nil, nil, fmt.Errorf("--proxy-mode is nftables or iptables, not %q", o.proxyMode)
	}
	switch o.network {
	case "mixed":
		if o.Family != plan.IPv4 || o.Nodes < 2 {
			return nil, nil, errors.New("a mixed cluster has at least two nodes and IPv4 alone: flannel has a second tunnel for IPv6, which middleway does not open")
		}
		image, err := o.file(o.image, "bin/middleway-image.tar", "make image writes it")
		if err != nil {
			return nil, nil, err
		}
		manifest, err := o.file(o.manifest, "bin/middleway-mixed.yaml", "make kube-up NETWORK=mixed writes it")
		if err != nil {
			return nil, nil, err
		}
		return network.Mixed{Middleway: o.middleway(manifest), Flannel: []string{o.Node(o.Nodes)}}, []string{image}, nil
	case "middleway":
		image, err := o.file(o.image, "bin/middleway-image.tar", "make image writes it")
		if err != nil {
			return nil, nil, err
		}
		manifest, err := o.file(o.manifest, "deploy/middleway.yaml", "it is part of the repository")
		if err != nil {
			return nil, nil, err
		}
		return o.middleway(manifest), []string{image}, nil
	case "reference", "flannel":
		return network.Reference{Flannel: o.network == "flannel", ProxyMode: o.proxyMode}, nil, nil
	}
	return nil, nil, fmt.Errorf("--network is middleway, mixed, reference or flannel, not %q", o.network)
}

// middleway is the network that a manifest installs, with what is beside it.
func (o upOptions) middleway(manifest string) network.Middleway {
	return network.Middleway{Manifest: manifest, KubeProxy: slices.Contains(o.beside, "kube-proxy"), CoreDNS: slices.Contains(o.beside, "coredns")}
}

// file is a file as it was given, or else where the checkout that the caller is in has it.
func (o upOptions) file(given, inRepository, remedy string) (string, error) {
	if given == "" {
		root, err := repository()
		if err != nil {
			return "", err
		}
		given = filepath.Join(root, inRepository)
	}
	if _, err := os.Stat(given); err != nil {
		return "", fmt.Errorf("%w; %s", err, remedy)
	}
	return filepath.Abs(given)
}

// deploy is the folder deploy of the checkout that the caller is in, if it is in one; only moves of nodes want it.
func (o upOptions) deploy() string {
	root, err := repository()
	if err != nil {
		return ""
	}
	return filepath.Join(root, "deploy")
}

// repository is the root of the checkout that the working directory is in.
func repository() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module github.com/middleway-net/middleway\n") {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("this is no checkout of middleway: call kube in one, or give it --image and --manifest")
		}
	}
	return "", err
}

func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
