// Package e2e runs Kubernetes' own end-to-end tests against a cluster, from the outside of its nodes, and lays what comes of them
// beside what the reference network came to.
package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// A Suite is a choice among the tests of e2e.test, by regular expressions over their names.
type Suite struct {
	Name  string
	About string
	Focus string
	Skip  string
}

// suites are the choices that have a name. The kernel of a test machine may have no SCTP sockets, upon which each test of SCTP
// waits five minutes for a pod; Serial and Disruptive ones change nodes under the others; the reference has neither load balancers nor
// network policies; IPerf2 wants an iperf that Debian does not have; and there may be no internet.
var suites = map[string]Suite{
	"conformance": {
		About: "what every network of a cluster has to pass",
		Focus: `\[sig-network\].*\[Conformance\]`,
	},
	"rest": {
		About: "all others that one machine has the means for; for three dual-stack nodes",
		Focus: `\[sig-network\]`,
		Skip: strings.Join([]string{`\[Conformance\]`, `\[Serial\]`, `\[Disruptive\]`, `Feature:LoadBalancer`, `Feature:NetworkPolicy`,
			`PerformanceDNS`, `[sS][cC][tT][pP]`, `IPerf2`, `Internet connection`}, "|"),
	},
}

// Suites is the named suites, in the order of their names.
func Suites() []Suite {
	var all []Suite
	for _, name := range slices.Sorted(maps.Keys(suites)) {
		s := suites[name]
		s.Name = name
		all = append(all, s)
	}
	return all
}

// Choose returns the suite of a name, or without one what focus and skip say; with a name these narrow it.
func Choose(name, focus, skip string) (Suite, error) {
	for _, expression := range []string{focus, skip} {
		if _, err := regexp.Compile(expression); err != nil {
			return Suite{}, err
		}
	}
	if name == "" && focus == "" {
		name = "conformance"
	}
	if name == "" {
		return Suite{Name: "chosen", Focus: focus, Skip: skip}, nil
	}
	s, ok := suites[name]
	if !ok {
		return s, fmt.Errorf("no suite is named %q: take %s, or --focus", name, strings.Join(slices.Sorted(maps.Keys(suites)), " or "))
	}
	s.Name = name
	if focus != "" {
		s.Name, s.Focus = "chosen", focus
	}
	if skip != "" {
		s.Name, s.Skip = "chosen", strings.Trim(s.Skip+"|"+skip, "|")
	}
	return s, nil
}
