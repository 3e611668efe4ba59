package manifest

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// metadataFields are those of every kind but Pod, whose deletion is told of otherwise.
func metadataFields(fields map[string]treatment) map[string]treatment {
	maps.Copy(fields, map[string]treatment{
		"apiVersion": honoured, "kind": honoured, "metadata": honoured,
		"metadata.name": honoured, "metadata.namespace": honoured,
		"metadata.labels": honoured, "metadata.annotations": honoured,
		"metadata.uid": ignored(byServer), "metadata.resourceVersion": ignored(byServer), "metadata.creationTimestamp": ignored(byServer),
		"metadata.generation": ignored(byServer), "metadata.managedFields": ignored(byServer), "metadata.selfLink": ignored(byServer),
		"metadata.generateName": ignored(byServer), "metadata.ownerReferences": ignored(byServer),
		"metadata.deletionTimestamp":          warned("an object is deleted by removing its manifest"),
		"metadata.deletionGracePeriodSeconds": warned("an object is deleted by removing its manifest"),
		"metadata.finalizers":                 warned("an object is deleted at once"),
	})
	return fields
}

// checkMetadata checks what all objects have. valid is the rule for names, wording it for a person.
func checkMetadata(o Object, valid func(string) []string, wording string) error {
	kind := o.GetObjectKind().GroupVersionKind().Kind
	switch {
	case o.GetName() == "":
		return o.Errorf("metadata.name", "a %s needs a name, for example web", word(kind))
	case valid(o.GetName()) != nil:
		return o.Errorf("metadata.name", "%q is no name for a %s; take at most %s", o.GetName(), word(kind), wording)
	case kind == "Namespace" && o.GetNamespace() != "":
		return o.Errorf("metadata.namespace", "a namespace lies in none; remove the field")
	case kind != "Namespace" && validation.IsDNS1123Label(o.GetNamespace()) != nil:
		return o.Errorf("metadata.namespace", "%q is no name for a namespace; take at most 63 %s, for example prod", o.GetNamespace(), labelLetters)
	}
	return checkLabels(o, "metadata.labels", o.GetLabels())
}

// Words for the rules of names.
const (
	subdomainWords = "253 " + labelLetters + " and dots, for example web-1"
	labelWords     = "63 " + labelLetters + ", for example web-1"
)

// checkLabels checks labels, or a selector that is one of equalities.
func checkLabels(o Object, at string, labels map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if validation.IsQualifiedName(key) != nil {
			return o.Errorf(join(at, key), "%q is no key of a label; take at most 63 letters, digits, -, _ and dots, for example app", key)
		}
		if validation.IsValidLabelValue(labels[key]) != nil {
			return o.Errorf(join(at, key), "%q is no value of a label; take at most 63 letters, digits, -, _ and dots, for example web", labels[key])
		}
	}
	return nil
}

// checkSelector checks a selector of sets.
func checkSelector(o Object, at string, s *metav1.LabelSelector) error {
	if err := checkLabels(o, at+".matchLabels", s.MatchLabels); err != nil {
		return err
	}
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		return o.Errorf(at+".matchExpressions", "%v", err)
	}
	return nil
}
