#!/bin/bash
# The network under test of the harness (up.sh -H): middleway's daemon and plugin on every node, with the rights of
# deploy/middleway.yaml.
#   MIDDLEWAY        directory with middleway and middleway-cni; required
#   WITH             of: daemonset (deploy/middleway.yaml whole, in place of programs of the nodes), and of what runs beside:
#                    kube-proxy coredns
#   FLANNEL          nodes that have flannel (vxlan) and kube-proxy instead, for example "kn2"
#   MIDDLEWAY_ARGS   more flags of the daemon
#   KUBELET_RULES    no: kubelets with makeIPTablesUtilChains: false
# usage: hook.sh cluster | node NAME | ready
set -euo pipefail
. "$KUBE_HARNESS/env.sh"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
K=$BIN/kubectl
with() { [[ " ${WITH:-} " == *" $1 "* ]]; }
# kubelet_without_rules starts the node's kubelet again without its rule against what comes to 127.0.0.0/8 from other addresses.
kubelet_without_rules() {
  local p; p=$(cat /run/kubelet.pid)
  echo 'makeIPTablesUtilChains: false' >>/etc/kubernetes/kubelet.yaml
  kill "$p"; while [ -e "/proc/$p" ]; do sleep 0.1; done # the harness starts it again
  if iptables -nL KUBE-FIREWALL >/dev/null 2>&1; then iptables -F KUBE-FIREWALL; fi
}
bg() { local n=$1; shift; setsid "$@" >>"$LOG/$NODE_NAME-$n.log" 2>&1 </dev/null & echo $! >"/run/$n.pid"; }

case $1 in
cluster)
  if with daemonset; then
    sed "s|server: https://.*|server: https://$API_HOST:6443|; s|cidrs: .*|cidrs: [\"${SVC_CIDR//,/\", \"}\"]|" "$here/../../deploy/middleway.yaml" | "$K" apply -f - >/dev/null
    root=$STATE/middleway-root; mkdir -p "$root"/{bin,usr/local/bin,etc,tmp}
    cp "$(command -v busybox)" "$root/bin/"; for a in sh cp mv; do ln -s busybox "$root/bin/$a"; done # the image's base
    cp "$MIDDLEWAY"/middleway{,-cni} "$root/usr/local/bin/"
    "$BIN/mkimage" -root "$root" -o "$STATE/middleway.tar" -entrypoint '["/usr/local/bin/middleway"]' docker.io/library/middleway:latest >/dev/null
  else
    awk 'BEGIN { RS = ORS = "---\n" } !/kind: DaemonSet/' "$here/../../deploy/middleway.yaml" | "$K" apply -f - >/dev/null
  fi
  f=$STATE/middleway.kubeconfig
  kc config --kubeconfig="$f" set-cluster k --server="https://$API_HOST:6443" --certificate-authority="$PKI/ca.crt" --embed-certs >/dev/null
  kc config --kubeconfig="$f" set-credentials m --token="$("$K" -n middleway create token middleway --duration=12h)" >/dev/null
  kc config --kubeconfig="$f" set-context c --cluster=k --user=m >/dev/null
  kc config --kubeconfig="$f" use-context c >/dev/null
  if with coredns; then
    sed -e "s/@DNS_IP@/$DNS_IP/g" -e 's/@REPLICAS@/2/' "$HARNESS/manifests/coredns.yaml" | "$K" apply -f - >/dev/null
  else
    sed "s/@DNS_IP@/$DNS_IP/g" "$here/kube-dns.yaml" | "$K" apply -f - >/dev/null
  fi
  # for nodes with flannel
  echo '{"Network": "10.244.0.0/16", "EnableIPv4": true, "Backend": {"Type": "vxlan"}}' >"$STATE/net-conf.json"
  ;;
node)
  if [ "${KUBELET_RULES:-}" = no ]; then kubelet_without_rules; fi
  if [[ " ${FLANNEL:-} " == *" $NODE_NAME "* ]]; then CNI=flannel exec "$HARNESS/hooks/reference.sh" "$@"; fi
  if with daemonset; then
    "$BIN/ctr" -n k8s.io images import --local "$STATE/middleway.tar" >>"$LOG/$NODE_NAME-images.log" 2>&1
    install -m755 "$BIN/cni/loopback" /opt/cni/bin/
    exit
  fi
  install -m755 "$BIN/cni/loopback" "$MIDDLEWAY/middleway-cni" /opt/cni/bin/
  cat >/run/middleway.yaml <<T
name: $NODE_NAME
kubernetes: {kubeconfig: $STATE/middleway.kubeconfig}
services: {cidrs: ["${SVC_CIDR//,/\", \"}"], besideKubeProxy: $(with kube-proxy && echo true || echo false)}
dns: {off: $(with coredns && echo true || echo false)}
T
  cat >/run/start-middleway <<T
#!/bin/bash
exec "$MIDDLEWAY/middleway" node --config /run/middleway.yaml ${MIDDLEWAY_ARGS:-}
T
  chmod 755 /run/start-middleway
  bg middleway /run/start-middleway
  if with kube-proxy; then
    cat >/etc/kubernetes/kube-proxy.yaml <<T
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: $NODE_NAME
clientConnection: {kubeconfig: $PKI/proxy.kubeconfig}
clusterCIDR: "$POD_CIDR"
conntrack: {maxPerCore: 0, min: 0}
nftables: {minSyncPeriod: 100ms}
T
    bg kube-proxy "$BIN/kube-proxy" --config /etc/kubernetes/kube-proxy.yaml --v=1
  fi
  install -m644 "$here/../../deploy/10-middleway.conflist" /etc/cni/net.d/10-middleway.conflist
  ;;
ready)
  if with daemonset; then "$K" -n middleway rollout status daemonset/middleway --timeout=120s; fi
  if with coredns; then "$K" -n kube-system rollout status deploy/coredns --timeout=180s; fi
  ;;
esac
