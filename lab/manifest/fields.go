package manifest

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// treatment says what becomes of a field of a pod.
type treatment struct {
	honoured bool   // with those below it, as far as they are honoured themselves
	warning  string // of a field that is not honoured: what is so in its place, or what to do; "" says nothing about the field
}

// honoured is what the playground does as Kubernetes does it.
var honoured = treatment{honoured: true}

// ignored is of what wishes for nothing: what a server wrote, what is for people or other programs, and what is so here anyway.
// The reason is for who reads the table.
func ignored(_ string) treatment { return treatment{} }

// warned is of what the playground does otherwise than Kubernetes; instead goes on with the sentence "… is not honoured here".
func warned(instead string) treatment { return treatment{warning: instead} }

// What several fields have in common.
const (
	byServer    = "a server wrote it"
	forOthers   = "it is for people and other programs"
	noResources = "nothing is measured or bounded here"
	noVolumes   = "a container finds this machine's files"
	noSecurity  = "a container has the rights of the user who called up"
	noPlacement = "spec.nodeName chooses a node"
	noStdin     = "a container's standard input is empty; middleway exec hands one over"
)

// fields are those of a pod, by their paths without numbers. Each field of Kubernetes' types that lies below honoured ones is
// here, as a test checks. Those of spec.initContainers are those of spec.containers.
var fields = map[string]treatment{
	"apiVersion": honoured, "kind": honoured, "metadata": honoured, "spec": honoured,
	"status": ignored(byServer),

	"metadata.name": honoured, "metadata.namespace": honoured,
	"metadata.labels": ignored(forOthers), "metadata.annotations": ignored(forOthers),
	"metadata.uid": ignored(byServer), "metadata.resourceVersion": ignored(byServer), "metadata.creationTimestamp": ignored(byServer),
	"metadata.generation": ignored(byServer), "metadata.managedFields": ignored(byServer), "metadata.selfLink": ignored(byServer),
	"metadata.generateName": ignored(byServer), "metadata.ownerReferences": ignored(byServer),
	"metadata.deletionTimestamp":          warned("a pod is deleted by removing its manifest"),
	"metadata.deletionGracePeriodSeconds": warned("spec.terminationGracePeriodSeconds is the time that a pod has"),
	"metadata.finalizers":                 warned("a pod is deleted at once"),

	"spec.nodeName": honoured, "spec.hostNetwork": honoured, "spec.restartPolicy": honoured, "spec.terminationGracePeriodSeconds": honoured,
	"spec.containers": honoured, "spec.serviceAccountName": honoured,
	"spec.initContainers":     ignored("it is an error"),
	"spec.schedulerName":      ignored("there is one scheduler"),
	"spec.enableServiceLinks": ignored("there are no services whose variables could be there"),
	"spec.serviceAccount":     ignored(byServer), "spec.preemptionPolicy": ignored("nothing is preempted"),
	"spec.tolerations": ignored("no node has a taint"), "spec.priority": ignored("nothing is preempted"),
	"spec.activeDeadlineSeconds":        warned("a pod has no deadline; `timeout` in a container's command sets one"),
	"spec.affinity":                     warned(noPlacement),
	"spec.automountServiceAccountToken": warned("there is no API server to which a token would open the door"),
	"spec.dnsConfig":                    warned("/etc/resolv.conf is this machine's"),
	"spec.dnsPolicy":                    warned("/etc/resolv.conf is this machine's"),
	"spec.ephemeralContainers":          warned("middleway exec runs what is to be looked with"),
	"spec.evictionResponders":           warned("nothing is evicted"),
	"spec.hostAliases":                  warned("/etc/hosts is this machine's"),
	"spec.hostIPC":                      warned("System V IPC is this machine's for every pod"),
	"spec.hostPID":                      warned("every container has a PID namespace of its own"),
	"spec.hostUsers":                    warned("all pods are in the user namespace of the cluster"),
	"spec.hostname":                     warned("hostname is this machine's"),
	"spec.hostnameOverride":             warned("hostname is this machine's"),
	"spec.imagePullSecrets":             warned("no image is pulled"),
	"spec.nodeSelector":                 warned(noPlacement),
	"spec.os":                           warned("a pod runs on this machine's Linux"),
	"spec.overhead":                     warned(noResources),
	"spec.priorityClassName":            warned("nothing is preempted"),
	"spec.readinessGates":               warned("nobody would open them"),
	"spec.resourceClaims":               warned(noResources),
	"spec.resources":                    warned(noResources),
	"spec.runtimeClassName":             warned("there is one way of running a pod"),
	"spec.schedulingGates":              warned("nobody would open them"),
	"spec.schedulingGroup":              warned("pods are started one by one"),
	"spec.securityContext":              warned(noSecurity),
	"spec.setHostnameAsFQDN":            warned("hostname is this machine's"),
	"spec.shareProcessNamespace":        warned("every container has a PID namespace of its own"),
	"spec.subdomain":                    warned("pods have no names in DNS"),
	"spec.topologySpreadConstraints":    warned(noPlacement),
	"spec.volumes":                      warned(noVolumes),

	"spec.containers.name": honoured, "spec.containers.command": honoured, "spec.containers.args": honoured, "spec.containers.workingDir": honoured,
	"spec.containers.env": honoured, "spec.containers.env.name": honoured, "spec.containers.env.value": honoured,
	"spec.containers.env.valueFrom": honoured, "spec.containers.env.valueFrom.fieldRef": honoured,
	"spec.containers.env.valueFrom.fieldRef.apiVersion": honoured, "spec.containers.env.valueFrom.fieldRef.fieldPath": honoured,
	"spec.containers.env.valueFrom.resourceFieldRef": warned(noResources + ", and the variable is left out"),
	"spec.containers.env.valueFrom.configMapKeyRef":  warned("there are no ConfigMaps, and the variable is left out; give it a value"),
	"spec.containers.env.valueFrom.secretKeyRef":     warned("there are no Secrets, and the variable is left out; give it a value"),
	"spec.containers.env.valueFrom.fileKeyRef":       warned("there are no volumes, and the variable is left out; give it a value"),
	"spec.containers.envFrom":                        warned("there are neither ConfigMaps nor Secrets; name the variables in env"),
	"spec.containers.image":                          ignored("this machine's files stand in for every image"),
	"spec.containers.imagePullPolicy":                ignored("no image is pulled"),
	"spec.containers.lifecycle":                      warned("a container begins and ends without hooks"),
	"spec.containers.livenessProbe":                  warned("a container is well as long as it runs"),
	"spec.containers.ports":                          ignored("every port is open, named or not"),
	"spec.containers.readinessProbe":                 warned("a container is well as long as it runs"),
	"spec.containers.resizePolicy":                   warned(noResources),
	"spec.containers.resources":                      warned(noResources),
	"spec.containers.restartPolicy":                  warned("spec.restartPolicy is that of all containers"),
	"spec.containers.restartPolicyRules":             warned("spec.restartPolicy is that of all containers"),
	"spec.containers.securityContext":                warned(noSecurity),
	"spec.containers.startupProbe":                   warned("a container is well as long as it runs"),
	"spec.containers.stdin":                          warned(noStdin),
	"spec.containers.stdinOnce":                      warned(noStdin),
	"spec.containers.terminationMessagePath":         ignored("the end of a container's output is its message"),
	"spec.containers.terminationMessagePolicy":       ignored("the end of a container's output is its message"),
	"spec.containers.tty":                            warned("a container writes to a pipe; middleway exec at a terminal has one"),
	"spec.containers.volumeDevices":                  warned(noVolumes),
	"spec.containers.volumeMounts":                   warned(noVolumes),
}

// treatmentOf returns what becomes of a field.
func treatmentOf(pattern string) (treatment, bool) {
	if rest, ok := strings.CutPrefix(pattern, "spec.initContainers."); ok {
		pattern = "spec.containers." + rest
	}
	t, ok := fields[pattern]
	return t, ok
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
