#!/bin/sh
# Removes what flannel leaves on a node that goes on with middleway: its devices, its CNI configuration and leases, and the rules of flannel, of the CNI
# plugins and of kube-proxy. Run it as root on the node, after their pods have gone from it (docs/kubernetes.md, "From flannel to middleway").
# usage: from-flannel.sh [--keep-kube-proxy]
set -eu
chains='FLANNEL-|CNI-|KUBE-'
tables='flannel-ipv4 flannel-ipv6 cni_hostport kube-proxy'
case ${1-} in
'') ;;
--keep-kube-proxy)
  chains='FLANNEL-|CNI-' tables='flannel-ipv4 flannel-ipv6 cni_hostport'
  ;;
*)
  echo 'usage: from-flannel.sh [--keep-kube-proxy]; it removes from this node what flannel has left' >&2
  exit 2
  ;;
esac

for device in flannel.1 flannel-v6.1 cni0; do # with another VNI the first two have its number
  if [ -e "/sys/class/net/$device" ]; then ip link del "$device"; fi
done
rm -rf /etc/cni/net.d/10-flannel.conflist /run/flannel /var/lib/cni/networks

# Chains with these names are emptied and removed, with the rules that lead to them, in one step for each table; other rules are not touched. iptables is one
# of the two kinds on most machines, and both kinds may hold rules.
for kind in iptables ip6tables iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
  command -v "$kind-save" >/dev/null || continue
  rules=$("$kind-save") || continue # says why; a kernel without this kind has no rules of it
  changes=$(printf '%s\n' "$rules" | awk -v ours="($chains)" '
    /^\*/ { print }
    /^:/ && substr($1, 2) ~ "^" ours { print $1 " - [0:0]"; remove = remove "-X " substr($1, 2) "\n" }
    /^-A/ && $2 !~ "^" ours && $0 ~ "-[jg] " ours { sub(/^-A/, "-D"); print }
    /^COMMIT/ { printf "%s", remove; remove = ""; print }')
  case $changes in
  *-X*) printf '%s\n' "$changes" | "$kind-restore" --noflush ;;
  esac
done
if command -v nft >/dev/null; then
  for table in $tables; do
    for family in ip ip6 inet; do
      if nft list table "$family" "$table" >/dev/null 2>&1; then nft delete table "$family" "$table"; fi
    done
  done
fi
