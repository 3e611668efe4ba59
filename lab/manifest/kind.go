package manifest

import (
	"reflect"
	"slices"
	"strings"
)

// kind is a kind that is read.
type kind struct {
	name, version string // Deployment, apps/v1
	make          func() Object
	fields        map[string]treatment
	// pod is the path of a pod's metadata and spec in it; "-" if it has none.
	pod string
}

// kinds are those that are read.
var kinds = []*kind{
	{"Pod", "v1", func() Object { return &Pod{} }, podFields, ""},
	{"Deployment", "apps/v1", func() Object { return &Deployment{} }, deploymentFields, templatePath},
	{"Service", "v1", func() Object { return &Service{} }, serviceFields, "-"},
	{"EndpointSlice", "discovery.k8s.io/v1", func() Object { return &EndpointSlice{} }, endpointSliceFields, "-"},
	{"Namespace", "v1", func() Object { return &Namespace{} }, namespaceFields, "-"},
}

// kindsWords names them for a person.
const kindsWords = "Pods, Deployments, Services, EndpointSlices and Namespaces"

func kindNamed(name string) *kind {
	i := slices.IndexFunc(kinds, func(k *kind) bool { return k.name == name })
	if i < 0 {
		return nil
	}
	return kinds[i]
}

// typ is the type of the API that an object of the kind embeds.
func (k *kind) typ() reflect.Type {
	return reflect.TypeOf(k.make()).Elem().Field(0).Type
}

// podPattern returns what a pattern is in a Pod, "-" if it is none of a pod's.
func (k *kind) podPattern(pattern string) string {
	rest, ok := strings.CutPrefix(pattern, k.pod)
	if k.pod == "" {
		return pattern
	}
	if rest = strings.TrimPrefix(rest, "."); !ok || rest == "" {
		return "-"
	}
	return rest
}

// subject is that of a warning about a field. What is so in pods is so in those of a Deployment, and is told once.
func (k *kind) subject(pattern string) string {
	if p := k.podPattern(pattern); p != "-" {
		return p
	}
	return k.name + " " + pattern
}

// Kubernetes' own kinds by their versions, https://kubernetes.io/docs/reference/kubernetes-api/. A word that is none of them is a slip,
// which is not to remove what runs.
var knownKinds = map[string][]string{
	"v1": {
		"Binding", "ComponentStatus", "ConfigMap", "Endpoints", "Event", "LimitRange", "Namespace", "Node", "PersistentVolume",
		"PersistentVolumeClaim", "Pod", "PodTemplate", "ReplicationController", "ResourceQuota", "Secret", "Service", "ServiceAccount",
	},
	"apps/v1":              {"ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"},
	"batch/v1":             {"CronJob", "Job"},
	"discovery.k8s.io/v1":  {"EndpointSlice"},
	"networking.k8s.io/v1": {"Ingress", "IngressClass", "IPAddress", "NetworkPolicy", "ServiceCIDR"},
}

// realCluster is where to go with what the playground does not run.
const realCluster = "a real cluster runs it, for example one made by kind or k3s with middleway as its network"

// leftOut says of kinds that are left out what is so in their place.
var leftOut = map[string]string{
	"StatefulSet":             realCluster,
	"DaemonSet":               realCluster,
	"Job":                     realCluster,
	"CronJob":                 realCluster,
	"ReplicaSet":              "a Deployment makes its own; " + realCluster,
	"ReplicationController":   "write a Deployment; " + realCluster,
	"PodTemplate":             "nothing would use it",
	"Endpoints":               "write an EndpointSlice, which has taken its place",
	"ConfigMap":               "nothing is read from it; give a container its variables by value, and files by commands",
	"Secret":                  "nothing is read from it; give a container its variables by value, and files by commands",
	"Ingress":                 "nothing comes in from outside yet",
	"IngressClass":            "nothing comes in from outside yet",
	"Gateway":                 "nothing comes in from outside yet",
	"GatewayClass":            "nothing comes in from outside yet",
	"HTTPRoute":               "nothing comes in from outside yet",
	"NetworkPolicy":           "every pod reaches every other one",
	"Node":                    "--nodes says how many there are",
	"ServiceAccount":          "there is no API server to which it would open the door",
	"Role":                    "there is no API server whose rights it would bound",
	"RoleBinding":             "there is no API server whose rights it would bound",
	"ClusterRole":             "there is no API server whose rights it would bound",
	"ClusterRoleBinding":      "there is no API server whose rights it would bound",
	"PersistentVolume":        noVolumes,
	"PersistentVolumeClaim":   noVolumes,
	"StorageClass":            noVolumes,
	"LimitRange":              noResources,
	"ResourceQuota":           noResources,
	"PodDisruptionBudget":     "nothing is evicted",
	"HorizontalPodAutoscaler": "replicas of a Deployment say how many pods there are, and middleway scale changes that",
}
