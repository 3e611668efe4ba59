package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// yamlLine is how the YAML library tells the line of a syntax error.
var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// parse adds the pods of a file.
func (s *Set) parse(file string, b []byte) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	for {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return syntaxError(file, b, err)
		}
		if len(n.Content) == 1 && !isNull(n.Content[0]) { // else a document without content
			if err := s.object(file, n.Content[0], 0); err != nil {
				return err
			}
		}
	}
}

// firstOdd returns where the first byte stands that is no text, the cause of an error without a line; 0 if all is text.
func firstOdd(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 || unicode.IsControl(r) && !strings.ContainsRune("\t\n\r\u0085", r) {
			return i
		}
		i += n
	}
	return 0
}

func syntaxError(file string, b []byte, err error) error {
	e := &Error{File: file, Problem: strings.TrimPrefix(err.Error(), "yaml: ")}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		e.Line, _ = strconv.Atoi(m[1]) // digits
		e.Problem = m[2]
	} else {
		e.Line = 1 + bytes.Count(b[:firstOdd(b)], []byte("\n"))
	}
	e.Problem = "this is no YAML or JSON: " + e.Problem
	return e
}

// coreKinds are the kinds of the version v1 besides Pod, https://kubernetes.io/docs/reference/kubernetes-api/. A word that is none of
// them is a slip, which is not to remove the pod that it was.
var coreKinds = []string{
	"Binding", "ComponentStatus", "ConfigMap", "Endpoints", "Event", "LimitRange", "Namespace", "Node", "PersistentVolume",
	"PersistentVolumeClaim", "PodTemplate", "ReplicationController", "ResourceQuota", "Secret", "Service", "ServiceAccount",
}

// maxNested bounds lists within lists.
const maxNested = 4

// object adds a pod, or the pods of a list. Other kinds are named in a warning.
func (s *Set) object(file string, n *yaml.Node, depth int) error {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		return &Error{File: file, Line: n.Line, Problem: "this is no Kubernetes object; it begins with apiVersion and kind"}
	}
	version, kind := scalar(field(n, "apiVersion")), scalar(field(n, "kind"))
	switch {
	case kind == "":
		return &Error{File: file, Line: n.Line, Field: "kind", Problem: "an object says its kind, for example kind: Pod"}
	case version == "":
		return &Error{File: file, Line: n.Line, Field: "apiVersion", Problem: "an object says its version, for example apiVersion: v1"}
	case kind == "Pod" && version != "v1":
		return &Error{File: file, Line: field(n, "apiVersion").Line, Field: "apiVersion", Problem: fmt.Sprintf("a Pod is of v1, not of %s", version)}
	case kind == "Pod":
		return s.pod(file, n)
	case kind == "List" || kind == "PodList":
		return s.list(file, n, depth)
	case version == "v1" && !slices.Contains(coreKinds, strings.TrimSuffix(kind, "List")):
		return &Error{File: file, Line: field(n, "kind").Line, Field: "kind", Problem: fmt.Sprintf("Kubernetes has no %s in v1; write Pod for a pod", kind)}
	}
	if !slices.Contains(s.others, kind) {
		s.others = append(s.others, kind)
	}
	s.warn("kind "+kind, "%s, line %d: kind %s is left out; only pods are run", file, n.Line, kind)
	return nil
}

func (s *Set) list(file string, n *yaml.Node, depth int) error {
	if depth == maxNested {
		return &Error{File: file, Line: n.Line, Field: "items", Problem: "lists are nested too deeply; take them apart"}
	}
	items := field(n, "items")
	if items == nil || isNull(items) {
		return nil
	}
	if items = target(items); items.Kind != yaml.SequenceNode {
		return &Error{File: file, Line: items.Line, Field: "items", Problem: "want a list of objects"}
	}
	for _, item := range items.Content {
		if err := s.object(file, item, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) pod(file string, n *yaml.Node) error {
	d := &decoder{set: s, pod: &Pod{File: file, line: n.Line, lines: map[string]int{}}}
	tree, err := d.value(n, reflect.TypeFor[corev1.Pod](), "", "")
	if err != nil {
		return err
	}
	b, err := json.Marshal(tree)
	if err != nil {
		return fmt.Errorf("%s, line %d: %w", file, n.Line, err)
	}
	if err := json.Unmarshal(b, &d.pod.Pod); err != nil {
		return &Error{File: file, Line: n.Line, Problem: err.Error()}
	}
	setDefaults(d.pod)
	if err := d.pod.check(); err != nil {
		return err
	}
	s.warnOfGraces(d.pod)
	return s.add(d.pod)
}

// warnOfGraces tells of grace periods that are cut to MaxGrace.
func (s *Set) warnOfGraces(p *Pod) {
	tell := func(subject, at string, grace *int64) {
		if grace != nil && *grace > MaxGrace {
			at += ".terminationGracePeriodSeconds"
			s.warn(subject+".terminationGracePeriodSeconds", "%s, line %d: %s of %d is cut to %d", p.File, p.lines[at], at, *grace, MaxGrace)
		}
	}
	ofProbes := func(list string, containers []corev1.Container) {
		for i, c := range containers {
			at := fmt.Sprintf("spec.%s[%d].", list, i)
			if c.StartupProbe != nil {
				tell("spec.containers.startupProbe", at+"startupProbe", c.StartupProbe.TerminationGracePeriodSeconds)
			}
			if c.LivenessProbe != nil {
				tell("spec.containers.livenessProbe", at+"livenessProbe", c.LivenessProbe.TerminationGracePeriodSeconds)
			}
		}
	}
	tell("spec", "spec", p.Spec.TerminationGracePeriodSeconds)
	ofProbes("initContainers", p.Spec.InitContainers)
	ofProbes("containers", p.Spec.Containers)
}

// add refuses a second pod of one name.
func (s *Set) add(p *Pod) error {
	if s.named == nil {
		s.named = map[string]*Pod{}
	}
	if other := s.named[p.Key()]; other != nil {
		return p.doubled(other)
	}
	s.named[p.Key()] = p
	s.Pods = append(s.Pods, p)
	return nil
}

// doubled returns the error of a pod that another file, or another part of the file, has already.
func (p *Pod) doubled(other *Pod) error {
	return p.Errorf("metadata.name", "%s is the pod of %s, line %d, already; give this one another name", p.Key(), other.File, other.line)
}

func setDefaults(p *Pod) {
	if p.Namespace == "" {
		p.Namespace = metav1.NamespaceDefault
	}
	if p.Spec.RestartPolicy == "" {
		p.Spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	if p.Spec.DNSPolicy == "" {
		p.Spec.DNSPolicy = corev1.DNSClusterFirst
	}
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			setContainerDefaults(&containers[i])
		}
	}
}
