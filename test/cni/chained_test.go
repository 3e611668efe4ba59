package cni

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// chainedName is a plugin that stands before or behind ours in a chain.
const chainedName = "test-chained"

// chained adds an interface with an address and a name server to prevResult. It touches nothing.
func chained() int {
	in, err := io.ReadAll(os.Stdin)
	var c types.PluginConf
	if err == nil {
		err = json.Unmarshal(in, &c)
	}
	if err == nil && os.Getenv("CNI_COMMAND") == "ADD" {
		err = chainedAdd(&c)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

func chainedAdd(c *types.PluginConf) error {
	result := &types100.Result{CNIVersion: "1.1.0"}
	if err := version.ParsePrevResult(c); err != nil {
		return err
	}
	if c.PrevResult != nil {
		prev, err := types100.NewResultFromResult(c.PrevResult)
		if err != nil {
			return err
		}
		result = prev
	}
	result.Interfaces = append(result.Interfaces, &types100.Interface{Name: "other0", Mac: "02:00:00:00:00:01"})
	result.IPs = append(result.IPs, &types100.IPConfig{
		Interface: types100.Int(len(result.Interfaces) - 1), Address: net.IPNet{IP: net.IPv4(203, 0, 113, 7).To4(), Mask: net.CIDRMask(24, 32)},
	})
	result.DNS.Nameservers = append(result.DNS.Nameservers, "203.0.113.53")
	return types.PrintResult(result, c.CNIVersion)
}
