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

	const pods = 100
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

func quantiles(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("p50 %v, p99 %v", d[len(d)/2].Round(100*time.Microsecond), d[len(d)*99/100].Round(100*time.Microsecond))
}
