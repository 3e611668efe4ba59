package manifest

import "k8s.io/apimachinery/pkg/util/validation"

// namespaceFields are those of a Namespace.
var namespaceFields = metadataFields(map[string]treatment{"spec": ignored(byServer), "status": ignored(byServer)})

func (n *Namespace) setDefaults() {}

func (n *Namespace) check() error { return checkMetadata(n, validation.IsDNS1123Label, labelWords) }
