package manifest

import (
	"bytes"
	"cmp"
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

// maxNested bounds lists within lists.
const maxNested = 4

// object adds an object, or those of a list. Other kinds are named in a warning.
func (s *Set) object(file string, n *yaml.Node, depth int) error {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		return &Error{File: file, Line: n.Line, Problem: "this is no Kubernetes object; it begins with apiVersion and kind"}
	}
	version, name := scalar(field(n, "apiVersion")), scalar(field(n, "kind"))
	k := kindNamed(name)
	switch {
	case name == "":
		return &Error{File: file, Line: n.Line, Field: "kind", Problem: "an object says its kind, for example kind: Pod"}
	case version == "":
		return &Error{File: file, Line: n.Line, Field: "apiVersion", Problem: "an object says its version, for example apiVersion: v1"}
	case k != nil && version == k.version:
		return s.decode(file, n, k)
	case k != nil && !foreign(version):
		return &Error{File: file, Line: field(n, "apiVersion").Line, Field: "apiVersion", Problem: fmt.Sprintf("a %s is of %s, not of %s", name, k.version, version)}
	case strings.HasSuffix(name, "List") && (name == "List" || kindNamed(strings.TrimSuffix(name, "List")) != nil):
		return s.list(file, n, depth)
	case knownKinds[version] != nil && !slices.Contains(knownKinds[version], strings.TrimSuffix(name, "List")):
		return &Error{File: file, Line: field(n, "kind").Line, Field: "kind", Problem: fmt.Sprintf("Kubernetes has no %s in %s; %s", name, version, meant(name))}
	}
	if !slices.Contains(s.others, name) {
		s.others = append(s.others, name)
	}
	why := "the playground runs " + kindsWords
	if told := leftOut[name]; told != "" {
		why = told
	}
	s.warn("kind "+name, "%s, line %d: kind %s is left out: %s", file, n.Line, name, why)
	return nil
}

// foreign reports whether a version is of a group that is not Kubernetes' own: there a kind of the same name is another one.
func foreign(version string) bool {
	group, _, grouped := strings.Cut(version, "/")
	return grouped && strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io")
}

// meant names the kind that was probably meant.
func meant(name string) string {
	for _, k := range kinds {
		if strings.EqualFold(k.name, name) || strings.EqualFold(k.name+"s", name) {
			return fmt.Sprintf("write %s for a %s, of %s", k.name, word(k.name), k.version)
		}
	}
	return "the playground runs " + kindsWords
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

func (s *Set) decode(file string, n *yaml.Node, k *kind) error {
	o := k.make()
	*o.place() = Place{File: file, line: n.Line, lines: map[string]int{}}
	d := &decoder{set: s, kind: k, place: o.place()}
	tree, err := d.value(n, k.typ(), "", "")
	if err != nil {
		return err
	}
	b, err := json.Marshal(tree)
	if err != nil {
		return fmt.Errorf("%s, line %d: %w", file, n.Line, err)
	}
	if err := json.Unmarshal(b, reflect.ValueOf(o).Elem().Field(0).Addr().Interface()); err != nil {
		return &Error{File: file, Line: n.Line, Problem: err.Error()}
	}
	if o.GetNamespace() == "" && k.name != "Namespace" {
		o.SetNamespace(s.namespace())
	}
	o.setDefaults()
	if err := o.check(); err != nil {
		return err
	}
	s.warnOf(o)
	return s.add(o)
}

// namespace is that of objects which name none.
func (s *Set) namespace() string { return cmp.Or(s.Namespace, metav1.NamespaceDefault) }

// warnOf tells what an object wishes for that is otherwise here, beside what the tables of fields say.
func (s *Set) warnOf(o Object) {
	switch o := o.(type) {
	case *Pod:
		s.warnOfGraces(o)
		s.warnOfHostPorts(o)
	case *Deployment:
		s.warnOfGraces(o.Instance(o.Name))
		s.warnOfHostPorts(o.Instance(o.Name))
	case *Service:
		s.warnOfOutside(o)
	case *EndpointSlice:
		s.warnOfService(o)
	}
}

// warnOfGraces tells of grace periods that are cut to MaxGrace.
func (s *Set) warnOfGraces(p *Pod) {
	tell := func(subject, at string, grace *int64) {
		if grace != nil && *grace > MaxGrace {
			at = join(p.within, at+".terminationGracePeriodSeconds")
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

// add refuses a second object of one name.
func (s *Set) add(o Object) error {
	if s.named == nil {
		s.named = map[string]Object{}
	}
	if other := s.named[ID(o)]; other != nil {
		return doubled(o, other)
	}
	s.named[ID(o)] = o
	s.Objects = append(s.Objects, o)
	return nil
}

// doubled returns the error of an object that another file, or another part of the file, has already.
func doubled(o, other Object) error {
	kind, key, _ := strings.Cut(ID(o), " ")
	file, line := FileOf(other)
	return o.Errorf("metadata.name", "%s is the %s of %s, line %d, already; give this one another name", key, word(kind), file, line)
}

func (p *Pod) setDefaults() {
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
