package e2e

import (
	"encoding/json"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/lab/doctor"
	"github.com/middleway-net/middleway/node"
)

// Where doctor says that a node runs, a daemon starts, and where it says that none does, none starts.
func TestDoctorAgrees(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(*machine)
		root    bool   // only root can prepare it
		missing string // the finding for which no node runs; "" if one does
	}{
		{name: "nothing is missing", prepare: func(*machine) {}},
		{name: "no IPv6", prepare: func(m *machine) { m.run = []string{"no-ipv6"} }},
		{name: "IPv6 turned off", prepare: (*machine).withoutIPv6},
		{name: "port taken", prepare: func(m *machine) { m.listen("192.168.254.11:8472") }, missing: "vxlan-port"},
		{name: "port taken on another address", prepare: func(m *machine) { m.listen("127.0.0.1:8472") }},
		{name: "no TUN device", prepare: func(m *machine) { m.run = []string{"no-tun", "missing"} }, missing: "tun-open"},
		{name: "no capabilities", prepare: func(m *machine) { m.run = []string{"no-root", "0"} }, root: true, missing: "capabilities"},
		{name: "one capability", prepare: func(m *machine) { m.run = []string{"no-root", strconv.Itoa(1 << unix.CAP_NET_ADMIN)} }, root: true, missing: "capabilities"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root && ordinaryUser() {
				t.Skip("an ordinary user cannot become another one")
			}
			m := newMachine(t)
			tt.prepare(m)
			m.args = []string{"doctor", "-o", "json"}
			examined := m.daemon()
			m.must(examined.Start())
			_ = examined.Wait() // the exit code is about more than a node
			var r doctor.Report
			if err := json.Unmarshal([]byte(examined.Tail()), &r); err != nil {
				t.Fatalf("%v\n%s", err, examined.Tail())
			}
			w := r.Ways[slices.IndexFunc(r.Ways, func(w doctor.Way) bool { return w.Name == "node" })]
			lacks := slices.DeleteFunc(w.Lacks, func(name string) bool { return name == "run-dir" }) // this daemon has another one
			if runs := len(lacks) == 0; runs != (tt.missing == "") || !runs && lacks[0] != tt.missing {
				t.Errorf("it says that a node lacks %v (%s), want %q", w.Lacks, w.Why, tt.missing)
			}
			m.args = nil
			d := m.daemon()
			m.must(d.Start())
			t.Cleanup(func() { d.Kill() })
			if runs := m.answers(d); runs != (tt.missing == "") {
				t.Errorf("a daemon runs: %v, doctor lacks %v\n%s", runs, w.Lacks, d.Tail())
			}
		})
	}
}

// answers waits until a daemon answers or has ended.
func (m *machine) answers(d *lab.Process) bool {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if st, err := node.ReadStatus(m.t.Context(), m.config.RunDir); err == nil && st.PID == d.PID() {
			return true
		}
		select {
		case <-d.Done():
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	m.t.Fatalf("the daemon neither answers nor ends:\n%s", d.Tail())
	return false
}
