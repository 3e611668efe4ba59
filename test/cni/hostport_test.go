package cni

import "testing"

// portMapping is an entry of the capability portMappings as container runtimes write it.
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// newMappingRuntime returns a runtime whose configuration declares the capability portMappings.
func newMappingRuntime(t *testing.T) *runtime {
	return newRuntime(t, newNode(t, nil), "1.1.0", func(conf map[string]any) {
		conf["plugins"].([]any)[0].(map[string]any)["capabilities"] = map[string]bool{"portMappings": true}
	})
}

func (r *runtime) mapped(id string, mappings ...portMapping) *sandbox {
	s := r.sandbox(id)
	s.conf.CapabilityArgs = map[string]any{"portMappings": mappings}
	return s
}

// A host port is one pod's until that is deleted, over a restart of the daemon and a DEL that found none.
func TestHostPort(t *testing.T) {
	r := newMappingRuntime(t)
	web := portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}
	a, b := r.mapped("a", web), r.mapped("b", web)
	r.mustAdd(a)
	if err := r.check(a); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	_, err := r.add(b)
	wantCode(t, err, 105, "8080/tcp belongs to pod default/pod-a")
	if got := devices(t, b.Namespace); len(got) > 0 {
		t.Errorf("after a refused ADD: %v", got)
	}
	udp := r.mapped("udp", portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "udp", HostIP: "::1"})
	r.mustAdd(udp)

	if err := r.node.Daemon().Stop(timeout); err != nil {
		t.Fatal(err)
	}
	start(t, r.node)
	_, err = r.add(b)
	wantCode(t, err, 105, "belongs to pod default/pod-a")
	if err := r.node.Daemon().Kill(); err != nil {
		t.Fatal(err)
	}
	r.mustDel(a)
	start(t, r.node)
	r.mustAdd(b)
	for _, s := range []*sandbox{b, udp} {
		r.mustDel(s)
	}
	if got := left(t, r.node); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// CHECK compares the host ports of an attachment with those that the runtime tells of.
func TestHostPortCheck(t *testing.T) {
	r := newMappingRuntime(t)
	web := portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}
	a := r.mapped("a", web)
	r.mustAdd(a)
	web.HostIP = "127.0.0.1"
	a.conf.CapabilityArgs["portMappings"] = []portMapping{web}
	wantCode(t, r.check(a), 104, "[8080/tcp]", "[127.0.0.1:8080/tcp]")
}

// What cannot be served is refused by its name.
func TestHostPortRefused(t *testing.T) {
	r := newMappingRuntime(t)
	for _, tt := range []struct {
		name    string
		mapping portMapping
		code    uint
		words   string
	}{
		{"SCTP", portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "sctp"}, 2, `portMappings.protocol: "sctp"`},
		{"port", portMapping{HostPort: 70000, ContainerPort: 80, Protocol: "tcp"}, 7, "hostPort: 70000"},
		{"address", portMapping{HostPort: 8080, ContainerPort: 80, Protocol: "tcp", HostIP: "node-1"}, 7, `hostIP: "node-1"`},
	} {
		_, err := r.add(r.mapped(tt.name, tt.mapping))
		wantCode(t, err, tt.code, tt.words)
	}
	if got := left(t, r.node); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}
