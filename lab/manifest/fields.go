package manifest

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// honouredFields are the fields of a pod, by their paths without numbers, of which nothing needs to be said: true are those
// that the playground honours, with those below them as they stand here; false those that wish for nothing (what a server wrote
// there, and what is for people) or for what is so here anyway. All others are named in a warning.
var honouredFields = map[string]bool{
	"apiVersion": true, "kind": true, "metadata": true, "spec": true,
	"status": false,

	"metadata.name": true, "metadata.namespace": true, "metadata.labels": false, "metadata.annotations": false,
	"metadata.uid": false, "metadata.resourceVersion": false, "metadata.creationTimestamp": false, "metadata.generation": false,
	"metadata.managedFields": false, "metadata.selfLink": false, "metadata.generateName": false, "metadata.ownerReferences": false,

	"spec.nodeName": true, "spec.hostNetwork": true, "spec.restartPolicy": true, "spec.terminationGracePeriodSeconds": true,
	"spec.containers": true, "spec.schedulerName": false, "spec.enableServiceLinks": false,
	"spec.serviceAccount": false, "spec.serviceAccountName": true, "spec.tolerations": false, "spec.priority": false,
	"spec.preemptionPolicy": false,
	// An error.
	"spec.initContainers": false,

	"spec.containers.name": true, "spec.containers.command": true, "spec.containers.args": true, "spec.containers.workingDir": true,
	"spec.containers.env": true, "spec.containers.env.name": true, "spec.containers.env.value": true,
	"spec.containers.env.valueFrom": true, "spec.containers.env.valueFrom.fieldRef": true,
	"spec.containers.env.valueFrom.fieldRef.apiVersion": true, "spec.containers.env.valueFrom.fieldRef.fieldPath": true,
	// The host's files stand in for every image.
	"spec.containers.image": false, "spec.containers.imagePullPolicy": false,
	"spec.containers.terminationMessagePath": false, "spec.containers.terminationMessagePolicy": false,
	// Every port is open, named or not.
	"spec.containers.ports": false,
}

// serverValues are what an API server writes into fields that nobody has set. They wish for nothing either.
var serverValues = map[string]string{"spec.dnsPolicy": "ClusterFirst"}

// tokenPrefix begins the name of the volume that an API server adds to every pod, and of its mounts.
const tokenPrefix = "kube-api-access-"

// wishless reports whether a value asks for nothing: it is empty, or an API server's own.
func wishless(pattern string, n *yaml.Node) bool {
	switch n = target(n); n.Kind {
	case yaml.ScalarNode:
		return isNull(n) || n.Value == serverValues[pattern] && n.Value != ""
	case yaml.MappingNode:
		return len(n.Content) == 0
	case yaml.SequenceNode:
		return !slices.ContainsFunc(n.Content, func(item *yaml.Node) bool {
			item = target(item)
			return item.Kind != yaml.MappingNode || !strings.HasPrefix(scalar(field(item, "name")), tokenPrefix)
		})
	}
	return false
}
