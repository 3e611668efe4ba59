package playground

import (
	"fmt"
	"io"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// text prints what happens, a line each.
type text struct {
	mu    sync.Mutex
	w     io.Writer
	color bool
	names int // width of the pods' column
}

// Escape sequences of ECMA-48.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
)

func (t *text) paint(style, s string) string {
	if !t.color {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

// An error of writing is the terminal's: there is nobody left to tell.
func (t *text) printf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintf(t.w, format, args...)
}

func (t *text) intro(c *Cluster) {
	pods := podsOf(c.control.Instances())
	for _, p := range pods {
		t.names = max(t.names, len(p.Key()))
	}
	for _, w := range c.config.Pods.Warnings {
		t.warning(w)
	}
	t.printf("%s, %s; state in %s\n", t.paint(bold, plural(c.config.Nodes, "node")), plural(len(pods), "pod"), c.dir.path)
}

func (t *text) warning(w string) { t.printf("%s %s\n", t.paint(red, "warning:"), w) }

// mistake prints what is wrong with a file of manifests while the cluster runs.
func (t *text) mistake(m string) {
	t.printf("%s %s (what it held before stays in force)\n", t.paint(red, "mistake:"), m)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// nodes prints the nodes, which answer by now.
func (t *text) nodes(c *Cluster) error {
	for _, n := range c.nodes {
		s := n.Status()
		if !s.Ready {
			return fmt.Errorf("%s: %s", s.Name, s.Message)
		}
		t.printf("  %s %-16s %-14s MTU %d, pods in %s  %s\n", t.paint(green, "node"), s.Name, words(s.Addresses), s.MTU, words(s.PodCIDRs),
			t.paint(faint, fmt.Sprintf("pid %d", s.PID)))
	}
	t.printf("  joined by %s\n", c.Underlay())
	return nil
}

// pod prints a pod with its phase.
func (t *text) pod(s PodStatus) {
	style := green
	if s.Phase == corev1.PodFailed || s.Reason() != "" {
		style = red
	}
	line := fmt.Sprintf("  %s  %-*s  %-7s  %-9s  %s", t.paint(style, "pod"), t.names, s.Namespace+"/"+s.Name, s.Node, s.Phase, words(s.IPs))
	if reason := s.Reason(); reason != "" {
		line += "  " + t.paint(red, reason)
	}
	t.printf("%s\n", strings.TrimRight(line, " "))
}

// event prints what happened to a node or pod.
func (t *text) event(who, what string) { t.printf("  %s: %s\n", who, what) }

// words joins values by blanks.
func words[T fmt.Stringer](values []T) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = v.String()
	}
	return strings.Join(all, " ")
}
