package cni

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// A hundred pods at once get addresses of their own, and each can be reached.
func TestConcurrentAdds(t *testing.T) {
	n := newNode(t, nil)
	r := newRuntime(t, n, "1.1.0", nil)
	var one []time.Duration
	for i := range 10 {
		s := r.sandbox(fmt.Sprintf("alone-%d", i))
		begin := time.Now()
		r.mustAdd(s)
		one = append(one, time.Since(begin))
		r.mustDel(s)
	}
	t.Log("attach time, one after another:", quantiles(one))

	pods := 100
	if testing.Short() {
		pods = 10
	}
	sandboxes, took := make([]*sandbox, pods), make([]time.Duration, pods)
	for i := range sandboxes {
		sandboxes[i] = r.sandbox(fmt.Sprintf("pod-%d", i))
	}
	var wg sync.WaitGroup
	for i, s := range sandboxes {
		wg.Go(func() {
			begin := time.Now()
			if _, err := r.add(s); err != nil {
				t.Errorf("%s: %v", s.Name(), err)
			}
			took[i] = time.Since(begin)
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	t.Logf("attach time, %d at once: %s", pods, quantiles(took))

	owners := map[netip.Addr]string{}
	for i, s := range sandboxes {
		for _, a := range s.addrs {
			if other := owners[a]; other != "" {
				t.Errorf("%v belongs to %s and %s", a, other, s.Name())
			}
			owners[a] = s.Name()
		}
		next := sandboxes[(i+1)%pods]
		mustPing(t, s.Namespace, next.addrs[i%2])
	}
	if got := len(owners); got != 2*pods {
		t.Errorf("%d addresses for %d pods of two families", got, pods)
	}
	if st := mustStatus(t, n); st.Stack.Attachments != pods || len(st.Attachments) != pods {
		t.Errorf("%d attachments, %d leases", st.Stack.Attachments, len(st.Attachments))
	}

	for _, s := range sandboxes {
		wg.Go(func() {
			if err := r.del(s); err != nil {
				t.Errorf("%s: %v", s.Name(), err)
			}
		})
	}
	wg.Wait()
	if got := left(t, n); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// BenchmarkAttach is an ADD by a process of the plugin, one after another; a DEL follows each and is not measured.
func BenchmarkAttach(b *testing.B) {
	r := newRuntime(b, newNode(b, nil), "1.1.0", nil)
	s := r.sandbox("pod")
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		r.mustAdd(s)
		took = append(took, time.Since(begin))
		b.StopTimer()
		r.mustDel(s)
		b.StartTimer()
	}
	p50, p99 := quantile(took, 50), quantile(took, 99)
	b.ReportMetric(float64(p50.Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
}

// quantile returns what so many percent did not exceed.
func quantile(d []time.Duration, percent int) time.Duration {
	slices.Sort(d)
	return d[len(d)*percent/100].Round(100 * time.Microsecond)
}

func quantiles(d []time.Duration) string {
	return fmt.Sprintf("p50 %v, p99 %v", quantile(d, 50), quantile(d, 99))
}
