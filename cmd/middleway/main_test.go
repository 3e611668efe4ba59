package main

import (
	"io"
	"strings"
	"testing"
)

// Mistakes in a command line are one sentence about the first of them.
func TestMistakes(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"describe", "unknown command \"describe\"; `middleway --help` lists the commands"},
		{"describe service web -n shop", "unknown command \"describe\"; `middleway --help` lists the commands"},
		{"create -f web.yaml", "unknown command \"create\"; `middleway --help` lists the commands"},
		{"-f web.yaml", "unknown shorthand flag: 'f' in -f; `middleway --help` lists the flags"},
		{"get pods --foo", "unknown flag: --foo; `middleway get --help` lists the flags"},
		{"tool curl -k", "unknown command \"curl\"; `middleway tool --help` lists the commands"},
		{"exec service/web -n shop -- true", "exec: service/web is a pod web of namespace service here, but --namespace is shop; want a pod's name after -n, or NAMESPACE/POD"},
		{"logs deploy/web -n shop", "logs: deploy/web is a pod web of namespace deploy here, but --namespace is shop; want a pod's name after -n, or NAMESPACE/POD"},
	} {
		cmd := command()
		cmd.SetArgs(strings.Fields(tt.args))
		cmd.SetOut(io.Discard)
		if err := cmd.Execute(); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", tt.args, err, tt.want)
		}
	}
}

// A pod is named by itself, with its namespace, or with its kind.
func TestNamePod(t *testing.T) {
	for _, tt := range []struct{ arg, namespace, pod string }{
		{"web", "shop", "web"},
		{"pod/web", "shop", "web"},
		{"po/web", "shop", "web"},
		{"test/web", "test", "web"},
	} {
		cmd, namespace, pod := execCommand(), "shop", ""
		if err := namePod(cmd, tt.arg, &namespace, &pod); err != nil || namespace != tt.namespace || pod != tt.pod {
			t.Errorf("%s: got %s of %s, %v, want %s of %s", tt.arg, pod, namespace, err, tt.pod, tt.namespace)
		}
	}
}
