package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/cluster"
	"github.com/middleway-net/middleway/cluster/clustertest"
)

// What a command prints arrives in pieces of any size.
func TestAsk(t *testing.T) {
	type answer struct{ N int }
	for _, tt := range []struct {
		name   string
		pieces []string
		fails  error
		want   string
	}{
		{"an object a line", []string{"{\"n\": 1}\n{\"n\": 2}\n"}, nil, "[1 2]"},
		{"cut anywhere", []string{"{\"n\"", ": 1}\n{", "\n  \"n\": 2\n}", "\n"}, nil, "[1 2]"},
		{"broken off", []string{"{\"n\": 1}\n{\"n\":"}, nil, `[1] pod-1: its answer breaks off: "{\"n\":"`},
		{"no JSON", []string{"usage: tool\n"}, nil, `[] pod-1: not what this command prints: "usage: tool\n"`},
		{"failed", []string{"{\"n\": 1}\n"}, errors.New("exit code 2"), "[1] pod-1: exit code 2: middleway: no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			api := &cluster.API{Run: func(_ context.Context, c cluster.Container, _ []string, in io.Reader, out, errs io.Writer) error {
				if text, err := io.ReadAll(in); err != nil || string(text) != "\"plan\"\n" || c.Namespace != "here" {
					t.Errorf("got %q, %v, in %+v", text, err, c)
				}
				for _, piece := range tt.pieces {
					if _, err := io.WriteString(out, piece); err != nil {
						return err
					}
				}
				if tt.fails != nil {
					fmt.Fprintln(errs, "middleway: no")
				}
				return tt.fails
			}}
			var numbers []int
			err := Ask(t.Context(), &Stage{API: api, Name: "here"}, "pod-1", "tool", nil, "plan", func(a answer) { numbers = append(numbers, a.N) })
			got := fmt.Sprint(numbers)
			if err != nil {
				got += " " + err.Error()
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// The namespace lets pods have the node's network, and pods have no rights beyond that.
func TestOpen(t *testing.T) {
	s := clustertest.New(t, 1)
	stage, err := Open(t.Context(), s.API(t), "middleway-check", false)
	if err != nil {
		t.Fatal(err)
	}
	var ns corev1.Namespace
	if err := stage.API.Get(t.Context(), "/api/v1/namespaces/"+stage.Name, nil, &ns); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(ns.Name, "middleway-check-") || ns.Labels["pod-security.kubernetes.io/enforce"] != "privileged" {
		t.Errorf("got %s with %v", ns.Name, ns.Labels)
	}
	spec := Image{Reference: "middleway:test"}.PodSpec(corev1.Container{Name: "tool"})
	c := spec.Containers[0].SecurityContext
	if *spec.AutomountServiceAccountToken || !*c.RunAsNonRoot || *c.AllowPrivilegeEscalation || !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("pods have rights: %+v", c)
	}
	if err := stage.Close(t.Context()); err != nil || len(s.Names("/api/v1/namespaces")) > 0 {
		t.Errorf("%v, %q are left", err, s.Names("/api/v1/namespaces"))
	}
}

func TestDaemons(t *testing.T) {
	api := clustertest.New(t, 2).API(t)
	d, err := Daemons(t.Context(), api)
	if err != nil {
		t.Fatal(err)
	}
	image, err := ImageOf(d)
	pods, errPods := DaemonPods(t.Context(), api)
	if p := pods["node-2"]; image.Reference != "middleway:test" || p.Name != "middleway-2" || err != nil || errPods != nil {
		t.Errorf("got %+v, %v, pods %v, %v", image, err, pods, errPods)
	}
	api.Namespace = "elsewhere"
	if _, err := Daemons(t.Context(), api); !errors.Is(err, ErrNoDaemons) || !strings.Contains(err.Error(), "--image") {
		t.Errorf("got %v, want one that says what to do", err)
	}
}
