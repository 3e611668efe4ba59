package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// Inside the lab, which Enter has made, all that it is made of works, and the examination agrees.
func TestExamine(t *testing.T) {
	told := map[string]int{}
	r := Examine(t.Context(), func(f Finding) { told[f.Name]++ })
	if open, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || open != 1 {
		t.Errorf("dumpable: got %d, %v: children may no longer open this process's files by /proc/PID/fd", open, err)
	}
	for _, name := range []string{"tun-open", "tun-device", "tun-queues", "tun-persist", "tun-pod", "network-namespace", "mount-namespace", "pod-namespace", "proc-fd"} {
		if f, _ := r.Finding(name); f.State != Works {
			t.Errorf("%s: got %+v", name, f)
		}
	}
	for _, f := range r.Findings {
		if told[f.Name] != 1 {
			t.Errorf("%s was told %d times as it came", f.Name, told[f.Name])
		}
		if f.State == Missing && f.Detail == "" {
			t.Errorf("%s is missing without a reason", f.Name)
		}
		if has := f.Remedy != ""; has != (f.State == Missing) {
			t.Errorf("%s is %v with the remedy %q", f.Name, f.State, f.Remedy)
		}
		if has := f.Without != ""; has != (f.State != Works) {
			t.Errorf("%s is %v, and without it: %q", f.Name, f.State, f.Without)
		}
	}
	if entered := lab.InUserNamespace(); r.entered != entered || entered && r.UID == 0 || r.Kernel == "" || r.Machine == "" {
		t.Errorf("got %+v", r)
	}
	if lines := r.Compact(); len(lines) < 2 || len(lines) > 8 {
		t.Errorf("in short: %q", lines)
	}
	t.Logf("took %.0f ms", r.TookMs)
}

// An examination leaves neither processes nor threads that wait, also where it is interrupted.
func TestNothingLeft(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, time.Minute} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		r := Examine(ctx, nil)
		cancel()
		if len(r.Findings) == 0 || len(r.Ways) == 0 {
			t.Errorf("after %v: got %+v", after, r)
		}
		for end := time.Now().Add(10 * time.Second); len(children(t)) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("after %v: left behind: %v", after, children(t))
			}
		}
	}
}

// children are the processes that this one has started.
func children(t *testing.T) (names []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		name, rest, _ := strings.Cut(string(stat), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
			names = append(names, name)
		}
	}
	return names
}

func TestProbes(t *testing.T) {
	manual, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range probes {
		if seen[p.name] {
			t.Errorf("%s is there twice", p.name)
		}
		if p.after != "" && !seen[p.after] {
			t.Errorf("%s comes after %q, which is not before it", p.name, p.after)
		}
		seen[p.name] = true
		if p.title == "" || p.group == "" || p.without == "" || p.remedy == "" {
			t.Errorf("%s lacks words: %+v", p.name, p)
		}
		if tried := p.place == here || p.place == inside; tried != (p.try != nil) {
			t.Errorf("%s: place %d, something to try: %v", p.name, p.place, p.try != nil)
		}
		if row := fmt.Sprintf("| `%s` | %s | %s |\n", p.name, p.title, p.without); !strings.Contains(string(manual), row) {
			t.Errorf("docs/doctor.md lacks the row %s", row)
		}
	}
	for _, s := range summary {
		if !seen[s.name] {
			t.Errorf("in short: nothing is called %s", s.name)
		}
	}
	for _, k := range kinds {
		if !seen[k.name] {
			t.Errorf("nothing is called %s", k.name)
		}
	}
	for _, name := range append(needsNode, needsLab...) {
		if !seen[name] {
			t.Errorf("a way needs %s, which nothing is called", name)
		}
	}
}

func TestAttempt(t *testing.T) {
	fix := &problem{errors.New("it is broken"), "mend it"}
	never := make(chan struct{})
	for _, tt := range []struct {
		name string
		try  func() (string, error)
		want outcome
	}{
		{"works", func() (string, error) { return "seen", nil }, outcome{"x", Works, "seen", ""}},
		{"missing", func() (string, error) { return "seen", errors.New("not\nthere") }, outcome{"x", Missing, "not there", ""}},
		{"with a remedy", func() (string, error) { return "", fmt.Errorf("try: %w", fix) }, outcome{"x", Missing, "try: it is broken", "mend it"}},
		{"forbidden", func() (string, error) { return "", lab.ExplainNamespaces(unix.EINVAL) },
			outcome{"x", Missing, "the kernel has no user or network namespaces", "use a kernel with CONFIG_USER_NS and CONFIG_NET_NS, or run this as root"}},
		{"not tried", func() (string, error) { return "", fmt.Errorf("%w: no time", errUntried) }, outcome{"x", Unknown, "not tried: no time", ""}},
		{"hangs", func() (string, error) { <-never; return "", nil }, outcome{"x", Unknown, "no answer within 10ms", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			patience := trialPatience
			if tt.name == "hangs" {
				patience = 10 * time.Millisecond
			}
			p := &probe{name: "x", try: tt.try}
			if diff := cmp.Diff(tt.want, p.attempt(patience)); diff != "" {
				t.Error(diff)
			}
		})
	}
	close(never)
}

// What failed because something before it is missing is not missing itself.
func TestFindings(t *testing.T) {
	outcomes := func(bad ...outcome) map[string]outcome {
		all := map[string]outcome{}
		for _, p := range probes {
			all[p.name] = outcome{Name: p.name, State: Works}
		}
		for _, o := range bad {
			all[o.Name] = o
		}
		return all
	}
	missing := func(name string) outcome {
		return outcome{Name: name, State: Missing, Detail: "refused", Remedy: "allow it"}
	}
	for _, tt := range []struct {
		name     string
		capable  bool
		outcomes map[string]outcome
		find     string
		want     Finding // State, Detail and Remedy
	}{
		{"works", true, outcomes(), "tun-pod", Finding{State: Works}},
		{"own remedy", true, outcomes(missing("tun-open")), "tun-open", Finding{State: Missing, Detail: "refused", Remedy: "allow it"}},
		{"usual remedy", true, outcomes(outcome{Name: "veth", State: Missing, Detail: "none"}), "veth",
			Finding{State: Missing, Detail: "none", Remedy: "as root run `modprobe veth`, or use a kernel with CONFIG_VETH"}},
		{"the first cause", true, outcomes(missing("tun-open"), missing("tun-device"), missing("tun-pod")), "tun-pod",
			Finding{State: Unknown, Detail: "not tried, for lack of /dev/net/tun"}},
		{"works all the same", true, outcomes(missing("tun-open")), "tun-pod", Finding{State: Works}},
		{"ordinary user's namespaces", false, outcomes(missing("user-namespace"), missing("veth")), "veth",
			Finding{State: Unknown, Detail: "not tried, for lack of user namespaces"}},
		{"root needs no user namespace", true, outcomes(missing("user-namespace"), missing("veth")), "veth",
			Finding{State: Missing, Detail: "refused", Remedy: "allow it"}},
		{"nothing said", true, map[string]outcome{}, "udp-socket", Finding{State: Unknown, Detail: "no answer"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := &examination{report: &Report{Capable: tt.capable}, outcomes: tt.outcomes}
			r := &Report{Findings: x.findings()}
			f, ok := r.Finding(tt.find)
			if got := (Finding{State: f.State, Detail: f.Detail, Remedy: f.Remedy}); !ok || got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if _, ok := r.Finding("tun-ordinary"); ok != tt.capable {
				t.Errorf("the ordinary user's TUN device: %v", ok)
			}
		})
	}
}

func TestState(t *testing.T) {
	for _, s := range []State{Unknown, Works, Missing} {
		b, err := json.Marshal(s)
		var got State
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil || got != s {
			t.Errorf("%v: got %v, %v", s, got, err)
		}
	}
	if err := new(State).UnmarshalText([]byte("maybe")); err == nil {
		t.Error("maybe is no state")
	}
}
