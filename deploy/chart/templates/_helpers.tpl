{{- define "middleway.labels" -}}
app: middleway
app.kubernetes.io/name: middleway
app.kubernetes.io/part-of: middleway
{{- if not .Values.plain }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
{{- end }}

{{- define "middleway.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "middleway.fdstore" -}}
/run/middleway/fdstore.sock
{{- end }}

{{- /* What would not work is told here, before it is installed. */ -}}
{{- define "middleway.check" -}}
{{- if and .Values.kubeProxyReplacement (not .Values.kubernetes.server) }}
{{- fail "kubernetes.server: without kube-proxy nothing leads to the Service kubernetes; give the API server's own address, as https://192.168.254.11:6443" }}
{{- end }}
{{- if and .Values.kubeProxyReplacement (not .Values.services.cidrs) }}
{{- fail "services.cidrs: without kube-proxy the nodes need a route for Services; give the API server's --service-cluster-ip-range, as {10.96.0.0/12}" }}
{{- end }}
{{- if and .Values.dns.enabled (not .Values.dns.addresses) (not .Values.services.cidrs) }}
{{- fail "dns.addresses: where the DNS Service is has to be said, by them or by services.cidrs, whose tenth address it then is" }}
{{- end }}
{{- range $field, $instead := dict
  "http" "set metrics.port and metrics.public, which the probes follow"
  "fdStore" "set fdStore.enabled, for which the chart has a container"
  "runDir" "leave it out, since the node's /run/middleway is mounted there"
  "name" "leave it out, since the pod has the Node's name" }}
{{- if hasKey $.Values.config $field }}
{{- fail (printf "config.%s: this field is the chart's; %s" $field $instead) }}
{{- end }}
{{- end }}
{{- if hasKey (get .Values.config "cni" | default dict) "conflist" }}
{{- fail "config.cni.conflist: this field is the chart's; set cni.confDir, which is mounted for it" }}
{{- end }}
{{- if and .Values.dns.service.create (or (not .Values.dns.enabled) (not .Values.dns.addresses)) }}
{{- fail "dns.service.create: a Service kube-dns without a selector is for dns.enabled, and its address is the first of dns.addresses" }}
{{- end }}
{{- end }}

{{- define "middleway.checkToFlannel" -}}
{{- $differs := false }}
{{- range $label, $value := .Values.toFlannel.nodeSelector }}
{{- with get $.Values.nodeSelector $label }}{{ if ne . $value }}{{ $differs = true }}{{ end }}{{ end }}
{{- end }}
{{- if and .Values.toFlannel.nodeSelector (not $differs) }}
{{- fail "toFlannel.nodeSelector: its nodes would have the daemon too; give nodeSelector the same label with another value, as network=middleway and network=leaving" }}
{{- end }}
{{- end }}

{{- /* The daemon's configuration, node.yaml. Numbers of values are float64, which would print large ones with an exponent. */ -}}
{{- define "middleway.config" -}}
{{- $v := .Values }}
{{- $kubernetes := dict "inCluster" true }}
{{- with $v.kubernetes.server }}{{ $_ := set $kubernetes "server" . }}{{ end }}
{{- $dns := dict "off" true }}
{{- if $v.dns.enabled }}
{{- $dns = dict "off" false "domain" $v.dns.domain }}
{{- with $v.dns.addresses }}{{ $_ := set $dns "addresses" . }}{{ end }}
{{- with $v.dns.upstreams }}{{ $_ := set $dns "upstreams" . }}{{ end }}
{{- end }}
{{- $services := dict "besideKubeProxy" (not $v.kubeProxyReplacement) }}
{{- with $v.services.cidrs }}{{ $_ := set $services "cidrs" . }}{{ end }}
{{- $config := dict
  "kubernetes" $kubernetes
  "services" $services
  "dns" $dns
  "vxlan" (dict "vni" (int $v.vxlan.vni) "port" (int $v.vxlan.port))
  "cni" (dict "conflist" "/host/etc/cni/net.d/10-middleway.conflist")
  "http" (printf "%s:%d" (ternary "" "127.0.0.1" $v.metrics.public) (int $v.metrics.port))
  "runDir" "/run/middleway"
}}
{{- if $v.fdStore.enabled }}{{ $_ := set $config "fdStore" (include "middleway.fdstore" .) }}{{ end }}
{{- if $v.mtu }}{{ $_ := set $config "mtu" (int $v.mtu) }}{{ end }}
{{- if not $v.egress.enabled }}{{ $_ := set $config "egress" (dict "off" true) }}{{ end }}
{{- with $v.nodePorts.addresses }}{{ $_ := set $config "nodePorts" (dict "addresses" .) }}{{ end }}
{{- $underlay := dict }}
{{- range $name := list "interface" "cidr" "canReach" "ipv6" }}
{{- with get $v.underlay $name }}{{ $_ := set $underlay $name . }}{{ end }}
{{- end }}
{{- with $underlay }}{{ $_ := set $config "underlay" . }}{{ end }}
{{- mergeOverwrite $config (deepCopy $v.config) | toYaml }}
{{- end }}
