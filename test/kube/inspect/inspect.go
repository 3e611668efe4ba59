// Package inspect looks for what a pod network may have left in a node's kernel: devices, and rules of netfilter and ipvs. A
// network that works in user space has none of them, whatever it went through.
package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// A Kernel is what one network namespace holds.
type Kernel struct {
	Devices []string `json:"devices"` // "NAME KIND", as ip-link(8) names kinds; "device" is hardware's or the loopback
	Rules   []string `json:"rules"`   // of nftables, iptables (both kinds of both families) and ipvs, without counters
}

// Look lists what the network namespace of the calling thread holds. A program that is not on this machine has no rules there.
func Look() (Kernel, error) {
	var k Kernel
	links, err := netlink.LinkList()
	if err != nil {
		return k, fmt.Errorf("list devices: %w", err)
	}
	for _, l := range links {
		k.Devices = append(k.Devices, l.Attrs().Name+" "+l.Type())
	}
	for _, command := range [][]string{
		{"nft", "list", "ruleset"},
		{"iptables-save"}, {"ip6tables-save"}, {"iptables-legacy-save"}, {"ip6tables-legacy-save"},
	} {
		path, err := find(command[0])
		if errors.Is(err, exec.ErrNotFound) {
			continue
		}
		cmd := exec.Command(path, command[1:]...)
		out, err := cmd.Output()
		if err != nil {
			return k, fmt.Errorf("%s: %w", strings.Join(command, " "), err)
		}
		k.Rules = append(k.Rules, rules(command[0], string(out))...)
	}
	ipvs, err := os.ReadFile("/proc/thread-self/net/ip_vs")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	k.Rules = append(k.Rules, services(string(ipvs))...)
	slices.Sort(k.Devices)
	return k, nil
}

// find looks for a program where administrators' programs are, too.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		return "", exec.ErrNotFound
	}
	return path, nil
}

// rules is the lines of a listing that say something: no comments, no empty tables and chains that are there by nature. A
// line of nft keeps the chain it is in.
func rules(program, text string) []string {
	var all []string
	var table, chain string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		first, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || line == "}" || line == "COMMIT" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":"): // :CHAIN POLICY [packets:bytes]; a chain of somebody's own has no policy
			if name, policy, _ := strings.Cut(line[1:], " "); strings.HasPrefix(policy, "-") || strings.HasPrefix(policy, "DROP") {
				all = append(all, fmt.Sprintf("%s: %s: chain %s", program, table, name))
			}
		case program == "nft" && first == "table":
			table = strings.TrimSuffix(rest, " {")
		case program == "nft" && first == "chain":
			chain = strings.TrimSuffix(rest, " {")
			if !byNature(table, chain) {
				all = append(all, fmt.Sprintf("nft: %s: chain %s", table, chain))
			}
		case program == "nft" && first == "type":
		case program == "nft":
			all = append(all, fmt.Sprintf("nft: %s: %s: %s", table, chain, withoutCounters(line)))
		default:
			all = append(all, fmt.Sprintf("%s: %s: %s", program, table, line))
		}
	}
	return all
}

// byNature says whether a chain is one of those that iptables makes when somebody merely asks it for its rules.
func byNature(table, chain string) bool {
	family, _, _ := strings.Cut(table, " ")
	return (family == "ip" || family == "ip6") &&
		slices.Contains([]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, chain)
}

// withoutCounters drops what changes while nobody changes a rule.
func withoutCounters(line string) string {
	f := strings.Fields(line)
	if i := slices.Index(f, "counter"); i >= 0 && i+5 <= len(f) && f[i+1] == "packets" {
		f = slices.Delete(f, i+1, i+5)
	}
	return strings.Join(f, " ")
}

// services is the lines of /proc/net/ip_vs after its three of head.
func services(text string) []string {
	var all []string
	for i, line := range slices.Collect(strings.Lines(text)) {
		if i >= 3 {
			all = append(all, "ipvs: "+strings.Join(strings.Fields(line), " "))
		}
	}
	return all
}

// A Finding is one thing that a node has and was not born with.
type Finding struct {
	What string `json:"what"`
	// Kubelet: it is a rule that kubelet makes by itself where its configuration has makeIPTablesUtilChains.
	Kubelet bool `json:"kubelet,omitempty"`
}

// harmless are kinds of devices that say nothing of the kernel's work for a network: packets of a tun device are a program's.
var harmless = []string{"tun", "tuntap", "device"}

// Compare returns what is there now and was not at birth: every rule, and every device that is not a program's own.
func Compare(birth, now Kernel) []Finding {
	var found []Finding
	for _, d := range now.Devices {
		_, kind, _ := strings.Cut(d, " ")
		if !slices.Contains(birth.Devices, d) && !slices.Contains(harmless, kind) {
			found = append(found, Finding{What: "device " + d})
		}
	}
	for _, r := range now.Rules {
		if !slices.Contains(birth.Rules, r) {
			found = append(found, Finding{What: r, Kubelet: kubelets(r)})
		}
	}
	return found
}

func kubelets(rule string) bool {
	return strings.Contains(rule, "KUBE-FIREWALL") || strings.Contains(rule, "KUBE-KUBELET-CANARY")
}

// Write and Read keep what a node was born with.
func (k Kernel) Write(file string) error {
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// Read reads what Write wrote.
func Read(file string) (Kernel, error) {
	var k Kernel
	text, err := os.ReadFile(file)
	if err != nil {
		return k, err
	}
	return k, json.Unmarshal(text, &k)
}
