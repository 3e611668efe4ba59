package playground

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/go-cmp/cmp"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/manifest"
)

// scripted plays a plugin, and notes for what it was called.
type scripted struct {
	version.PluginDecoder
	add    string // what ADD prints
	errs   map[string]error
	cancel func() // is called by ADD
	called []string
	conf   []string // what each call got on standard input
}

func (s *scripted) FindInPath(string, []string) (string, error) { return "/plugin", nil }

func (s *scripted) ExecPlugin(ctx context.Context, _ string, conf []byte, environ []string) ([]byte, error) {
	var verb string
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, "CNI_COMMAND="); ok {
			verb = v // the last one counts
		}
	}
	s.called, s.conf = append(s.called, verb), append(s.conf, string(conf))
	if verb == "ADD" && s.cancel != nil {
		s.cancel()
	}
	if err := errors.Join(s.errs[verb], ctx.Err()); err != nil {
		return nil, err
	}
	if verb == "ADD" {
		return []byte(s.add), nil
	}
	return nil, nil
}

// After an ADD that failed, whatever the reason, DEL is called, also if the start was interrupted.
func TestAddFails(t *testing.T) {
	ns, err := lab.NewNamespace("added")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	full := errors.New("no address is free")
	const good = `{"cniVersion": "1.1.0", "ips": [{"address": "10.244.1.2/24"}]}`
	for _, tt := range []struct {
		name      string
		plugin    scripted
		interrupt bool
		called    []string
		want      string
	}{
		{"it succeeds", scripted{add: good}, false, []string{"ADD"}, "<nil>"},
		{"it fails", scripted{errs: map[string]error{"ADD": full}}, false, []string{"ADD", "DEL"}, full.Error()},
		{"interrupted", scripted{add: good}, true, []string{"ADD", "DEL"}, context.Canceled.Error()},
		{"its result cannot be read", scripted{add: `{"cniVersion": "1.1.0", "ips": 7}`}, false, []string{"ADD", "DEL"}, "cannot unmarshal number"},
		{"DEL fails too", scripted{errs: map[string]error{"ADD": full, "DEL": errors.New("busy")}}, false, []string{"ADD", "DEL"}, "and it was not taken back: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := newNetwork(&directory{path: t.TempDir()}, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.interrupt {
				tt.plugin.cancel = cancel
			}
			n.cni = libcni.NewCNIConfigWithCacheDir(nil, t.TempDir(), &tt.plugin)
			_, err = n.add(ctx, &Pod{ns: ns, uid: "1", manifest: &manifest.Pod{}})
			if diff := cmp.Diff(tt.called, tt.plugin.called); diff != "" {
				t.Errorf("called (-want +got):\n%s", diff)
			}
			if got := fmt.Sprint(err); !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// The plugin hears of a pod's host ports as from a container runtime, and of none where the pod has none.
func TestPortMappings(t *testing.T) {
	ns, err := lab.NewNamespace("mapped")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for _, tt := range []struct{ ports, want string }{
		{"{containerPort: 80}", ""},
		{"{containerPort: 80, hostPort: 80, protocol: SCTP}", ""},
		{"{containerPort: 80, hostPort: 8080}, {containerPort: 53, hostPort: 53, protocol: UDP, hostIP: 127.0.0.1}",
			`"runtimeConfig":{"portMappings":[{"containerPort":80,"hostPort":8080,"protocol":"tcp"},{"containerPort":53,"hostIP":"127.0.0.1","hostPort":53,"protocol":"udp"}]}`},
	} {
		s, err := manifest.Parse("x.yaml", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, command: [x], ports: ["+tt.ports+"]}]}\n"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := newNetwork(&directory{path: t.TempDir()}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		plugin := scripted{add: `{"cniVersion": "1.1.0", "ips": [{"address": "10.244.1.2/24"}]}`}
		n.cni = libcni.NewCNIConfigWithCacheDir(nil, t.TempDir(), &plugin)
		p := &Pod{ns: ns, uid: "1", manifest: s.Pods()[0]}
		if _, err := n.add(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if err := n.del(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		for i, conf := range plugin.conf {
			if got := strings.Contains(conf, "runtimeConfig"); got != (tt.want != "") || !strings.Contains(conf, tt.want) {
				t.Errorf("%s got %s\nwant %s", plugin.called[i], conf, tt.want)
			}
		}
	}
}
