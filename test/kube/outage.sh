# Sourced by run.sh: what goes on while the API server is away.
ns=outage
kc delete namespace $ns --ignore-not-found --wait >/dev/null
kc create namespace $ns >/dev/null
image=$(ls "$KUBE_DIR/images" | sed -n 's/^agnhost.tar$/agnhost/p'); [ -n "$image" ] || die "no agnhost image in $KUBE_DIR/images: run the harness's build.sh"
image=$("$KUBE_HARNESS/node-exec.sh" ${PREFIX}1 "$BIN/ctr" -n k8s.io images ls -q | grep /agnhost: | head -1)
kc -n $ns apply -f - >/dev/null <<T
apiVersion: v1
kind: Pod
metadata: {name: files, labels: {app: files}}
spec:
  nodeName: ${PREFIX}2
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: $image
    command: [sh, -c, "mkdir /www && dd if=/dev/urandom of=/www/blob bs=1M count=200 2>/dev/null && sha256sum /www/blob >/www/sum && exec busybox httpd -f -p 8080 -h /www"]
    readinessProbe: {httpGet: {path: /sum, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: files}
spec: {selector: {app: files}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: $image, args: [netexec, --http-port=8080], readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: ${PREFIX}1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: $image, command: [sleep, infinity]}]
T
kc -n $ns wait --for=condition=Ready pod --all --timeout=120s >/dev/null
files=$(kc -n $ns get service files -o 'jsonpath={.spec.clusterIP}')
web=$(kc -n $ns get service web -o 'jsonpath={.spec.clusterIP}')
node=${PREFIX}1

# run a command in the client's network and files, without the API server
client_pid=$(in_node $node pgrep -f -x 'sleep infinity' | head -1)
in_client() { in_node $node nsenter -t "$client_pid" -n -r -w -- "$@"; }
# the names of the backends that answer
answers() { for _ in $(seq 30); do in_client curl -s -m 2 "http://$web/hostname" || echo none; echo; done | sort | uniq -c | awk 'NF' ; }
stop_api() { in_node $node bash -c 'p=$(cat /run/apiserver.pid); w=$(awk "/PPid/{print \$2}" /proc/$p/status); echo $w >/run/apiserver.parent; kill -STOP $w; kill -9 $p'; }
start_api() {
  in_node $node bash -c 'kill -CONT $(cat /run/apiserver.parent)'
  for _ in $(seq 300); do kc get --raw /readyz >/dev/null 2>&1 && return; sleep 0.2; done
  die "the API server did not come back"
}
kill_daemon() { in_node "$1" bash -c 'kill -9 $(cat /run/middleway.pid); setsid /run/start-middleway >>'"$LOG/$1"'-middleway.log 2>&1 </dev/null & echo $! >/run/middleway.pid'; }

want=$(in_client curl -s "http://$files/sum" | cut -d' ' -f1)
say "both backends answer:"; answers
[ "$(answers | wc -l)" = 2 ] || die "not both backends answer"

say "the API server is stopped"; stop_api; sleep 2
say "a transfer of 200 MB through the ClusterIP begins; the client's daemon is killed in its middle, and the server's later"
in_client sh -c "curl -s --limit-rate 20M http://$files/blob | sha256sum" >"$STATE/outage.sum" &
transfer=$!
sleep 3; kill_daemon $node; say "daemon of $node killed and started"
sleep 3; kill_daemon ${PREFIX}2; say "daemon of ${PREFIX}2 killed and started"
wait $transfer || die "the transfer ended early"
got=$(cut -d' ' -f1 "$STATE/outage.sum")
[ "$got" = "$want" ] || die "the transfer's hash is $got, want $want"
say "the transfer went on: hash equal, $want"
sleep "${AWAY:-50}"
say "still without API server:"; answers
[ "$(answers | wc -l)" = 2 ] && ! answers | grep -q none || die "Services do not go on without API server"

start_api; say "the API server is back"
kc -n $ns scale deployment web --replicas=4 >/dev/null
kc -n $ns rollout status deployment web --timeout=120s >/dev/null
sleep 1; say "four backends:"; answers
[ "$(answers | wc -l)" = 4 ] || die "the tables did not follow"
kc -n $ns scale deployment web --replicas=1 >/dev/null
for _ in $(seq 50); do [ "$(kc -n $ns get endpointslices -l kubernetes.io/service-name=web -o 'jsonpath={.items[*].endpoints[*].targetRef.name}' | wc -w)" = 1 ] && break; sleep 0.2; done
sleep 0.2; say "one backend:"; answers
[ "$(answers | wc -l)" = 1 ] || die "the tables did not follow"
kc delete namespace $ns --wait=false >/dev/null
say "passed"
