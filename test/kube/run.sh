#!/bin/bash
# A real Kubernetes cluster on this machine with middleway as its network: Kubernetes' own conformance tests, and an API server that is
# away. Needs root, and the harness that brings real components up (its directory in KUBE_HARNESS, its build.sh run once).
#
#   run.sh up              two nodes (COUNT=2, FAMILY=ipv4|dual|ipv6), in about half a minute
#   run.sh conformance     the [sig-network] [Conformance] tests, one line each; FOCUS=regex for others
#   run.sh outage          a transfer through a ClusterIP over a killed daemon, and a minute without API server
#   run.sh down
#
# WITH="kube-proxy coredns" leaves NodePorts and DNS to these; hook.sh has the other variables.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${KUBE_HARNESS:?is the directory with up.sh, run-e2e.sh and down.sh}"
export KUBE_HARNESS MIDDLEWAY=${MIDDLEWAY:-$here/../../bin} WITH=${WITH:-}
MIDDLEWAY=$(cd "$MIDDLEWAY" && pwd)
say() { printf '%(%T)T %s\n' -1 "$*"; }
die() { say "FAILED: $*" >&2; exit 1; }

. "$KUBE_HARNESS/env.sh"

case ${1:-} in
up)
  [ -x "$MIDDLEWAY/middleway" ] && [ -x "$MIDDLEWAY/middleway-cni" ] || die "no programs in $MIDDLEWAY: run make build"
  "$KUBE_HARNESS/up.sh" -n "${COUNT:-2}" -H "$here/hook.sh" ;;
conformance)
  PROCS=${PROCS:-4} "$KUBE_HARNESS/run-e2e.sh" "${FOCUS:-\[sig-network\].*\[Conformance\]}" "${SKIP:-}" ;;
outage)
  . "$here/outage.sh" ;;
down)
  "$KUBE_HARNESS/down.sh" ;;
*)
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
esac
