package e2e

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseJUnit(t *testing.T) {
	text := `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="5"><testsuite name="Kubernetes e2e suite">
<testcase name="[ReportBeforeSuite]" status="passed" time="0.1"></testcase>
<testcase name="[It] [sig-network] Services should serve [Conformance] [sig-network, Conformance]" status="passed" time="12.5"></testcase>
<testcase name="[It] [sig-network] DNS should answer [sig-network]" status="failed" time="3"><failure message="it did&#xA;not" type="failed">where</failure></testcase>
<testcase name="[It] [sig-network] Zones [Feature:Zones] [sig-network, Feature:Zones]" status="skipped" time="0.2"><skipped message="skipped - wants three zones"></skipped></testcase>
<testcase name="[It] [sig-storage] Disks [sig-storage]" status="skipped" time="0"><skipped message="skipped"></skipped></testcase>
<testcase name="[SynchronizedAfterSuite]" status="failed" time="1"><failure message="left"></failure></testcase>
</testsuite></testsuites>`
	got, err := parseJUnit([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Result{
		{Name: "[SynchronizedAfterSuite]", Verdict: Fail, Seconds: 1, Why: "left"},
		{Name: "[sig-network] DNS should answer", Verdict: Fail, Seconds: 3, Why: "it did not"},
		{Name: "[sig-network] Services should serve [Conformance]", Verdict: Pass, Seconds: 12.5},
		{Name: "[sig-network] Zones [Feature:Zones]", Verdict: Skip, Seconds: 0.2, Why: "wants three zones"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := parseJUnit([]byte("<testsuites>")); err == nil {
		t.Error("half a report was taken")
	}
}
