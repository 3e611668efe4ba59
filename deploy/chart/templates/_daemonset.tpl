{{- /* A DaemonSet of the list: the chart, "middleway", and whether its pods are the daemon's; else they clean the node. "middleway-to-flannel" leaves
what the Node object says of the tunnel. */ -}}
{{- define "middleway.daemonset" -}}
{{- $root := index . 0 }}
{{- $name := index . 1 }}
{{- $clean := index . 2 }}
{{- $toFlannel := ne $name "middleway" }}
{{- $v := $root.Values }}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "middleway.daemonset.labels" . | nindent 4 }}
spec:
  selector:
    matchLabels:
      app: {{ $name }}
  {{- if not $clean }}
  minReadySeconds: {{ int $v.minReadySeconds }} # so long the old daemon stands by
  {{- end }}
  updateStrategy:
    type: RollingUpdate
    rollingUpdate:
      {{- if $clean }}
      maxUnavailable: 100%
      {{- else }}
      maxSurge: {{ $v.maxSurge }} # the next daemon is started beside the one at work, which gives way to it
      maxUnavailable: {{ $v.maxUnavailable }}
      {{- end }}
  template:
    metadata:
      labels:
        {{- include "middleway.daemonset.labels" . | nindent 8 }}
        {{- with $v.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      annotations:
        kubectl.kubernetes.io/default-container: node
        {{- if not $v.plain }}
        middleway.net/config: {{ include "middleway.config" $root | sha256sum }}
        {{- end }}
        {{- with $v.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      serviceAccountName: middleway
      automountServiceAccountToken: true # the API server, as whom
      hostNetwork: true # the node's address is where the tunnel ends, and the host is joined to the pods by a device there
      dnsPolicy: Default # the cluster's names are what this brings
      priorityClassName: {{ $v.priorityClassName }}
      terminationGracePeriodSeconds: {{ int $v.terminationGracePeriodSeconds }}
      {{- with $v.image.pullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 6 }}
      {{- end }}
      {{- with ternary $v.toFlannel.nodeSelector $v.nodeSelector $toFlannel }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with ternary dict $v.affinity $toFlannel }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      tolerations: {{- toYaml $v.tolerations | nindent 6 }}
      securityContext:
        runAsUser: 0 # owns the node's directories below; capabilities are none but those named
        seccompProfile:
          type: RuntimeDefault # setns is open in it to who has SYS_ADMIN
        {{- with $v.seLinuxOptions }}
        seLinuxOptions: {{- toYaml . | nindent 10 }}
        {{- end }}
      initContainers:
      {{- if $clean }}
      - name: cleanup
        image: {{ include "middleway.image" $root }}
        imagePullPolicy: {{ $v.image.pullPolicy }}
        args: [node, --cleanup, --config=/etc/middleway/node.yaml, --name=$(NODE_NAME), --bin-dir=/host/opt/cni/bin{{ if $toFlannel }}, --to-flannel{{ end }}]
        {{- include "middleway.node" $root | nindent 8 }}
        - name: cni-bin
          mountPath: /host/opt/cni/bin
      {{- else }}
      - name: install
        image: {{ include "middleway.image" $root }}
        imagePullPolicy: {{ $v.image.pullPolicy }}
        args: [install, --bin-dir=/host/opt/cni/bin]
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop: [ALL]
            add: [DAC_OVERRIDE] # the directory is another user's on some nodes
        volumeMounts:
        - name: cni-bin
          mountPath: /host/opt/cni/bin
      {{- end }}
      containers:
      {{- if and $v.fdStore.enabled (not $clean) }}
      - name: fdstore
        image: {{ include "middleway.image" $root }}
        imagePullPolicy: {{ $v.image.pullPolicy }}
        args: [fdstore, {{ include "middleway.fdstore" $root }}, --log-level={{ $v.log.level }}, --log-format={{ $v.log.format }}]
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop: [ALL]
        volumeMounts:
        - name: run # for the daemons of this pod and of the next one
          mountPath: /run/middleway
        resources: {{- toYaml $v.fdStore.resources | nindent 10 }}
      {{- end }}
      - name: node
        image: {{ include "middleway.image" $root }}
        imagePullPolicy: {{ $v.image.pullPolicy }}
        {{- if $clean }}
        args: [tool, serve, --listen=127.0.0.1:{{ int $v.metrics.port }}] # the node is clean now; this waits to be deleted
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities:
            drop: [ALL]
        {{- else }}
        args: [node, --config=/etc/middleway/node.yaml, --name=$(NODE_NAME), --log-level={{ $v.log.level }}, --log-format={{ $v.log.format }}]
        {{- include "middleway.node" $root | nindent 8 }}
        startupProbe: # it answers at once; where another program has the port, it waits for that
          httpGet:
            host: 127.0.0.1
            port: {{ int $v.metrics.port }}
            path: /healthz
          periodSeconds: 2
          failureThreshold: 1800
        livenessProbe: # a worker that does not come round; it looks for 5 s itself
          httpGet:
            host: 127.0.0.1
            port: {{ int $v.metrics.port }}
            path: /healthz
          timeoutSeconds: 6
        readinessProbe: # pods can be attached and reached
          httpGet:
            host: 127.0.0.1
            port: {{ int $v.metrics.port }}
            path: /readyz
          periodSeconds: 5
        resources: {{- toYaml $v.resources | nindent 10 }}
        {{- end }}
      volumes:
      - name: config
        configMap:
          name: middleway
      - name: run
        hostPath:
          path: /run/middleway
          type: DirectoryOrCreate
      - name: netns
        hostPath:
          path: /run/netns
          type: DirectoryOrCreate
      - name: tun
        hostPath:
          path: /dev/net/tun
          type: CharDevice
      - name: cni-bin
        hostPath:
          path: {{ $v.cni.binDir }}
          type: DirectoryOrCreate
      - name: cni-net
        hostPath:
          path: {{ $v.cni.confDir }}
          type: DirectoryOrCreate
{{- end }}

{{- /* Whoever looks for daemons does so by both names, and is not to find what cleans. */ -}}
{{- define "middleway.daemonset.labels" -}}
{{- include "middleway.labels" (index . 0) | replace "app: middleway" (print "app: " (index . 1)) | replace "/name: middleway" (print "/name: " (index . 1)) }}
{{- end }}
