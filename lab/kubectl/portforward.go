package kubectl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/lab/control"
)

// PodRef names one pod, and none that comes after it with the same name.
type PodRef struct{ Namespace, Name, UID string }

// PodConnector connects to pods.
type PodConnector interface {
	Client
	// Attend returns when ctx ends, or the pod does; that is an error too.
	Attend(ctx context.Context, pod PodRef) error
	// Connect connects to a port of the pod from inside its network namespace.
	Connect(ctx context.Context, pod PodRef, port uint16) (*net.TCPConn, error)
}

// PortForward is what `port-forward` is asked for: ports of this machine that lead to a pod's, until the pod ends.
type PortForward struct {
	Namespace string        // default "default"
	Addresses []string      // to listen on: IP addresses, or localhost, which is 127.0.0.1 and ::1
	Timeout   time.Duration // how long a first pod of a Service or a Deployment is waited for
}

// errLost is kubectl's word on a pod that has ended.
var errLost = errors.New("lost connection to pod")

// Run forwards to the pod that args[0] names as [TYPE/]NAME, or to one of a Service, a Deployment or a ReplicaSet, from the ports
// that follow, until ctx ends, which is no error, or the pod does.
func (f *PortForward) Run(ctx context.Context, c PodConnector, args []string, out, errOut io.Writer) error {
	if len(args) < 2 {
		return errors.New("TYPE/NAME and list of ports are required for port-forward, as in pod/web 8080:80")
	}
	hosts, err := parseAddresses(f.Addresses)
	if err != nil {
		return err
	}
	wanted, err := parsePorts(args[1:])
	if err != nil {
		return err
	}
	pod, ports, err := f.resolve(ctx, c, args[0], wanted)
	if err != nil {
		return err
	}
	if pod.Status.Phase != corev1.PodRunning {
		return fmt.Errorf("unable to forward port because pod is not running. Current status=%s", pod.Status.Phase)
	}
	s := &forwarding{connector: c, pod: PodRef{pod.Namespace, pod.Name, string(pod.UID)}, out: out, errOut: errOut}
	if err := s.listen(hosts, ports); err != nil {
		return err
	}
	err = s.serve(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// resolve finds the pod and the numbers of its ports.
func (f *PortForward) resolve(ctx context.Context, c PodConnector, arg string, wanted []wantedPort) (*corev1.Pod, []forwardedPort, error) {
	word, name, found := strings.Cut(arg, "/")
	if !found {
		word, name = control.Pods.Plural, arg
	}
	kinds, err := kindsNamed(word)
	if err != nil {
		return nil, nil, err
	}
	if len(kinds) > 1 || name == "" || strings.Contains(name, "/") {
		return nil, nil, fmt.Errorf("%q: want TYPE/NAME, for example pod/web or service/web; -n says the namespace", arg)
	}
	objects, err := c.List(ctx, control.Query{Kind: kinds[0].Resource().String(), Namespace: orDefault(f.Namespace), Names: []string{name}})
	if err != nil {
		return nil, nil, err
	}
	if pod, ok := objects[0].(*corev1.Pod); ok {
		ports, err := portsOfPod(pod, wanted)
		return pod, ports, err
	}
	selector, err := podSelector(objects[0])
	if err != nil {
		return nil, nil, err
	}
	pod, err := f.choosePod(ctx, c, selector)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", arg, err)
	}
	if service, ok := objects[0].(*corev1.Service); ok {
		ports, err := portsOfService(service, pod, wanted)
		return pod, ports, err
	}
	ports, err := portsOfPod(pod, wanted)
	return pod, ports, err
}

// podSelector returns the labels of the pods that belong to an object.
func podSelector(o control.Object) (string, error) {
	var labels *metav1.LabelSelector
	switch o := o.(type) {
	case *corev1.Service:
		if len(o.Spec.Selector) == 0 {
			return "", fmt.Errorf("invalid service '%s': Service is defined without a selector", o.Name)
		}
		labels = &metav1.LabelSelector{MatchLabels: o.Spec.Selector}
	case *appsv1.Deployment:
		labels = o.Spec.Selector
	case *appsv1.ReplicaSet:
		labels = o.Spec.Selector
	default:
		return "", fmt.Errorf("%s/%s has no pods; want a pod, a service, a deployment or a replicaset", control.KindOf(o).Singular(), o.GetName())
	}
	selector, err := metav1.LabelSelectorAsSelector(labels)
	if err != nil {
		return "", err
	}
	return selector.String(), nil
}

// choosePod returns the pod with the labels that is most likely to answer, and waits for one if there is none yet.
func (f *PortForward) choosePod(ctx context.Context, c PodConnector, selector string) (*corev1.Pod, error) {
	q := control.Query{Kind: control.Pods.Resource().String(), Namespace: orDefault(f.Namespace), Selector: selector}
	objects, err := c.List(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(objects) == 0 {
		first, err := f.waitPod(ctx, c, q)
		if err != nil {
			return nil, err
		}
		objects = []control.Object{first}
	}
	best := slices.MinFunc(objects, func(a, b control.Object) int { return comparePods(a.(*corev1.Pod), b.(*corev1.Pod)) })
	return best.(*corev1.Pod), nil
}

var (
	errFound   = errors.New("found")
	errTimeout = errors.New("timed out waiting for a pod; `middleway get` says what there is")
)

func (f *PortForward) waitPod(ctx context.Context, c PodConnector, q control.Query) (first control.Object, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.Timeout, errTimeout)
	defer cancel()
	err = c.Watch(ctx, q, func(e control.Event) error {
		if e.Type == control.Deleted {
			return nil
		}
		first = e.Object
		return errFound
	})
	if errors.Is(err, errFound) {
		return first, nil
	}
	return nil, cmp.Or(err, errLost)
}

// comparePods sorts those first that are most likely to answer, in the order of kubectl (ActivePods of k8s.io/kubectl/pkg/util/podutils).
func comparePods(a, b *corev1.Pod) int {
	return cmp.Or(
		cmp.Compare(reluctance(a), reluctance(b)),
		a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Name, b.Name),
	)
}

// reluctance is greater the less likely a pod is to answer.
func reluctance(p *corev1.Pod) (n int) {
	for i, lacks := range []bool{
		!slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }),
		p.DeletionTimestamp != nil,
		p.Status.Phase != corev1.PodRunning,
	} {
		if lacks {
			n |= 1 << i
		}
	}
	return n
}
