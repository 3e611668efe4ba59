package middleway_test

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// TestCheckLayout shows that each rule can fail: a module in memory that is in order, with one file added or changed.
func TestCheckLayout(t *testing.T) {
	const doc = "// Package p is documented.\n"
	for _, test := range []struct {
		name string
		file string
		text string
		want string // the one problem starts so; none if empty
	}{
		{"in order", "stack/fib/table.go", doc + "package fib\n\nimport _ \"" + module + "/stack/packet\"\n", ""},
		{"third party", "stack/fib/table.go", doc + "package fib\n\nimport _ \"github.com/gaissmai/bart\"\n", ""},
		{"tests may import all", "stack/packet/flow_test.go", "package packet\n\nimport _ \"" + module + "/node\"\n", ""},
		{"only test files", "bench/bench_test.go", doc + "package bench\n", ""},
		{"nested module", "test/kube/go.mod", "module kube\n", ""},
		{"testdata", "stack/testdata/bad.go", "no go at all", ""},
		{"forbidden arrow", "stack/stack.go", doc + "package stack\n\nimport _ \"" + module + "/tunnel\"\n",
			"stack/stack.go:4: stack may not import tunnel (may: stack/*): stack never imports tunnel"},
		{"one level only", "stack/stack.go", doc + "package stack\n\nimport _ \"" + module + "/stack/tun/tuntest\"\n",
			"stack/stack.go:4: stack may not import stack/tun/tuntest"},
		{"leaf", "tunnel/vxlan/header.go", doc + "package vxlan\n\nimport _ \"" + module + "/stack/packet\"\n",
			"tunnel/vxlan/header.go:4: tunnel/vxlan may not import stack/packet (may: nothing of ours): a pure codec"},
		{"root", "node/node.go", doc + "package node\n\nimport _ \"" + module + "\"\n", "node/node.go:4: node may not import ."},
		{"bench into test", "bench/run.go", doc + "package bench\n\nimport _ \"" + module + "/test/asuser\"\n",
			"bench/run.go:4: bench may not import test/asuser"},
		{"new package", "stack/nat/nat.go", doc + "package nat\n", "stack/nat: a new package: add its row to arrows in layout_test.go, with the reason"},
		{"new folder", "mesh/mesh.go", doc + "package mesh\n",
			"mesh: a new package: add its row to arrows in layout_test.go, with the reason; mesh is a new top-level folder as well, so write an ADR"},
		{"gvisor", "stack/stack.go", doc + "package stack\n\nimport _ \"gvisor.dev/gvisor/pkg/tcpip\"\n",
			"stack/stack.go:4: gvisor.dev/gvisor/pkg/tcpip belongs only into stack/netstack"},
		{"gvisor in place", "stack/netstack/host.go", doc + "package netstack\n\nimport _ \"gvisor.dev/gvisor/pkg/tcpip\"\n", ""},
		{"kubernetes", "proxy/proxy.go", doc + "package proxy\n\nimport _ \"k8s.io/api/core/v1\"\n", "proxy/proxy.go:4: k8s.io/api/core/v1 belongs only into k8s/..."},
		{"kubernetes in place", "k8s/services/compile.go", doc + "package services\n\nimport _ \"k8s.io/api/core/v1\"\n", ""},
		{"wireguard", "node/node.go", doc + "package node\n\nimport _ \"golang.zx2c4.com/wireguard/tun\"\n",
			"node/node.go:4: golang.zx2c4.com/wireguard/tun belongs only into stack/tun"},
		{"banned folder", "test/util/util.go", doc + "package util\n", `test/util: "util" says nothing`},
		{"banned package", "test/slow/slow.go", doc + "package helpers\n", `test/slow: "helpers" says nothing`},
		{"no comment", "stack/fib/table.go", "package fib\n", "stack/fib: no package comment"},
		{"detached comment", "stack/fib/table.go", doc + "\npackage fib\n", "stack/fib: no package comment"},
		{"two comments", "stack/packet/flow.go", doc + "package packet\n", "stack/packet: package comments in doc.go, flow.go: keep one"},
		{"unformatted", "stack/packet/flow.go", "package packet\nvar  x int\n", "stack/packet/flow.go: run gofmt"},
		{"unformatted test", "stack/packet/flow_test.go", "package packet\nvar  x int\n", "stack/packet/flow_test.go: run gofmt"},
		{"todo", "stack/packet/flow.go", "package packet\n\n/* First.\nTODO: later */\n", "stack/packet/flow.go:4: a TODO names its issue"},
		{"todo with issue", "stack/packet/flow.go", "package packet\n\n// TODO(#12): later\n", ""},
		{"replace", "go.mod", "module " + module + "\n\nreplace a => ../a\n", "go.mod: replace"},
		{"replace in a block", "go.mod", "module " + module + "\n\nreplace (\n\ta => ../a\n)\n", "go.mod: replace"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := fstest.MapFS{
				"go.mod":               {Data: []byte("module " + module + "\n\nrequire a v1.0.0 // not replaced\n")},
				"stack/packet/doc.go":  {Data: []byte(doc + "package packet\n")},
				"test/kube/helpers.go": {Data: []byte(doc + "package kube\n\nimport _ \"" + module + "/node\"\n")},
			}
			root[test.file] = &fstest.MapFile{Data: []byte(test.text)}
			problems, err := checkLayout(root)
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				if diff := cmp.Diff([]string(nil), problems); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
				return
			}
			if len(problems) != 1 || !strings.HasPrefix(problems[0], test.want) {
				t.Errorf("got %q, want one problem that starts %q", problems, test.want)
			}
		})
	}
}

// TestArrowsHaveNoCycle keeps the table itself possible: Go forbids import cycles, so rows that allow one are a mistake.
func TestArrowsHaveNoCycle(t *testing.T) {
	var visit func(pkg string, way []string)
	visit = func(pkg string, way []string) {
		if slices.Contains(way, pkg) {
			t.Fatalf("cycle: %s", strings.Join(append(way, pkg), " → "))
		}
		row, _ := rowOf(pkg)
		for _, next := range arrows {
			if next.pkg != pkg && matches(row.may, next.pkg) {
				visit(next.pkg, append(slices.Clone(way), pkg))
			}
		}
	}
	for _, a := range arrows {
		if a.may != "..." {
			visit(a.pkg, nil)
		}
	}
}
