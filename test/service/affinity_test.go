package service

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/middleway-net/middleway/lab"
)

// affinePorts is how many ports the Services with affinity have. A client sticks to a backend at each of them, so that by chance all
// 20 stay the same, of three backends, once in 3,000,000,000 times.
const affinePorts = 20

// affine returns a Service with session affinity, ports from 80 on, and a timeout in seconds.
func affine(number int, timeout int32) *corev1.Service {
	s := service("affine", number)
	s.Spec.Ports = nil
	for i := range int32(affinePorts) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Protocol: corev1.ProtocolTCP, Port: servicePort + i})
	}
	s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
	return s
}

// visit is one connection of a client to each port.
type visit struct {
	backends [affinePorts]string
	begun    [affinePorts]time.Time
	ended    [affinePorts]time.Time
}

func visitAll(t *testing.T, from client, vip netip.Addr) (v visit) {
	t.Helper()
	for i := range v.backends {
		v.begun[i] = time.Now()
		v.backends[i] = mustAsk(t, from, "tcp", netip.AddrPortFrom(vip, uint16(servicePort+i))).name
		v.ended[i] = time.Now()
	}
	return v
}

// mustStick fails the test where a client went elsewhere within a time. Ages count in whole seconds, so that the last one is left out.
func mustStick(t *testing.T, before, after visit, timeout time.Duration) {
	t.Helper()
	for i := range before.backends {
		if before.backends[i] != after.backends[i] && after.ended[i].Sub(before.begun[i]) < timeout-time.Second {
			t.Errorf("port %d: %s, and %v later %s", servicePort+i, before.backends[i], after.begun[i].Sub(before.begun[i]), after.backends[i])
		}
	}
}

// TestAffinity: a client comes back to its backend until it has stayed away for the timeout, or the backend is gone; other clients and
// ports have their own. A daemon that was killed remembers.
func TestAffinity(t *testing.T) {
	c := newCluster(t, lab.ClusterConfig{Pods: []int{2, 2}})
	all := []endpoint{onPod(1, c.pod(1, 2)), onPod(2, c.pod(2, 1)), onPod(2, c.pod(2, 2))}
	for _, p := range []*lab.Pod{c.pod(1, 2), c.pod(2, 1), c.pod(2, 2)} {
		servePod(t, p)
	}
	const short = 2 * time.Second
	long, brief := affine(1, int32(time.Hour/time.Second)), affine(2, int32(short/time.Second))
	brief.Name = "brief"
	c.put(long, all...)
	c.put(brief, all...)
	pod := c.pod(1, 1)
	for _, f := range families {
		first := visitAll(t, pod, f.vip(1))
		if host := visitAll(t, c.Nodes[0], f.vip(1)); host.backends == first.backends {
			t.Errorf("%s: the host goes where the pod does: %v", f.name, host.backends)
		}
		c.kill(c.Nodes[0])
		c.start(c.Nodes[0])
		c.awaitSynced(c.Nodes[0])
		mustStick(t, first, visitAll(t, pod, f.vip(1)), time.Hour)

		c.endpoints(long, all[0], all[2])
		for i, name := range visitAll(t, pod, f.vip(1)).backends {
			if was := first.backends[i]; name != was && was != c.pod(2, 1).Name() || name == c.pod(2, 1).Name() {
				t.Errorf("%s port %d: %s, and %s once %s was gone", f.name, servicePort+i, was, name, c.pod(2, 1).Name())
			}
		}
		c.endpoints(long, all...)

		first = visitAll(t, pod, f.vip(2))
		again := visitAll(t, pod, f.vip(2))
		mustStick(t, first, again, short)
		time.Sleep(short + 100*time.Millisecond)
		if late := visitAll(t, pod, f.vip(2)); late.backends == again.backends {
			t.Errorf("%s: after the timeout the client still goes to %v", f.name, late.backends)
		}
	}
	// Without affinity it acts at once (a Service's affinity may change while it lives).
	long.Spec.SessionAffinity, long.Spec.SessionAffinityConfig = corev1.ServiceAffinityNone, nil
	before := visitAll(t, pod, v4.vip(1))
	c.must(c.folder.Put(long))
	eventually(t, "the client goes elsewhere", func() bool { return visitAll(t, pod, v4.vip(1)).backends != before.backends })
}
