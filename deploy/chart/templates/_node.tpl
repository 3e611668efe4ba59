{{- /* What the daemon may do, and has; the cleanup after it needs the same. Ends with the list of mounts. */ -}}
{{- define "middleway.node" -}}
env:
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: POD_NAMESPACE # which pod Events about mistakes are about, beside the node
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
securityContext:
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add:
    - NET_ADMIN # makes TUN devices, gives them addresses and routes
    - SYS_ADMIN # enters the pods' network namespaces, to take their devices up again after a restart
    - NET_BIND_SERVICE # host ports and ports of externalIPs below 1024
    - DAC_OVERRIDE # writes to the directories of CNI where these are another user's, as some installers leave them
volumeMounts:
- name: config
  mountPath: /etc/middleway
  readOnly: true
- name: run # flows, leases and sockets, for the plugin and for the next daemon
  mountPath: /run/middleway
- name: netns # the pods' network namespaces by name, those to come as well
  mountPath: /run/netns
  mountPropagation: HostToContainer
- name: netns # as containerd names it; /var/run is a link in some images only
  mountPath: /var/run/netns
  mountPropagation: HostToContainer
- name: tun # every pod's interface, and the host's
  mountPath: /dev/net/tun
- name: cni-net # the network configuration, which is there while the daemon has served once
  mountPath: /host/etc/cni/net.d
{{- end }}
