package manifest

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
)

// templatePath is where the pods of a Deployment are described.
const templatePath = "spec.template"

// deploymentFields are those of a Deployment. Those of the template are those of a pod.
var deploymentFields = metadataFields(map[string]treatment{
	"spec": honoured, "status": ignored(byServer),
	"spec.replicas": honoured, "spec.minReadySeconds": honoured, "spec.revisionHistoryLimit": honoured, "spec.paused": honoured,
	"spec.progressDeadlineSeconds": honoured,
	"spec.selector":                honoured, "spec.selector.matchLabels": honoured, "spec.selector.matchExpressions": honoured,
	"spec.selector.matchExpressions.key": honoured, "spec.selector.matchExpressions.operator": honoured, "spec.selector.matchExpressions.values": honoured,
	"spec.strategy": honoured, "spec.strategy.type": honoured, "spec.strategy.rollingUpdate": honoured,
	"spec.strategy.rollingUpdate.maxSurge": honoured, "spec.strategy.rollingUpdate.maxUnavailable": honoured,
	"spec.template":                    honoured,
	"spec.template.metadata.name":      ignored("the pods' names are made of the Deployment's"),
	"spec.template.metadata.namespace": ignored("the pods are in the Deployment's namespace"),
})

// setDefaults fills in what Kubernetes does (SetDefaults_Deployment in pkg/apis/apps/v1/defaults.go).
func (d *Deployment) setDefaults() {
	spec := &d.Spec
	if spec.Replicas == nil {
		spec.Replicas = new(int32(1))
	}
	if spec.RevisionHistoryLimit == nil {
		spec.RevisionHistoryLimit = new(int32(10))
	}
	if spec.ProgressDeadlineSeconds == nil {
		spec.ProgressDeadlineSeconds = new(int32(600))
	}
	if spec.Strategy.Type == "" {
		spec.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		if spec.Strategy.RollingUpdate == nil {
			spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		quarter := intstr.FromString("25%")
		if spec.Strategy.RollingUpdate.MaxUnavailable == nil {
			spec.Strategy.RollingUpdate.MaxUnavailable = &quarter
		}
		if spec.Strategy.RollingUpdate.MaxSurge == nil {
			spec.Strategy.RollingUpdate.MaxSurge = &quarter
		}
	}
	p := d.Instance(d.Name)
	p.setDefaults()
	spec.Template.Spec = p.Spec
}

// Instance returns a pod as the Deployment describes it. Errors about it have the Deployment's lines.
func (d *Deployment) Instance(name string) *Pod {
	template := d.Spec.Template.DeepCopy()
	p := &Pod{Place: d.Place}
	p.within = templatePath
	p.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	p.Name, p.Namespace, p.Labels, p.Annotations = name, d.Namespace, template.Labels, template.Annotations
	p.Spec = template.Spec
	return p
}

// check follows ValidateDeployment of pkg/apis/apps/validation.
func (d *Deployment) check() error {
	for _, check := range []func() error{
		func() error { return checkMetadata(d, validation.IsDNS1123Subdomain, subdomainWords) },
		d.checkNumbers, d.checkStrategy, d.checkSelector, d.Instance(d.Name).check,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	if p := d.Spec.Template.Spec.RestartPolicy; p != corev1.RestartPolicyAlways {
		return d.Errorf("spec.template.spec.restartPolicy", "pods of a Deployment start again whenever they end: want Always, not %s", p)
	}
	return nil
}

func (d *Deployment) checkNumbers() error {
	for _, n := range []struct {
		field string
		value int32
	}{
		{"spec.replicas", *d.Spec.Replicas}, {"spec.minReadySeconds", d.Spec.MinReadySeconds},
		{"spec.revisionHistoryLimit", *d.Spec.RevisionHistoryLimit}, {"spec.progressDeadlineSeconds", *d.Spec.ProgressDeadlineSeconds},
	} {
		if n.value < 0 {
			return d.Errorf(n.field, "%d is less than 0", n.value)
		}
	}
	if *d.Spec.ProgressDeadlineSeconds <= d.Spec.MinReadySeconds {
		return d.Errorf("spec.progressDeadlineSeconds", "%d is not more than minReadySeconds, which is %d", *d.Spec.ProgressDeadlineSeconds, d.Spec.MinReadySeconds)
	}
	return nil
}

func (d *Deployment) checkStrategy() error {
	s := &d.Spec.Strategy
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return d.Errorf("spec.strategy.rollingUpdate", "type Recreate has none; remove it")
		}
		return nil
	case appsv1.RollingUpdateDeploymentStrategyType:
	default:
		return d.Errorf("spec.strategy.type", "%q is none; want RollingUpdate or Recreate", s.Type)
	}
	var sum int
	for _, f := range []struct {
		field string
		value *intstr.IntOrString
		most  int // percent; 0: no bound
	}{{"maxUnavailable", s.RollingUpdate.MaxUnavailable, 100}, {"maxSurge", s.RollingUpdate.MaxSurge, 0}} {
		at := "spec.strategy.rollingUpdate." + f.field
		n, err := intstr.GetScaledValueFromIntOrPercent(f.value, 100, true)
		switch {
		case err != nil || n < 0:
			return d.Errorf(at, "%q: want a number of pods, or a part of them, for example 25%%", f.value)
		case f.most > 0 && f.value.Type == intstr.String && n > f.most:
			return d.Errorf(at, "%s is more than all", f.value)
		}
		sum += n
	}
	if sum == 0 {
		return d.Errorf("spec.strategy.rollingUpdate.maxUnavailable", "0, as maxSurge is, lets no pod be replaced; raise one of them")
	}
	return nil
}

func (d *Deployment) checkSelector() error {
	s := d.Spec.Selector
	if s == nil || len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return d.Errorf("spec.selector", "say which pods are the Deployment's, for example matchLabels: {app: %s}", d.Name)
	}
	if err := checkSelector(d, "spec.selector", s); err != nil {
		return err
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return d.Errorf("spec.selector", "%v", err)
	}
	if own := d.Spec.Template.Labels; !selector.Matches(labels.Set(own)) {
		return d.Errorf("spec.template.metadata.labels", "the selector, %s, does not choose these pods; give them its labels", selector)
	}
	return nil
}
