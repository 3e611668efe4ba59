package up

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/middleway-net/middleway/lab/trace"
)

// shopAt is the shop of the documentation.
type shopAt struct{ *playgroundAt }

func newShop(t *testing.T) shopAt {
	t.Helper()
	s := shopAt{newPlayground(t)}
	if out := s.must("up", "-d", "-f", "../../docs/examples/shop"); strings.Contains(out, "warning:") {
		t.Errorf("got\n%s", out)
	}
	s.ready(4)
	return s
}

// ready waits until so many Deployments have all their pods.
func (s shopAt) ready(n int) {
	s.Helper()
	whole := regexp.MustCompile(`(?m)^\S+ +\S+ +(\d+)/(\d+) `)
	s.eventually("Deployments are ready", func() bool {
		all := whole.FindAllStringSubmatch(s.must("get", "deploy", "-A", "--no-headers"), -1)
		return len(all) == n && !slices.ContainsFunc(all, func(m []string) bool { return m[1] != m[2] })
	})
}

// visit asks an URL from the visitor.
func (s shopAt) visit(url string, flags ...string) (string, int) {
	s.Helper()
	return s.middleway(slices.Concat([]string{"exec", "shop/visitor", "--", "middleway", "tool", "get"}, flags, []string{url})...)
}

// answers waits until an URL is answered as wanted, as a regular expression.
func (s shopAt) answers(url, want string, flags ...string) string {
	s.Helper()
	var out string
	s.eventually(url+" answers "+want, func() bool {
		var code int
		out, code = s.visit(url, flags...)
		return code == 0 && regexp.MustCompile(want).MatchString(out)
	})
	return out
}

// The shop of the documentation works as it is.
func TestShop(t *testing.T) {
	s := newShop(t)
	s.answers("http://front/hostname", `^front-`)
	s.answers("http://front.shop.svc.cluster.local/hostname", `^front-`)
	s.answers("http://catalogue/hostname", `(?s)30 asked, 30 answered.*catalogue-.*catalogue-.*catalogue-`, "--repeat", "30")
	s.answers("http://front/dial?protocol=http&host=cart&port=80", `"responses":\["cart-`)
	s.answers("http://payments/hostname", `^gate-`)
	if one := s.answers("http://cart/hostname", `30 answered`, "--repeat", "30"); strings.Count(one, "cart-") != 1 {
		t.Errorf("a client of cart has to stay with its pod: got\n%s", one)
	}
	dig := func(args ...string) string {
		return s.must(slices.Concat([]string{"exec", "shop/visitor", "--", "middleway", "tool", "dig", "--search", "--short"}, args)...)
	}
	if got := strings.Fields(dig("cart-pods")); len(got) != 2 {
		t.Errorf("cart-pods: got %v, want the addresses of two pods", got)
	}
	if got := dig("_lookup._udp.catalogue", "SRV"); !strings.Contains(got, "5300 catalogue.shop.svc.cluster.local.") {
		t.Errorf("the SRV record of catalogue's port lookup: got %q", got)
	}
}

// get, apply, delete and scale do to the cluster what they say, with kubectl's words.
func TestObjects(t *testing.T) {
	s := newShop(t)
	out := s.must("get", "all", "-n", "shop")
	for _, want := range []string{
		`(?m)^NAME +READY +STATUS +RESTARTS +AGE$`, `(?m)^pod/visitor +1/1 +Running +0 +\d+s$`, `(?m)^service/cart-pods +ClusterIP +None +<none> +9000/TCP +\d+s$`,
		`(?m)^service/payments +ExternalName +<none> +gate\.bank\.svc\.cluster\.local +<none> +\d+s$`,
		`(?m)^service/catalogue +ClusterIP +10\.96\.\d+\.\d+ +<none> +80/TCP,5300/UDP +\d+s$`,
		`(?m)^deployment\.apps/catalogue +3/3 +3 +3 +\d+s$`, `(?m)^replicaset\.apps/catalogue-\S+ +3 +3 +3 +\d+s$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("want %s in\n%s", want, out)
		}
	}
	if got := s.must("get", "no", "-o", "jsonpath={.items[*].metadata.name}"); got != "node-1 node-2" {
		t.Errorf("nodes: got %q", got)
	}
	if got, code := s.middleway("get", "svc", "none", "-n", "shop"); code != 1 || got != "middleway: get: services \"none\" not found\n" {
		t.Errorf("got %d, %q", code, got)
	}
	if got := s.must("get", "pods"); got != "No resources found in default namespace.\n" {
		t.Errorf("got %q", got)
	}

	file := filepath.Join(t.TempDir(), "more.yaml")
	s.must2(os.WriteFile(file, []byte(service("more", "{app: catalogue}", "{port: 80, targetPort: http}")), 0o600))
	for _, want := range []string{"service/more created\n", "service/more unchanged\n"} {
		if got := s.must("apply", "-n", "shop", "-f", file); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	s.answers("http://more/hostname", `^catalogue-`)
	s.must2(os.WriteFile(file, []byte(service("more", "{app: front}", "{port: 80, targetPort: http}")), 0o600))
	if got := s.must("apply", "-n", "shop", "-f", file); got != "service/more configured\n" {
		t.Errorf("got %q", got)
	}
	s.answers("http://more/hostname", `^front-`)
	if got := s.must("delete", "-n", "shop", "-f", file); got != "service \"more\" deleted from shop namespace\n" {
		t.Errorf("got %q", got)
	}

	if got := s.must("scale", "deployment/catalogue", "-n", "shop", "--replicas", "1"); got != "deployment.apps/catalogue scaled\n" {
		t.Errorf("got %q", got)
	}
	s.ready(4)
	s.eventually("one pod of catalogue is left", func() bool {
		return strings.Count(s.must("get", "po", "-n", "shop", "-l", "app=catalogue", "-o", "name"), "\n") == 1
	})
	pod := strings.TrimSpace(s.must("get", "po", "-n", "shop", "-l", "app=catalogue", "-o", "name"))
	name := strings.TrimPrefix(pod, "pod/")
	if got := s.must("delete", pod, "-n", "shop"); got != fmt.Sprintf("pod %q deleted from shop namespace\n", name) {
		t.Errorf("got %q", got)
	}
	s.answers("http://catalogue/hostname", `^catalogue-`)
	if got := s.must("get", "po", "-n", "shop", "-l", "app=catalogue", "-o", "name"); strings.Contains(got, pod) {
		t.Errorf("%s was deleted; got %q", pod, got)
	}
}

func service(name, selector, port string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {selector: %s, ports: [%s]}\n", name, selector, port)
}

// trace runs the command; its exit code is returned, too.
func (s shopAt) trace(args ...string) (t trace.Trace, code int) {
	s.Helper()
	out, code := s.middleway(slices.Concat([]string{"trace", "-o", "json", "shop/visitor"}, args)...)
	if err := json.Unmarshal([]byte(out), &t); err != nil {
		s.Fatalf("%v: %v in\n%s", args, err, out)
	}
	return t, code
}

// A trace says what packets do, from the name to the device of a pod on another node, and leaves nothing behind.
func TestTrace(t *testing.T) {
	s := newShop(t)
	s.answers("http://catalogue/hostname", `^catalogue-`)
	pods := map[netip.Addr]string{}
	for _, p := range s.status().Pods {
		pods[p.IPs[0]] = "pod " + p.Namespace + "/" + p.Name
	}
	nodes := map[int]bool{}
	for range 40 {
		tr, code := s.trace("catalogue:http")
		if code != 0 || tr.Verdict != "forwarded" {
			t.Fatalf("exit code %d, %+v", code, tr)
		}
		first, last := tr.Hops[0], tr.Hops[len(tr.Hops)-1]
		if n := first.Names; len(n) != 1 || n[0].Name != "catalogue.shop.svc.cluster.local." || n[0].Code != "NOERROR" {
			t.Errorf("names: got %+v", n)
		}
		backend := last.LeavesAs.Dst
		if tr.Ends != pods[backend.Addr()] || !strings.HasPrefix(tr.Ends, "pod shop/catalogue-") || backend.Port() != 8080 {
			t.Errorf("it ends at %q, as %v", tr.Ends, last.LeavesAs)
		}
		if first.Packet.Dst.Port() != 80 || !netip.MustParsePrefix("10.96.0.0/16").Contains(first.Packet.Dst.Addr()) {
			t.Errorf("got %+v", first.Packet)
		}
		if nodes[len(tr.Hops)] = true; len(nodes) == 2 {
			break
		}
	}
	if len(nodes) != 2 {
		t.Errorf("backends on one node and on another were never chosen: hops %v", nodes)
	}
	for _, tt := range []struct {
		args    []string
		verdict string
		reason  string
		code    int
	}{
		{[]string{"catalogue:81"}, "dropped", "service-port", 1},
		{[]string{"10.96.99.99:80"}, "dropped", "no-service", 1},
		{[]string{"catalogue", "--proto", "icmp"}, "answered", "", 0},
		{[]string{"catalogue:lookup"}, "forwarded", "", 0},
		{[]string{"cart-pods:9000"}, "forwarded", "", 0},
		{[]string{"payments:80"}, "forwarded", "", 0},
		{[]string{"nothing:80"}, "no-address", "", 1},
		{[]string{"10.244.9.9:80"}, "dropped", "no-route", 1},
	} {
		if tr, code := s.trace(tt.args...); tr.Verdict != tt.verdict || tr.Reason != tt.reason || code != tt.code {
			t.Errorf("%v: got exit code %d, %s %s; want %d, %s %s", tt.args, code, tr.Verdict, tr.Reason, tt.code, tt.verdict, tt.reason)
		}
	}
	if out := s.must("flows", "--service", "shop/catalogue:lookup"); out != "no such flow\n" {
		t.Errorf("traces leave no flow: got\n%s", out)
	}
	out := s.must("trace", "shop/visitor", "front")
	for _, want := range []string{"shop/visitor asks front\n┌─ node-1 ─", "│ name       front.shop.svc.cluster.local. A 10.96.", "│ service    Service shop/front:http: 10.244.", "\n└─→ pod shop/front-"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	if out, code := s.middleway("trace", "shop/visitor", "catalogue:ftp"); code != 1 || !strings.Contains(out, `port "ftp": Service catalogue has http (80), lookup (5300)`) {
		t.Errorf("got %d, %s", code, out)
	}
}

// flows shows a connection with its Service and backend at the node that translates, and follows it to its end.
func TestFlows(t *testing.T) {
	s := newShop(t)
	s.answers("http://catalogue/hostname", `^catalogue-`)
	out := s.must("flows", "node-1", "--from", "shop/visitor", "--service", "shop/catalogue")
	if !regexp.MustCompile(`(?m)^node-1 +tcp +10\.244\.1\.\d+:\d+ +10\.96\.\d+\.\d+:80 +shop/catalogue:http +10\.244\.\d\.\d+:8080 +(peer node-2|pod shop/catalogue-\S+) `).MatchString(out) {
		t.Errorf("got\n%s", out)
	}
	follow := s.command("flows", "-f", "-o", "json", "--service", "shop/front")
	r, err := follow.StdoutPipe()
	s.must2(err)
	s.must2(follow.Start())
	defer func() { _ = follow.Process.Kill(); _ = follow.Wait() }()
	came := make(chan error, 1)
	go func() {
		for d := json.NewDecoder(r); ; {
			var e struct{ Node, Change, Service, State string }
			if err := d.Decode(&e); err != nil || e.Node == "node-1" && e.Change == "came" && e.Service == "shop/front:http" {
				came <- err
				return
			}
		}
	}()
	s.eventually("a flow comes", func() bool { // the first ones before anybody follows
		s.answers("http://front/hostname", `^front-`)
		select {
		case err := <-came:
			s.must2(err)
			return true
		default:
			return false
		}
	})
	s.must2(follow.Process.Signal(os.Interrupt))
	_ = follow.Wait()
	if code := follow.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
}
