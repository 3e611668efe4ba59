package rootless

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

// Stand-ins for Slurm's commands. srun leaves its arguments, each ended by a zero byte, and waits until the test has run them on all hosts.
const (
	scontrol = `#!/bin/sh
case "$*" in
"show hostnames host-[1-2]") printf 'host-1\nhost-2\n' ;;
"show node --oneliner host-1") echo "NodeName=host-1 Arch=x86_64 NodeAddr=192.168.254.11 NodeHostName=host-1" ;;
"show node --oneliner host-2") echo "NodeName=host-2 Arch=x86_64 NodeAddr=192.168.254.12 NodeHostName=host-2" ;;
*) echo "scontrol $*: not known here" >&2; exit 1 ;;
esac
`
	srun = `#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
printf '%s\0' "$MIDDLEWAY_PROGRAM" "$MIDDLEWAY_NAMES" "$MIDDLEWAY_ADDRESSES" "$MIDDLEWAY_VNI" "$MIDDLEWAY_PORT" "$@" >"$SHARED/request.new"
mv "$SHARED/request.new" "$SHARED/request"
until [ -e "$SHARED/code" ]; do sleep 0.05; done
exit "$(cat "$SHARED/code")"
`
	// job asks every pod who it sees, and ends when all hosts have got their answers.
	job = `"$MIDDLEWAY_PROGRAM" tool serve >/dev/null 2>&1 &
for a in $MIDDLEWAY_POD_ADDRESSES; do
	seen=$("$MIDDLEWAY_PROGRAM" tool get -W 5s "http://$a:8080/clientip")
	for try in 1 2 3 4 5 6 7 8 9; do [ -n "$seen" ] || seen=$("$MIDDLEWAY_PROGRAM" tool get -W 5s "http://$a:8080/clientip"); done
	echo "$MIDDLEWAY_NODE of $MIDDLEWAY_NODES at $MIDDLEWAY_POD_ADDRESS asked $a and was seen as $seen"
done
touch "$SHARED/done-$MIDDLEWAY_NODE"
until [ -e "$SHARED/done-1" ] && [ -e "$SHARED/done-2" ]; do sleep 0.05; done
kill $!
exit 7
`
)

// TestSlurm: the batch script makes a node on each host of a job, whose pods reach each other, and ends as its command does. The hosts have one user
// and one directory in common, as those of a job have.
func TestSlurm(t *testing.T) {
	for _, name := range []string{"bash", "unshare", "nsenter", "ip", "awk", "sed"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("the script needs a program that this machine lacks: ", err)
		}
	}
	hosts := newHosts(t, 2)
	hosts[1].uid = hosts[0].uid
	first := hosts[0]
	script, err := os.ReadFile("../../deploy/slurm/middleway.sbatch")
	must(t, err)
	program, err := os.ReadFile(middleway(t))
	must(t, err)
	for path, text := range map[string][]byte{
		"scontrol": []byte(scontrol), "srun": []byte(srun), "middleway.sbatch": script, "middleway": program, "job": []byte(job),
	} {
		first.write(first.path(path), text, 0o755)
	}
	first.own(first.home)
	start := func(h *host, env []string, argv ...string) *lab.Process {
		p := h.user(argv...)
		p.Env = append(append(p.Env, "SHARED="+first.home, "TMPDIR="+first.home, "SLURM_JOB_ID=4711", "SLURM_JOB_NODELIST=host-[1-2]", fmt.Sprint("SLURMD_NODENAME=host-", h.number),
			"PATH="+first.home+":"+os.Getenv("PATH")), env...)
		must(t, p.Start())
		t.Cleanup(func() { p.Kill() })
		return p
	}
	bash, err := exec.LookPath("bash")
	must(t, err)
	batch := start(first, nil, bash, first.path("middleway.sbatch"), "sh", first.path("job"))
	var request []string
	eventually(t, 20*time.Second, "srun is called", func() error {
		b, err := os.ReadFile(first.path("request"))
		request = strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
		if err != nil {
			err = errors.Join(err, errors.New(batch.Tail()))
		}
		return err
	})
	names := []string{"PROGRAM", "NAMES", "ADDRESSES", "VNI", "PORT"}
	var env []string
	for i, name := range names {
		env = append(env, "MIDDLEWAY_"+name+"="+request[i])
	}
	if got, want := env[3:], []string{"MIDDLEWAY_VNI=4712", "MIDDLEWAY_PORT=24711"}; got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
	argv := request[len(names):]
	argv[0] = bash
	var tasks []*lab.Process
	for _, h := range hosts {
		tasks = append(tasks, start(h, env, argv...))
	}
	for i, p := range tasks {
		err := p.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Fatalf("host %d: %v, want the command's exit code, 7: %s", i+1, err, p.Tail())
		}
		for to := 1; to <= 2; to++ {
			want := fmt.Sprintf("%d of 2 at 10.244.%[1]d.2 asked 10.244.%d.2 and was seen as 10.244.%[1]d.2", i+1, to)
			if !strings.Contains(p.Tail(), want) {
				t.Errorf("%q is not in: %s", want, p.Tail())
			}
		}
	}
	must(t, os.WriteFile(first.path("code"), []byte("7"), 0o644))
	var exit *exec.ExitError
	if err := batch.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("the batch script: %v, want srun's exit code: %s", err, batch.Tail())
	}
	left, err := os.ReadDir(first.home)
	must(t, err)
	for _, f := range left {
		if strings.HasPrefix(f.Name(), "middleway-") {
			t.Errorf("%s is left", f.Name())
		}
	}
}

// TestSlurmErrors: what is amiss is one sentence.
func TestSlurmErrors(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("the script needs bash: ", err)
	}
	for _, tt := range []struct {
		name string
		args []string
		env  []string
		want string
	}{
		{"no command", nil, nil, "it needs a command"},
		{"no job", []string{"true"}, nil, "start it by sbatch"},
		{"no program", []string{"true"}, []string{"SLURM_JOB_NODELIST=host-1", "MIDDLEWAY_PROGRAM=/no/middleway"}, "set MIDDLEWAY_PROGRAM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(bash, append([]string{"../../deploy/slurm/middleway.sbatch"}, tt.args...)...)
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, tt.env...)
			out, err := cmd.CombinedOutput()
			if err == nil || bytes.Count(out, []byte("\n")) != 1 || !strings.Contains(string(out), tt.want) {
				t.Errorf("got %v and %q, want one line with %q", err, out, tt.want)
			}
		})
	}
}
