{{- /* Which distribution this is. */}}
{{- define "multus-ebpf.preset" -}}
{{- if ne .Values.preset "auto" }}{{ .Values.preset }}
{{- else }}
{{- $version := .Values.kubeVersion | default .Capabilities.KubeVersion.Version }}
{{- if contains "+k3s" $version }}
{{- /* When K3s gave plugins a folder that upgrades leave alone. */}}
{{- if semverCompare "<1.28.15-0 || >=1.29.0-0 <1.29.10-0 || >=1.30.0-0 <1.30.6-0 || >=1.31.0-0 <1.31.2-0" $version }}k3s-old{{ else }}k3s{{ end }}
{{- else if contains "+rke2" $version }}rke2
{{- else if contains "+k0s" $version }}k0s
{{- else if contains "-gke." $version }}gke
{{- else if contains "-eks-" $version }}eks
{{- else if .Capabilities.APIVersions.Has "security.openshift.io/v1" }}openshift
{{- else }}kubeadm
{{- end }}
{{- end }}
{{- end }}

{{- define "multus-ebpf.facts" -}}
{{- $presets := .Files.Get "files/presets.yaml" | fromYaml }}
{{- get $presets (include "multus-ebpf.preset" .) | default dict | toYaml }}
{{- end }}

{{- /* daemon-config.json: the base's, the preset's, then the operator's, the old chart's keys first. */}}
{{- define "multus-ebpf.config" -}}
{{- $config := .Files.Get "files/daemon-config.json" | fromJson }}
{{- $facts := include "multus-ebpf.facts" . | fromYaml }}
{{- $given := omit .Values.config "daemon_conf" }}
{{- $old := .Values.config.daemon_conf | default dict }}
{{- $config = mergeOverwrite $config ($facts.config | default dict) (dict "metricsAddress" .Values.metrics.address) }}
{{- range $key, $value := $old }}
{{- /* Those paths were seen through mounts at /hostroot or /host, which there are none of here. */}}
{{- if kindIs "string" $value }}
{{- range $prefix := list "/hostroot/" "/host/" }}
{{- if hasPrefix $prefix $value }}{{- $value = print "/" (trimPrefix $prefix $value) }}{{- end }}
{{- end }}
{{- end }}
{{- if not (has $key (list "chrootDir" "multusConfigFile")) }}{{- $_ := set $config $key $value }}{{- end }}
{{- end }}
{{- $config = mergeOverwrite $config $given }}
{{- /* The shim looks where the agent listens, unless it is said otherwise. */}}
{{- if not (or (hasKey $given "daemonSocketDir") (hasKey $old "daemonSocketDir")) }}{{- $_ := set $config "daemonSocketDir" (clean $config.socketDir) }}{{- end }}
{{- toJson $config }}
{{- end }}

{{- define "multus-ebpf.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "multus-ebpf.pullPolicy" -}}
{{- $facts := include "multus-ebpf.facts" . | fromYaml }}
{{- with .Values.image.pullPolicy | default $facts.imagePullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{- define "multus-ebpf.labels" -}}
app.kubernetes.io/name: multus-ebpf
{{- end }}

{{- /* Values that are wrong together, or of the chart of rke2-multus: refused, with what to write instead. */}}
{{- define "multus-ebpf.refusals" -}}
{{- if hasKey .Values.thickPlugin "enabled" }}
{{- if not .Values.thickPlugin.enabled }}{{ fail "thickPlugin.enabled: there is no thin mode in this chart; remove the value" }}{{ end }}
{{- end }}
{{- if hasKey .Values.thickPlugin "image" }}{{ fail "thickPlugin.image: write image.repository and image.tag" }}{{ end }}
{{- range $key, $value := omit .Values.thickPlugin "enabled" }}{{ fail (printf "thickPlugin.%s: unknown; keys of the daemon's configuration go into config" $key) }}{{ end }}
{{- if hasKey .Values.config "cni_conf" }}{{ fail "config.cni_conf: the conf for the runtime is made by the agent; write cniConfigDir, binDir, clusterNetwork and the like directly into config" }}{{ end }}
{{- range $key := list "path" "fname" }}
{{- if hasKey $.Values.config $key }}{{ fail (printf "config.%s: the file's place is fixed; write config.cniConfigDir for the folder of the runtime's files" $key) }}{{ end }}
{{- end }}
{{- range $old, $new := dict "manifests" "crds.install, and nothing else can be left out" "dynamicNetworksController" "hostExec; the controller is installed by itself" "rke2-whereabouts" "nothing; install whereabouts by itself" "pod" "resources" "labels" "nodeSelector" "serviceAccount" "nothing; its name is multus-ebpf" "cniplugins" "nothing; the nodes have their plugins from the distribution, or from containernetworking-plugins" "dhcpDaemonSet" "nothing; a DHCP daemon of the CNI plugins is installed by itself" }}
{{- if hasKey $.Values $old }}{{ fail (printf "%s: a value of another chart; here it is %s" $old $new) }}{{ end }}
{{- end }}
{{- if or .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled }}
{{- if regexMatch "^(127\\.|localhost|\\[::1\\])" .Values.metrics.address }}{{ fail "metrics.address: Prometheus does not reach loopback; write \":9479\", and keep the port behind the nodes' firewall" }}{{ end }}
{{- end }}
{{- if hasKey .Values.config "metricsAddress" }}{{ fail "config.metricsAddress: write metrics.address" }}{{ end }}
{{- end }}
