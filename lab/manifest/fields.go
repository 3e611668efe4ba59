package manifest

// honouredFields are the fields of a pod, by their paths without numbers, of which nothing needs to be said: true are those
// that the playground honours, with those below them as they stand here; false those that wish for nothing (what a server wrote
// there, and what is for people) or for what is so here anyway. All others are named in a warning.
var honouredFields = map[string]bool{
	"apiVersion": true, "kind": true, "metadata": true, "spec": true,
	"status": false,

	"metadata.name": true, "metadata.namespace": true, "metadata.labels": false, "metadata.annotations": false,
	"metadata.uid": false, "metadata.resourceVersion": false, "metadata.creationTimestamp": false, "metadata.generation": false,
	"metadata.managedFields": false, "metadata.selfLink": false,

	"spec.nodeName": true, "spec.hostNetwork": true, "spec.restartPolicy": true, "spec.terminationGracePeriodSeconds": true,
	"spec.containers": true, "spec.schedulerName": false, "spec.enableServiceLinks": false,

	"spec.containers.name": true, "spec.containers.command": true, "spec.containers.args": true, "spec.containers.workingDir": true,
	"spec.containers.env": true, "spec.containers.env.name": true, "spec.containers.env.value": true,
	"spec.containers.env.valueFrom": true, "spec.containers.env.valueFrom.fieldRef": true,
	"spec.containers.env.valueFrom.fieldRef.apiVersion": true, "spec.containers.env.valueFrom.fieldRef.fieldPath": true,
	// The host's files stand in for every image.
	"spec.containers.image": false, "spec.containers.imagePullPolicy": false,
	// Every port is open, named or not.
	"spec.containers.ports": false,
}
