#!/usr/bin/env bash
# Shows the main job on real input: a three-node cluster on this machine, driven by kubectl,
# in which Services do their work through the kernel. Ends with `demo: N checks passed, 0 failed`.
#
# PORTOLAN  the binary to show (default: release/portolan in the target directory)
# KUBECTL   the kubectl to drive it with (default: kubectl)
# KEEP=1    leave the lab up afterwards
set -euo pipefail
cd "$(dirname "$0")/.."
PORTOLAN=$(realpath "${PORTOLAN:-${CARGO_TARGET_DIR:-target}/release/portolan}")
KUBECTL=${KUBECTL:-kubectl}
LAB=demo-$$
work=$(mktemp -d)
passed=0 failed=0
begun=$SECONDS
load_pid=

finish() {
  [ -n "$load_pid" ] && kill "$load_pid" 2>/dev/null
  [ "${KEEP:-}" = 1 ] || "$PORTOLAN" lab down --name "$LAB" >/dev/null 2>&1
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
say() { printf '   %s\n' "$*"; }
# What is only shown may fail: the checks judge.
quote() { sed 's/^/   /'; }
show() { printf '   \033[2m$ %s\033[0m\n' "$*"; { "$@" 2>&1 || true; } | quote; }
check() { # check "what holds" COMMAND...
  local what=$1
  shift
  if "$@" >"$work/check" 2>&1; then
    passed=$((passed + 1))
    printf '   \033[32m✓\033[0m %s\n' "$what"
  else
    failed=$((failed + 1))
    printf '   \033[31m✗ %s\033[0m\n' "$what"
    sed 's/^/     /' "$work/check"
  fi
}
k() { "$KUBECTL" -n shop "$@"; }
lab() { "$PORTOLAN" lab "$1" --name "$LAB" "${@:2}"; }
inside() { lab exec -n shop client -- "$@"; }          # a command in the client pod
ask() { inside "$PORTOLAN" ask "$@"; }                 # requests from the client pod
outside() { lab outside -- "$@"; }                     # a command at the client outside
digs() { inside dig +short "$@"; }
finds() { inside getent ahostsv4 "$1" | awk '{print $1}' | sort -u; }
all_are() { # all_are ADDRESS NAME...
  local address=$1 name
  shift
  for name; do test "$(finds "$name")" = "$address" || return 1; done
}
pods_are_named() { test "$(finds pods)" = "$(web_addresses)"; }
srv_names_pods() { digs "_http._tcp.pods.$zone" SRV | awk '$3 == 8080' | sort -u | wc -l | grep -qx 3; }
says_no() { inside dig "$1" | grep 'status: NXDOMAIN'; }
field() { k get "$1" -o "jsonpath=$2"; }
answered() { jq -e ".failed == 0 and (.answers | length) == $2" "$1"; } # FILE COUNT
no_failure() { jq -e '.failed == 0 and .requests > 100' "$work/$1"; }
load_begin() { load_from inside "$@"; } # load_begin NAME TARGET ARGS...: requests from the client pod until load_end
load_from() { # load_from PLACE NAME TARGET ARGS...: the same from another place
  local place=$1 name=$2
  shift 2
  exec {hold}> >("$place" "$PORTOLAN" ask "$@" --until-eof -c 4 --pause-ms 5 -o json >"$work/$name")
  load_pid=$!
}
load_end() {
  exec {hold}>&-
  wait "$load_pid" || true # the checks say what failed
  load_pid=
  say "$(jq -c '{requests, failed, answers, failures}' "$work/$1")"
}
asks_who() { ask "$1" -n 1 -o json | jq -e ".answers | keys[0] | test(\"$2\")"; }
on_node() { lab exec --node "$node" -- curl -sf "http://127.0.0.1:10249/$1"; }
ejected() { on_node ejected | jq -e --arg at "$1" 'map(.endpoint) == [$at]'; }
nobody_ejected() { on_node ejected | jq -e '. == []'; }
all_serve() { ask "http://$2" -n 60 -o json >"$work/$1" && answered "$work/$1" 3; }
has_events() { # has_events REASON...
  local reasons reason
  reasons=$(k get events -o 'jsonpath={.items[*].reason}')
  for reason; do grep -qw "$reason" <<<"$reasons" || return 1; done
}
test_no_endpoints() { ! k get endpointslices -l kubernetes.io/service-name=web -o 'jsonpath={.items[*].endpoints[*].addresses[*]}' | grep -q .; }
all_ready() { test "$("$KUBECTL" get nodes --no-headers | awk '$2 == "Ready"' | wc -l)" = 3; }
recovered() { # recovered ROUNDS: everything has been started so often again
  lab status -o json | jq -e "[.processes[] | select(.name != \"supervisor\").starts > $1] | all" &&
    "$KUBECTL" get --raw /readyz && all_ready
}
changes_reach_the_kernel() {
  k scale deployment/web --replicas=4 && k rollout status deployment/web --timeout=60s &&
    await 10 sees_four
}
sees_four() { ask "http://$vip" -n 80 -o json | jq -e '.failed == 0 and (.answers | length) == 4'; }
ingress_is_at() { test "$(field ingress/"$1" '{.status.loadBalancer.ingress[*].ip}')" = "203.0.113.1 2001:db8:113::1"; }
front() { # front FIELD PATTERN TARGET ARGS...: ten answers from outside, each with such a field
  outside "$PORTOLAN" ask "${@:3}" -n 10 --field "$1" -o json >"$work/front" || true
  cat "$work/front"
  jq -e --arg pattern "$2" '.failed == 0 and ([.answers | keys[] | test($pattern)] | all)' "$work/front"
}
fetched() { # fetched STATUS-AND-VERSION CURL-ARGS...
  local said
  said=$(outside curl --silent --max-time 10 --output /dev/null --write-out '%{http_code} %{http_version}' "${@:2}" || true)
  echo "$said"
  test "$said" = "$1"
}
refuses_certificate() { # refuses_certificate URL: curl ends with 60
  local code=0
  outside curl --silent --max-time 10 --cacert "$work/shop.crt" "$1" || code=$?
  echo "curl ended with $code"
  test "$code" = 60
}
watch_saw_both() { grep -q "^DELETED.*$web0" "$work/watch" && grep -q "^MODIFIED.* 1/1 *Running.* [0-9]s" "$work/watch"; }
gone() { ! readlink "/proc/$1/exe"; } # a process that has ended and was not reaped yet has none
web_addresses() { k get pods -l app=web -o json | jq -r '.items[].status.podIP' | sort; }
await() { # await SECONDS COMMAND...
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    read -rt 0.2 <> <(:) || true
  done
}

title "A cluster of three nodes on this machine"
lab up --nodes 3 -f examples/shop || { echo "demo: the lab did not start" >&2; exit 1; }
KUBECONFIG=$(lab status -o json | jq -r .kubeconfig)
export KUBECONFIG
check "every pod of the shop becomes ready" k wait --for=condition=Ready pod --all --timeout=60s
show "$KUBECTL" get nodes -o wide
show "$KUBECTL" -n shop get pods -o wide
show "$KUBECTL" -n shop get services
show "$KUBECTL" -n shop get endpointslices
check "three nodes are Ready" test "$("$KUBECTL" get nodes --no-headers | grep -cw Ready)" = 3
check "the pods of web are on more than one node" \
  test "$(k get pods -l app=web -o 'jsonpath={range .items[*]}{.spec.nodeName}{"\n"}{end}' | sort -u | wc -l)" -gt 1

title "One address, three pods: ClusterIP"
vip=$(field service/web '{.spec.clusterIP}')
vip6=$(field service/web '{.spec.clusterIPs[1]}')
say "The Service web has the virtual addresses $vip and $vip6. Nobody listens there: the kernel sends each new connection to a pod."
show lab exec -n shop client -- sh -c 'env | grep ^WEB_SERVICE'
ask "http://$vip" -n 60 | quote
ask "http://$vip" -n 60 -o json >"$work/vip"
check "60 requests to $vip reach all three pods, none fails" answered "$work/vip" 3
ask "http://[$vip6]" -n 60 -o json >"$work/vip6"
check "so do 60 requests to [$vip6]" answered "$work/vip6" 3
ask "udp://$(field service/web-udp '{.spec.clusterIP}'):$(field service/web-udp '{.spec.ports[0].port}')" -n 60 -o json >"$work/udp"
check "and 60 UDP datagrams to the Service web-udp" answered "$work/udp" 3
ask "http://$vip" -n 1 --field client -o json >"$work/source"
check "the pod sees the client's own address, $(field pod/client '{.status.podIP}')" \
  grep -q "$(field pod/client '{.status.podIP}')" "$work/source"
web0=$(k get pods -l app=web -o 'jsonpath={.items[0].metadata.name}')
lab exec -n shop "$web0" -- "$PORTOLAN" ask "http://$vip" -n 60 -o json >"$work/hairpin"
check "a pod behind the Service reaches all of them through it, itself too (hairpin)" answered "$work/hairpin" 3

title "Names: the Service kube-dns answers in every pod"
k apply -f - <<'EOF' | quote
apiVersion: v1
kind: Service
metadata: {name: pods}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: docs}
spec: {type: ExternalName, externalName: outside.example}
EOF
zone=shop.svc.cluster.local
show lab exec -n shop client -- cat /etc/resolv.conf
show lab exec -n shop client -- dig +noall +answer "_http._tcp.web.$zone" SRV
check "web, web.shop and web.$zone are $vip" all_are "$vip" web web.shop "web.$zone"
check "http://web is answered by a pod" asks_who http://web '^web-'
check "the headless Service pods is the addresses of the pods" await 10 pods_are_named
check "its SRV records name three pods and port 8080" await 10 srv_names_pods
check "docs is an alias of outside.example, at 203.0.113.2" all_are 203.0.113.2 docs
check "the address $vip is called web.$zone" test "$(digs -x "$vip")" = "web.$zone."
check "what the lab does not have does not exist, and nothing leaves the machine" says_no example.org

title "Pods die and come back with other addresses; the Service stays"
before=$(web_addresses)
mapfile -t old < <(k get pods -l app=web -o name)
k delete --wait=false "${old[@]}" | quote
k rollout status deployment/web --timeout=60s | quote
check "the old ones are gone" k wait --for=delete "${old[@]}" --timeout=30s
after=$(web_addresses)
say "before: $(echo $before)"
say "after:  $(echo $after)"
check "the pods have new addresses" test -z "$(comm -12 <(echo "$before") <(echo "$after"))"
check "the ClusterIP is still $vip" test "$(field service/web '{.spec.clusterIP}')" = "$vip"
ask "http://$vip" -n 60 -o json >"$work/again"
check "requests to it reach the new pods, none fails" jq -e '.failed == 0' "$work/again"

title "A rolling update under load"
load_begin rolling "http://$vip" --field version
k set env deployment/web VERSION=v2 | quote
k rollout status deployment/web --timeout=60s | quote
load_end rolling
check "$(jq .requests "$work/rolling") requests were made meanwhile and none failed" no_failure rolling
check "both versions answered while it went on" jq -e '.answers | length == 2' "$work/rolling"
check "the name pods has followed: it is the new pods, and nobody else" await 15 pods_are_named

title "NodePort: from outside, through every node"
port=$(field service/web-node '{.spec.ports[0].nodePort}')
for node in 1 2 3; do
  for address in "192.168.0.1$node" "[fd00:192:168::1$node]"; do
    lab outside -- "$PORTOLAN" ask "http://$address:$port" -n 30 -o json >"$work/np"
    check "http://$address:$port on node n$node answers from all three pods" answered "$work/np" 3
  done
done

title "A client stays with its pod: sessionAffinity ClientIP"
cart=$(field service/cart '{.spec.clusterIP}')
ask "http://$cart" -n 80 -o json >"$work/cart"
say "$(jq -c .answers "$work/cart")"
check "80 connections to the Service cart went to one pod" answered "$work/cart" 1

title "A Service in front of an address outside the cluster"
db=$(field service/db '{.spec.clusterIP}')
db_port=$(field service/db '{.spec.ports[0].port}')
show "$KUBECTL" -n shop get endpointslices -l kubernetes.io/service-name=db
lab outside -- "$PORTOLAN" echo --name database --http 0 --tcp 5432 >"$work/database" 2>&1 &
database_pid=$!
check "tcp://$db:$db_port is answered by the database at 203.0.113.2" \
  await 10 asks_who "tcp://$db:$db_port" database
kill "$database_pid" || true
wait "$database_pid" || true

title "The front door: Ingress"
say "The lab's gateway serves at 203.0.113.1, and every name below apps.example is there."
k apply -f - <<'EOF' | quote
apiVersion: v1
kind: Service
metadata: {name: api}
spec: {selector: {app: api}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: api-next}
spec: {selector: {app: api-next}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec: {containers: [{name: echo, image: portolan/echo, env: [{name: VERSION, value: v1}]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api-next}
spec:
  selector: {matchLabels: {app: api-next}}
  template:
    metadata: {labels: {app: api-next}}
    spec: {containers: [{name: echo, image: portolan/echo, env: [{name: VERSION, value: v2}]}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: api}
spec:
  rules:
  - host: api.apps.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}]}
  - host: shop.apps.example
    http: {paths: [{path: /api, pathType: Prefix, backend: {service: {name: api, port: {name: http}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: old
  annotations: {nginx.ingress.kubernetes.io/use-regex: "true", nginx.ingress.kubernetes.io/rewrite-target: /$2}
spec:
  rules:
  - host: shop.apps.example
    http: {paths: [{path: "/v1(/|$)(.*)", pathType: ImplementationSpecific, backend: {service: {name: api, port: {name: http}}}}]}
EOF
k rollout status deployment/api --timeout=60s | quote
k rollout status deployment/api-next --timeout=60s | quote
check "the Ingresses have the address of the gateway" await 10 ingress_is_at old
show "$KUBECTL" -n shop get ingress
shop=http://shop.apps.example
check "$shop/ is answered by web" await 10 front pod '^web-' $shop/
check "the host api.apps.example is answered by api" await 10 front pod '^api-' http://api.apps.example/
check "and so is the path /api of the shop" await 10 front pod '^api-' $shop/api/orders
check "/apiary, which only begins with the same letters, is web's" front pod '^web-' $shop/apiary
check "a host without rules is nobody's: 404" fetched "404 1.1" http://nobody.apps.example/
check "by IPv6, too" fetched "200 1.1" -6 $shop/
check "rewrite-target: /v1/orders?open=1 reaches api as /orders?open=1" await 10 front path '^/orders.open=1$' "$shop/v1/orders?open=1"

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=shop.apps.example -addext subjectAltName=DNS:shop.apps.example \
  -keyout "$work/shop.key" -out "$work/shop.crt" 2>/dev/null
k create secret tls shop --cert="$work/shop.crt" --key="$work/shop.key" | quote
k patch ingress shop -p '{"spec":{"tls":[{"hosts":["shop.apps.example"],"secretName":"shop"}]}}' | quote
check "TLS with the certificate of the Secret, and HTTP/2" \
  await 10 fetched "200 2" --cacert "$work/shop.crt" https://shop.apps.example/
check "a client refuses that certificate for another host" refuses_certificate https://api.apps.example/
check "HTTP is sent to HTTPS: 308" fetched "308 1.1" $shop/
k patch ingress shop --type json -p '[{"op":"remove","path":"/spec/tls"}]' | quote
check "until the Ingress has no certificate any more" await 10 fetched "200 1.1" $shop/

k apply -f - <<'EOF' | quote
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: api-next
  annotations:
    nginx.ingress.kubernetes.io/canary: "true"
    nginx.ingress.kubernetes.io/canary-by-header: X-Next
    nginx.ingress.kubernetes.io/canary-weight: "30"
spec:
  rules:
  - host: api.apps.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: api-next, port: {name: http}}}}]}
EOF
check "canary: requests with the header X-Next: always go to the next version" \
  await 10 front version '^v2$' http://api.apps.example/ --header 'X-Next: always'
check "with X-Next: never none of them" front version '^v1$' http://api.apps.example/ --header 'X-Next: never'
outside "$PORTOLAN" ask http://api.apps.example/ -n 300 --field version -o json >"$work/canary"
say "$(jq -c .answers "$work/canary")"
check "and of 300 others about 90" jq -e '.failed == 0 and .answers.v2 > 45 and .answers.v2 < 135' "$work/canary"

check "a WebSocket: each message is answered by a pod of web" front pod '^web-' ws://shop.apps.example/chat
load_from outside front-door "$shop/" --field version
k set env deployment/web VERSION=v3 | quote
k rollout status deployment/web --timeout=60s | quote
load_end front-door
check "a rolling update: $(jq .requests "$work/front-door") requests were made through the gateway meanwhile and none failed" no_failure front-door
check "both versions answered while it went on" jq -e '.answers | length == 2' "$work/front-door"
"$PORTOLAN" gateway routes >"$work/routes"
quote <"$work/routes"
check "portolan gateway routes shows the canary, and no Problem" \
  test "$(grep -c 'canary: shop/api-next' "$work/routes") $(grep -c '^problem:' "$work/routes")" = "1 0"
k delete ingress/api ingress/api-next ingress/old deployment/api deployment/api-next service/api service/api-next | quote

title "A process hangs: out of rotation, although it is listed as ready"
k apply -f - <<'EOF' | quote
apiVersion: v1
kind: Service
metadata: {name: steady}
spec: {selector: {app: steady}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: steady}
spec:
  replicas: 3
  selector: {matchLabels: {app: steady}}
  template: # Without probes, so that nobody else notices.
    metadata: {labels: {app: steady}}
    spec: {containers: [{name: echo, image: portolan/echo}]}
EOF
k rollout status deployment/steady --timeout=60s | quote
steady=$(field service/steady '{.spec.clusterIP}')
hung=$(k get pods -l app=steady -o 'jsonpath={.items[0].metadata.name}')
at=$(field "pod/$hung" '{.status.podIP}'):8080
node=$(field pod/client '{.spec.nodeName}')
check "all three serve" await 10 all_serve steady "$steady"
lab exec -n shop "$hung" -- sh -c 'kill -STOP -1' && say "stopped $hung: its kernel takes connections, and nobody answers"
load_begin hang "http://$steady" --timeout-ms 3000
check "node $node sends it no more connections" await 15 ejected "$at"
show lab exec --node "$node" -- curl -s http://127.0.0.1:10249/ejected
check "it is still listed as ready" test "$(k get endpointslices -l kubernetes.io/service-name=steady -o 'jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}' | wc -w)" = 3
ask "http://$steady" -n 60 -o json >"$work/steady"
check "60 requests are answered by the other two, none fails" answered "$work/steady" 2
lab exec -n shop "$hung" -- sh -c 'kill -CONT -1' && say "$hung goes on"
check "it comes back when it answers" await 15 nobody_ejected
load_end hang
check "all three serve again" await 10 all_serve steady "$steady"
check "the Service has Events about it" await 10 has_events EndpointEjected EndpointReadmitted
k delete deployment/steady service/steady | quote

title "Nobody behind a Service: an error at once, not a timeout"
k scale deployment/web --replicas=0 | quote
check "the Service has no endpoints any more" await 30 test_no_endpoints
ask "http://$vip" -n 1 --timeout-ms 2000 -o json >"$work/none" || true
say "$(jq -r '.failures | keys[0]' "$work/none")"
check "the connection is refused" grep -q 'refused' "$work/none"
k scale deployment/web --replicas=3 | quote
check "and served again after scaling up" k rollout status deployment/web --timeout=60s

title "kill -9, while requests flow"
pods_before=$(k get pods -o 'jsonpath={range .items[*]}{.metadata.name}{" "}{.status.podIP}{" "}{.status.containerStatuses[0].restartCount}{"\n"}{end}')
load_begin crash "http://$vip"
for round in 1 2 3; do
  for part in agent-n1 agent-n2 agent-n3 apiserver dns-n1 dns-n2 dns-n3 dns-outside gateway; do
    kill -9 "$(lab status -o json | jq ".processes[] | select(.name == \"$part\").pid")" && say "killed $part"
  done
  check "round $round: the supervisor has started all of them again, the API answers, all nodes are Ready" await 40 recovered "$round"
done
load_end crash
check "$(jq .requests "$work/crash") requests were made meanwhile and none failed" no_failure crash
check "no pod was restarted or replaced" test "$pods_before" = \
  "$(k get pods -o 'jsonpath={range .items[*]}{.metadata.name}{" "}{.status.podIP}{" "}{.status.containerStatuses[0].restartCount}{"\n"}{end}')"
check "a change after it reaches the kernel of every node" changes_reach_the_kernel
check "and every answerer of names" await 10 pods_are_named
check "and the gateway" await 10 front pod '^web-' $shop/

title "kubectl is at home here"
web0=$(k get pods -l app=web -o 'jsonpath={.items[0].metadata.name}')
show "$KUBECTL" -n shop logs "$web0"
k logs "$web0" >"$work/logs"
check "kubectl logs shows the pod's output" grep -q "$web0 is ready" "$work/logs"
show "$KUBECTL" -n shop describe service web
k describe service web >"$work/describe"
check "kubectl describe names the endpoints" grep -q '^Endpoints:.*:8080' "$work/describe"
k get pods -w --output-watch-events --no-headers >"$work/watch" 2>&1 &
watch_pid=$!
k delete pod "$web0" --wait=false | quote
check "kubectl get -w sees a pod go and another one come" await 30 watch_saw_both
kill "$watch_pid" || true
wait "$watch_pid" || true

if [ "${KEEP:-}" != 1 ]; then
  title "Nothing stays behind"
  supervisor=$(lab status -o json | jq .supervisor)
  lab down | quote
  check "the supervisor, and every process and namespace with it, is gone" gone "$supervisor"
fi

printf '\nLook around by hand:\n'
cat <<EOF2
   PATH=$PWD/target/release:\$PATH
   portolan lab up -f examples/shop           # a cluster of three nodes
   export KUBECONFIG=\$(portolan lab status -o json | jq -r .kubeconfig)
   kubectl -n shop get all
   portolan lab exec -n shop client -- portolan ask http://web -n 9
   portolan lab outside -- curl http://shop.apps.example/
   portolan lab exec --node n1 -- nft list table ip portolan
   portolan lab down
EOF2
printf '\n%s s\n' "$((SECONDS - begun))"
echo "demo: $passed checks passed, $failed failed"
[ "$failed" = 0 ]
