package manifest

import (
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
	noVolumes   = "a container finds this machine's files; emptyDir is honoured"
	oneProtocol = "HTTP/1.1 and gRPC without TLS are spoken"
	noSecurity  = "a container has the rights of the user who called up"
	noPlacement = "spec.nodeName chooses a node"
	noStdin     = "a container's standard input is empty; middleway exec hands one over"
)

// podFields are those of a pod, by their paths without numbers. Each field of Kubernetes' types that lies below honoured ones is
// here, as a test checks. Those of spec.initContainers are those of spec.containers.
var podFields = map[string]treatment{
	"apiVersion": honoured, "kind": honoured, "metadata": honoured, "spec": honoured,
	"status": ignored(byServer),

	"metadata.name": honoured, "metadata.namespace": honoured,
	"metadata.labels": honoured, "metadata.annotations": ignored(forOthers),
	"metadata.uid": ignored(byServer), "metadata.resourceVersion": ignored(byServer), "metadata.creationTimestamp": ignored(byServer),
	"metadata.generation": ignored(byServer), "metadata.managedFields": ignored(byServer), "metadata.selfLink": ignored(byServer),
	"metadata.generateName": ignored(byServer), "metadata.ownerReferences": ignored(byServer),
	"metadata.deletionTimestamp":          warned("a pod is deleted by removing its manifest"),
	"metadata.deletionGracePeriodSeconds": warned("spec.terminationGracePeriodSeconds is the time that a pod has"),
	"metadata.finalizers":                 warned("a pod is deleted at once"),

	"spec.nodeName": honoured, "spec.hostNetwork": honoured, "spec.restartPolicy": honoured, "spec.terminationGracePeriodSeconds": honoured,
	"spec.containers": honoured, "spec.initContainers": honoured, "spec.serviceAccountName": honoured,
	"spec.hostname": honoured, "spec.hostnameOverride": honoured, "spec.subdomain": honoured, "spec.setHostnameAsFQDN": honoured,
	"spec.hostAliases": honoured, "spec.hostAliases.ip": honoured, "spec.hostAliases.hostnames": honoured,
	"spec.dnsPolicy": honoured, "spec.dnsConfig": honoured, "spec.dnsConfig.nameservers": honoured, "spec.dnsConfig.searches": honoured,
	"spec.dnsConfig.options": honoured, "spec.dnsConfig.options.name": honoured, "spec.dnsConfig.options.value": honoured,
	"spec.schedulerName":      ignored("there is one scheduler"),
	"spec.enableServiceLinks": honoured,
	"spec.serviceAccount":     ignored(byServer), "spec.preemptionPolicy": ignored("nothing is preempted"),
	"spec.tolerations": ignored("no node has a taint"), "spec.priority": ignored("nothing is preempted"),
	"spec.activeDeadlineSeconds":        warned("a pod has no deadline; `timeout` in a container's command sets one"),
	"spec.affinity":                     warned(noPlacement),
	"spec.automountServiceAccountToken": warned("there is no API server to which a token would open the door"),
	"spec.ephemeralContainers":          warned("middleway exec runs what is to be looked with"),
	"spec.evictionResponders":           warned("nothing is evicted"),
	"spec.hostIPC":                      warned("System V IPC is this machine's for every pod"),
	"spec.hostPID":                      warned("every container has a PID namespace of its own"),
	"spec.hostUsers":                    warned("all pods are in the user namespace of the cluster"),
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
	"spec.shareProcessNamespace":        warned("every container has a PID namespace of its own"),
	"spec.topologySpreadConstraints":    warned(noPlacement),

	"spec.containers.name": honoured, "spec.containers.command": honoured, "spec.containers.args": honoured, "spec.containers.image": honoured, "spec.containers.workingDir": honoured,
	"spec.containers.env": honoured, "spec.containers.env.name": honoured, "spec.containers.env.value": honoured,
	"spec.containers.env.valueFrom": honoured, "spec.containers.env.valueFrom.fieldRef": honoured,
	"spec.containers.env.valueFrom.fieldRef.apiVersion": honoured, "spec.containers.env.valueFrom.fieldRef.fieldPath": honoured,
	"spec.containers.env.valueFrom.resourceFieldRef": warned(noResources + ", and the variable is left out"),
	"spec.containers.env.valueFrom.configMapKeyRef":  warned("there are no ConfigMaps, and the variable is left out; give it a value"),
	"spec.containers.env.valueFrom.secretKeyRef":     warned("there are no Secrets, and the variable is left out; give it a value"),
	"spec.containers.env.valueFrom.fileKeyRef":       warned("no file is read for a variable, and it is left out; give it a value"),
	"spec.containers.envFrom":                        warned("there are neither ConfigMaps nor Secrets; name the variables in env"),
	"spec.containers.imagePullPolicy":                ignored("no image is pulled"),
	"spec.containers.ports":                          honoured, // every port is open, named or not
	"spec.containers.ports.name":                     honoured, "spec.containers.ports.containerPort": honoured, "spec.containers.ports.protocol": honoured,
	"spec.containers.ports.hostPort": honoured, "spec.containers.ports.hostIP": honoured,
	"spec.containers.resizePolicy":             warned(noResources),
	"spec.containers.resources":                warned(noResources),
	"spec.containers.securityContext":          warned(noSecurity),
	"spec.containers.stdin":                    warned(noStdin),
	"spec.containers.stdinOnce":                warned(noStdin),
	"spec.containers.terminationMessagePath":   ignored("the end of a container's output is its message"),
	"spec.containers.terminationMessagePolicy": ignored("the end of a container's output is its message"),
	"spec.containers.tty":                      warned("a container writes to a pipe; middleway exec at a terminal has one"),
	"spec.volumes":                             honoured, "spec.volumes.name": honoured, "spec.volumes.emptyDir": honoured,
	"spec.volumes.emptyDir.medium":    warned("the volume lies in the cluster's state directory"),
	"spec.volumes.emptyDir.sizeLimit": warned(noResources),
	"spec.volumes.emptyDir.mode":      warned("everybody may write there"),

	"spec.containers.volumeMounts": honoured, "spec.containers.volumeMounts.name": honoured, "spec.containers.volumeMounts.mountPath": honoured,
	"spec.containers.volumeMounts.readOnly": honoured, "spec.containers.volumeMounts.subPath": honoured,
	"spec.containers.volumeMounts.subPathExpr":       warned("the whole volume is mounted; subPath takes a name without variables"),
	"spec.containers.volumeMounts.mountPropagation":  warned("mounts stay in their container"),
	"spec.containers.volumeMounts.recursiveReadOnly": warned("readOnly is about the volume itself"),
	"spec.containers.volumeMounts.bindMountOptions":  warned("a mount has no options but readOnly"),

	// Those of livenessProbe and readinessProbe are the same.
	"spec.containers.startupProbe": honoured, "spec.containers.startupProbe.exec": honoured, "spec.containers.startupProbe.exec.command": honoured,
	"spec.containers.startupProbe.httpGet": honoured, "spec.containers.startupProbe.httpGet.path": honoured,
	"spec.containers.startupProbe.httpGet.port": honoured, "spec.containers.startupProbe.httpGet.host": honoured,
	"spec.containers.startupProbe.httpGet.scheme": honoured, "spec.containers.startupProbe.httpGet.httpHeaders": honoured,
	"spec.containers.startupProbe.httpGet.httpHeaders.name": honoured, "spec.containers.startupProbe.httpGet.httpHeaders.value": honoured,
	"spec.containers.startupProbe.httpGet.protocol": warned(oneProtocol),
	"spec.containers.startupProbe.tcpSocket":        honoured, "spec.containers.startupProbe.tcpSocket.port": honoured,
	"spec.containers.startupProbe.tcpSocket.host": honoured,
	"spec.containers.startupProbe.grpc":           honoured, "spec.containers.startupProbe.grpc.port": honoured, "spec.containers.startupProbe.grpc.service": honoured,
	"spec.containers.startupProbe.grpc.mode":           warned(oneProtocol),
	"spec.containers.startupProbe.initialDelaySeconds": honoured, "spec.containers.startupProbe.timeoutSeconds": honoured,
	"spec.containers.startupProbe.periodSeconds": honoured, "spec.containers.startupProbe.successThreshold": honoured,
	"spec.containers.startupProbe.failureThreshold": honoured, "spec.containers.startupProbe.terminationGracePeriodSeconds": honoured,

	// Those of postStart are the same.
	"spec.containers.lifecycle": honoured, "spec.containers.lifecycle.preStop": honoured,
	"spec.containers.lifecycle.preStop.exec": honoured, "spec.containers.lifecycle.preStop.exec.command": honoured,
	"spec.containers.lifecycle.preStop.httpGet": honoured, "spec.containers.lifecycle.preStop.httpGet.path": honoured,
	"spec.containers.lifecycle.preStop.httpGet.port": honoured, "spec.containers.lifecycle.preStop.httpGet.host": honoured,
	"spec.containers.lifecycle.preStop.httpGet.scheme": honoured, "spec.containers.lifecycle.preStop.httpGet.httpHeaders": honoured,
	"spec.containers.lifecycle.preStop.httpGet.httpHeaders.name": honoured, "spec.containers.lifecycle.preStop.httpGet.httpHeaders.value": honoured,
	"spec.containers.lifecycle.preStop.httpGet.protocol": warned(oneProtocol),
	"spec.containers.lifecycle.preStop.tcpSocket":        warned("Kubernetes has no such hook either"),
	"spec.containers.lifecycle.preStop.sleep":            honoured, "spec.containers.lifecycle.preStop.sleep.seconds": honoured,
	"spec.containers.lifecycle.stopSignal": warned("a container is asked to end by SIGTERM"),

	"spec.containers.restartPolicy":      honoured,
	"spec.containers.restartPolicyRules": warned("restartPolicy decides"),
	"spec.containers.volumeDevices":      warned(noVolumes),
}

// treatmentOf returns what becomes of a field.
func (k *kind) treatmentOf(pattern string) (treatment, bool) {
	if t, ok := k.fields[pattern]; ok {
		return t, true
	}
	if pattern = k.podPattern(pattern); pattern == "-" {
		return treatment{}, false
	}
	if rest, ok := strings.CutPrefix(pattern, "spec.initContainers."); ok {
		pattern = "spec.containers." + rest
	}
	for _, same := range []struct{ name, as string }{
		{"livenessProbe", "startupProbe"}, {"readinessProbe", "startupProbe"}, {"lifecycle.postStart", "lifecycle.preStop"},
	} {
		if rest, ok := strings.CutPrefix(pattern, "spec.containers."+same.name); ok {
			pattern = "spec.containers." + same.as + rest
		}
	}
	t, ok := podFields[pattern]
	if !ok && strings.HasPrefix(pattern, "spec.volumes.") {
		return warned(noVolumes), true
	}
	return t, ok
}

// tokenPrefix begins the name of the volume that an API server adds to every pod, and of its mounts.
const tokenPrefix = "kube-api-access-"

// isToken reports whether a volume, or a mount, is the one that an API server adds.
func isToken(pattern string, n *yaml.Node) bool {
	return (pattern == "spec.volumes" || strings.HasSuffix(pattern, ".volumeMounts")) && strings.HasPrefix(scalar(field(n, "name")), tokenPrefix)
}

// wishless reports whether a value asks for nothing: it is empty.
func wishless(n *yaml.Node) bool {
	switch n = target(n); n.Kind {
	case yaml.ScalarNode:
		return isNull(n)
	case yaml.MappingNode:
		return len(n.Content) == 0
	case yaml.SequenceNode:
		return len(n.Content) == 0
	}
	return false
}
