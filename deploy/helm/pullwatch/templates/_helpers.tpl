{{- define "pullwatch.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "pullwatch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pullwatch.selector" -}}
app.kubernetes.io/name: {{ include "pullwatch.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pullwatch.labels" -}}
{{ include "pullwatch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "pullwatch.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* The configuration of pullwatch: sources by the mode, then the values under `config` over everything. */}}
{{- define "pullwatch.config" -}}
{{- $name := include "pullwatch.fullname" . -}}
{{- $source := dict -}}
{{- if eq .Values.mode "webhook" -}}
{{- $source = dict "type" "webhook" "name" "webhook" "listen" (printf "0.0.0.0:%d" (int .Values.webhook.port)) "tls" (dict "certificate" "/etc/pullwatch/tls/tls.crt" "key" "/etc/pullwatch/tls/tls.key") "token_file" "/etc/pullwatch/webhook/token" -}}
{{- else if eq .Values.mode "kafka" -}}
{{- $source = dict "type" "kafka" "name" "kafka" "brokers" .Values.kafka.brokers "topics" .Values.kafka.topics "group" .Values.kafka.group "instance_id" "${POD_NAME}" -}}
{{- if .Values.kafka.correlationTopic -}}
{{- $source = set $source "correlate" (dict "topic" .Values.kafka.correlationTopic) -}}
{{- end -}}
{{- $source = mergeOverwrite $source .Values.kafka.source -}}
{{- else -}}
{{- $source = dict "type" "file" "name" "audit" "paths" (list (printf "%s/%s" .Values.daemonset.logDirectory .Values.daemonset.logFile)) -}}
{{- end -}}
{{- $server := dict "listen" (printf "0.0.0.0:%d" (int .Values.server.port)) "hosts" (list (printf "%s.%s.svc" $name .Release.Namespace) (printf "*.%s.%s.svc" $name .Release.Namespace)) -}}
{{- if eq .Values.mode "static-pod" -}}
{{- $server = dict "listen" (printf "127.0.0.1:%d" (int .Values.server.port)) -}}
{{- else if .Values.server.tokenSecret -}}
{{- $server = set $server "token_file" "/etc/pullwatch/server/token" -}}
{{- end -}}
{{- $rules := list "builtin" "/etc/pullwatch/rules.d" -}}
{{- if eq .Values.mode "static-pod" -}}
{{- $rules = list "builtin" -}}
{{- end -}}
{{- $config := dict "state_dir" "/var/lib/pullwatch" "rules" $rules "sources" (list $source) "sinks" .Values.sinks "server" $server -}}
{{- if .Values.cluster -}}
{{- $config = set $config "labels" (dict "cluster" .Values.cluster) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config .Values.config) -}}
{{- end -}}

{{/* The container, without what differs between the modes. */}}
{{- define "pullwatch.container" -}}
image: {{ include "pullwatch.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run, --config, /etc/pullwatch/config/pullwatch.yaml]
ports:
  - {name: http, containerPort: {{ .Values.server.port }}}
{{- if eq .Values.mode "webhook" }}
  - {name: webhook, containerPort: {{ .Values.webhook.port }}}
{{- end }}
env:
  # The image listens on all addresses and requires a token. Here the configuration decides.
  - {name: PULLWATCH_LISTEN, value: ""}
{{- if eq .Values.mode "kafka" }}
  # Member id of the consumer group: after a restart a replica gets its partitions back at once.
  - name: POD_NAME
    valueFrom:
      fieldRef: {fieldPath: metadata.name}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . | indent 2 }}
{{- end }}
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 10
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: state, mountPath: /var/lib/pullwatch}
  - {name: config, mountPath: /etc/pullwatch/config, readOnly: true}
  - {name: rules, mountPath: /etc/pullwatch/rules.d, readOnly: true}
{{- if eq .Values.mode "daemonset" }}
  - {name: audit-log, mountPath: {{ .Values.daemonset.logDirectory }}, readOnly: true}
{{- end }}
{{- if eq .Values.mode "webhook" }}
  - {name: tls, mountPath: /etc/pullwatch/tls, readOnly: true}
  - {name: webhook-token, mountPath: /etc/pullwatch/webhook, readOnly: true}
{{- end }}
{{- if .Values.server.tokenSecret }}
  - {name: server-token, mountPath: /etc/pullwatch/server, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end -}}

{{- define "pullwatch.volumes" -}}
- name: config
  configMap: {name: {{ include "pullwatch.fullname" . }}-config}
- name: rules
  configMap: {name: {{ include "pullwatch.fullname" . }}-rules}
{{- if eq .Values.mode "webhook" }}
- name: tls
  secret: {secretName: {{ .Values.webhook.certificate.secretName }}}
- name: webhook-token
  secret: {secretName: {{ .Values.webhook.tokenSecret }}}
{{- end }}
{{- if .Values.server.tokenSecret }}
- name: server-token
  secret: {secretName: {{ .Values.server.tokenSecret }}}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
