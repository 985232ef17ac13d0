//! Steps from a JSON object to its wrapped content.

use std::borrow::Cow;
use std::sync::Arc;

use super::super::json::{Raw, Type};
use super::super::steps;
use super::context::Context;
use super::format::{Format, Wrapper};
use super::partial::{self, CriLine, Piece};
use super::shape::{Content, Shape, Slot, Table};
use super::stream::RecordSource;
use super::{
    Output, Unwrapper, annotations, azure_table, google, otel, skipped, stringified, times, truncated,
};
use crate::text::escape::push_json_string;

impl Unwrapper {
    /// Unwraps an object.
    pub(super) fn object(
        &mut self,
        record: Raw<'_>,
        shape: &Shape<'_>,
        depth: usize,
        context: &Context,
        out: &mut Output,
    ) {
        // A CloudWatch batch names the stream of all its events; each event is counted separately.
        let is_batch = shape.get(Slot::LogEvents).is_some();
        if let Some(reason) = RecordSource::of(record).skip_reason().filter(|_| !is_batch) {
            return self.skip(reason);
        }
        let context = self.describe(record, shape, context);
        if shape.content == Content::Final {
            return self.event(record, shape, &context, out);
        }
        if shape.is_azure_event() {
            let event = azure_table::event(record);
            // Exports contain objects as strings.
            let event = stringified::expand_all(&event).unwrap_or(event);
            self.raw(&event, &self.admit(Wrapper::Azure, &context), out);
            out.end_line();
        } else if let Some(payload) = shape.get(Slot::ProtoPayload) {
            self.google(record, payload, &context, out);
        } else if let Some(events) = shape.get(Slot::LogEvents).or(shape.get(Slot::Events)) {
            self.cloudwatch(record, events, depth, &self.admit(Wrapper::Cloudwatch, &context), out);
        } else if let Some(results) =
            shape.get(Slot::Results).filter(|results| matches!(results.kind(), Type::Array | Type::Object))
        {
            self.results(results, depth, &context, out);
        } else if let Some(table) = shape.table() {
            self.table(&table, depth, &self.admit(Wrapper::Json, &context), out);
        } else if let Some(audit) = shape.parsed_by_elastic() {
            self.value(audit, depth + 1, &self.admit(Wrapper::Json, &context), out);
        } else if let Some(logs) = shape.get(Slot::ResourceLogs) {
            self.resource_logs(logs, depth, &context, out);
        } else if let Some(records) = shape.get(Slot::Records) {
            self.value(records, depth + 1, &context, out);
        } else if let Some(properties) = shape.azure_log() {
            self.azure(record, properties, depth, &context, out);
        } else if let Some(inner) = shape.get(Slot::Kinesis).or(shape.get(Slot::AwsLogs)) {
            self.value(inner, depth + 1, &context, out);
        } else if let Some(values) = shape.get(Slot::Values).filter(|list| list.kind() == Type::Array) {
            self.loki(values, depth, &self.admit(Wrapper::Json, &context), out);
        } else if let Some(body) = shape.body() {
            self.body(body, depth, &self.admit(Wrapper::Otlp, &context), out);
        } else if let Some(text) = shape.get(Slot::DataBase64).and_then(Raw::string) {
            self.base64(&text, depth, &self.admit(Wrapper::Json, &context), out);
        } else {
            self.carrier(record, shape, depth, &context, out);
        }
    }

    /// Steps into the member that contains a record or a line.
    fn carrier(
        &mut self,
        record: Raw<'_>,
        shape: &Shape<'_>,
        depth: usize,
        context: &Context,
        out: &mut Output,
    ) {
        let Some(carrier) = shape.carrier() else { return self.skip(skipped::OTHER_KIND) };
        let is_data = shape.get(Slot::Data) == Some(carrier);
        let is_named = || RecordSource::of(record).is_stream_named();
        if context.is_admitted && self.lacks_stream(Wrapper::Cloudwatch, record, is_named) {
            return self.skip(skipped::NO_STREAM);
        }
        // Pub/Sub, Kinesis and Firehose transport any content, so they do not determine a format.
        let is_transport = is_data && carrier.kind() == Type::String
            || carrier.kind() == Type::Object && carrier.get("data").is_some();
        let inner = if is_transport { context.clone() } else { self.admit(Wrapper::Json, context) };
        if let Some(bytes) = journal_bytes(carrier) {
            return self.text(&bytes, depth + 1, &inner, out);
        }
        if carrier.kind() != Type::String {
            return self.value(carrier, depth + 1, &inner, out);
        }
        let text = truncated::string_of(carrier);
        if is_data && !matches!(text.trim_ascii().first(), Some(b'{' | b'[')) {
            return self.base64(&text, depth, &inner, out);
        }
        let piece = Piece::of_record(shape, &text);
        match CriLine::parse(piece.text) {
            Some(line) => {
                let mut inner = self.admit(Wrapper::Cri, &inner);
                inner.time = times::text(line.time).or(inner.time);
                let stream = || [&partial::stream_of(record)[..], line.stream].concat();
                self.piece(stream, line.piece, depth + 1, &inner, out);
            }
            None => self.piece(|| partial::stream_of(record), piece, depth + 1, &inner, out),
        }
    }

    /// Whether a record was cut before the name of its stream, if the format of the source requires every record to have one.
    fn lacks_stream(&self, wrapper: Wrapper, record: Raw<'_>, is_named: impl FnOnce() -> bool) -> bool {
        self.format == Format::In(wrapper) && Raw::first(record.bytes()).is_err() && !is_named()
    }

    /// Appends an event, a list of events, or any other object that is left to the event parser.
    fn event(&mut self, record: Raw<'_>, shape: &Shape<'_>, context: &Context, out: &mut Output) {
        let mut context = context.clone();
        if let Some(openshift) = record.get("openshift") {
            let name = openshift.get("cluster_id").and_then(Raw::string);
            context.cluster = name.map(|name| self.cluster_named(&name)).or(context.cluster);
        }
        // A shipper added its members to those of the event.
        if shape.is_shipped() {
            context = self.admit(Wrapper::Json, &context);
        }
        let level = shape.get(Slot::Level);
        if level.is_some() {
            context = self.admit(Wrapper::Openshift, &context);
        }
        let mut text = match level {
            Some(level) => {
                let mut text = Vec::with_capacity(record.bytes().len());
                push_with_level(record, level, &mut text);
                text
            }
            None => record.compact().into_owned(),
        };
        if let Some(plain) = annotations::with_dots(&text) {
            text = plain;
        }
        if let Some(expanded) = stringified::expand_all(&text) {
            text = expanded;
        }
        if let Some(completed) = truncated::with_target(&text) {
            text = completed;
        }
        self.raw(&text, &context, out);
        out.end_line();
    }

    /// What a record states about the cluster and the time.
    fn describe(&mut self, record: Raw<'_>, shape: &Shape<'_>, context: &Context) -> Context {
        let time = shape.time().and_then(times::of).or(context.time);
        let cluster = cluster_of(record).map(|name| self.cluster_named(&name));
        Context { time, cluster: cluster.or_else(|| context.cluster.clone()), ..*context }
    }

    /// The name of a cluster, shared with the preceding records if it is the same.
    fn cluster_named(&mut self, name: &[u8]) -> Arc<[u8]> {
        match &self.cluster {
            Some(known) if **known == *name => known.clone(),
            _ => self.cluster.insert(Arc::from(name)).clone(),
        }
    }

    /// Builds the audit event of an entry of Google Cloud Logging.
    fn google(&mut self, entry: Raw<'_>, payload: Raw<'_>, context: &Context, out: &mut Output) {
        let name = entry.get("logName").and_then(Raw::string);
        if name
            .as_ref()
            .is_some_and(|name| memchr::memmem::find(name, b"cloudaudit.googleapis.com").is_none())
        {
            return self.skip(skipped::OTHER_STREAM);
        }
        if self.lacks_stream(Wrapper::Google, entry, || name.is_some()) {
            return self.skip(skipped::NO_STREAM);
        }
        match google::event(entry, payload) {
            Ok(event) => {
                self.raw(&event, &self.admit(Wrapper::Google, context), out);
                out.end_line();
            }
            Err(reason) => self.skip(reason),
        }
    }

    /// Unwraps a batch of CloudWatch Logs, or the output of the AWS command line for one. Audit events are in separate streams.
    fn cloudwatch(
        &mut self,
        record: Raw<'_>,
        events: Raw<'_>,
        depth: usize,
        context: &Context,
        out: &mut Output,
    ) {
        let kind = record.get("messageType").and_then(Raw::string);
        if kind.as_deref() == Some(b"CONTROL_MESSAGE") {
            return self.skip(skipped::CONTROL);
        }
        let of_all = RecordSource::of(record);
        for event in truncated::items(events) {
            let shape = Shape::of(event);
            let source = RecordSource::of(event);
            let is_named = || of_all.is_stream_named() || source.is_stream_named();
            let reason = if of_all.is_other() || source.is_other() {
                Some(skipped::OTHER_STREAM)
            } else {
                self.lacks_stream(Wrapper::Cloudwatch, event, is_named).then_some(skipped::NO_STREAM)
            };
            if let Some(reason) = reason {
                self.skip(reason);
                continue;
            }
            let context = self.describe(event, &shape, context);
            match shape.get(Slot::Message) {
                Some(message) => self.value(message, depth + 1, &context, out),
                None => self.value(event, depth + 1, &context, out),
            }
        }
    }

    /// Unwraps query results: of Splunk, which are records; of Grafana, which are named; or of CloudWatch Logs Insights, where a row is a
    /// list of named values.
    fn results(&mut self, results: Raw<'_>, depth: usize, context: &Context, out: &mut Output) {
        if results.kind() == Type::Object {
            for (_, result) in results.members().map_while(Result::ok) {
                self.value(result, depth + 1, context, out);
            }
            return;
        }
        for row in truncated::items(results) {
            if row.kind() != Type::Array {
                self.value(row, depth + 1, context, out);
                continue;
            }
            let mut record = RowObject::default();
            for field in truncated::items(row) {
                if let (Some(name), Some(value)) =
                    (truncated::get(field, "field"), truncated::get(field, "value"))
                {
                    record.push(&truncated::string_of(name), value);
                }
            }
            self.row(record, depth, &self.admit(Wrapper::Cloudwatch, context), out);
        }
    }

    /// Unwraps the rows of a table.
    fn table(&mut self, table: &Table<'_>, depth: usize, context: &Context, out: &mut Output) {
        let names: Vec<Cow<'_, [u8]>> = table
            .names
            .items()
            .map_while(Result::ok)
            .map(|column| column.string().or_else(|| column.get("name")?.string()).unwrap_or_default())
            .collect();
        // Grafana returns the labels of a stream as a column.
        let labels = table.names.items().map_while(Result::ok).find_map(|column| column.get("labels"));
        let mut described = RowObject::default();
        if let Some(labels) = labels {
            described.push(b"labels", labels);
        }
        if let Some(reason) = RecordSource::of(Raw::assume(&described.finish())).skip_reason() {
            return self.skip(reason);
        }
        if truncated::items(table.cells).next().is_none() {
            return self.skip(skipped::OTHER_KIND);
        }
        if !table.is_by_column {
            for row in truncated::items(table.cells) {
                let mut record = RowObject::default();
                for (name, cell) in names.iter().zip(truncated::items(row)) {
                    record.push(name, cell);
                }
                self.row(record, depth, context, out);
            }
            return;
        }
        let mut columns: Vec<_> =
            names.iter().zip(truncated::items(table.cells).map(truncated::items)).collect();
        loop {
            let mut record = RowObject::default();
            steps::add(columns.len());
            // A column without further values is skipped.
            columns.retain_mut(|(name, column)| {
                let cell = column.next();
                if let Some(cell) = cell {
                    record.push(name, cell);
                }
                cell.is_some()
            });
            if columns.is_empty() {
                return;
            }
            self.row(record, depth, context, out);
        }
    }

    /// Unwraps a row as a record with the column names as member names.
    fn row(&mut self, record: RowObject, depth: usize, context: &Context, out: &mut Output) {
        let text = record.finish();
        steps::add(text.len());
        self.value(Raw::assume(&text), depth + 1, context, out);
    }

    /// Unwraps lines of Loki: pairs of a time and a line.
    fn loki(&mut self, values: Raw<'_>, depth: usize, context: &Context, out: &mut Output) {
        for pair in truncated::items(values) {
            let mut pair = truncated::items(pair);
            let time = pair.next().and_then(times::of);
            match pair.next() {
                Some(line) => {
                    let context = Context { time: time.or(context.time), ..context.clone() };
                    self.value(line, depth + 1, &context, out);
                }
                None => self.skip(skipped::OTHER_KIND),
            }
        }
    }

    /// Unwraps a diagnostic record of Azure. Its properties may be a JSON string.
    fn azure(
        &mut self,
        record: Raw<'_>,
        properties: Raw<'_>,
        depth: usize,
        context: &Context,
        out: &mut Output,
    ) {
        let [category, column] = record.get_all(["category", "Category"]);
        let category = category.or(column).and_then(Raw::string).unwrap_or_default();
        if !category.is_empty() && !matches!(&*category, b"kube-audit" | b"kube-audit-admin") {
            return self.skip(skipped::OTHER_KIND);
        }
        if self.lacks_stream(Wrapper::Azure, record, || !category.is_empty()) {
            return self.skip(skipped::NO_STREAM);
        }
        let text = properties.string();
        let properties = text.as_deref().map_or(properties, Raw::assume);
        let (log, pod) = (truncated::get(properties, "log"), properties.get("pod"));
        let is_other = pod.and_then(Raw::string).is_some_and(|pod| !pod.starts_with(b"kube-apiserver"));
        match log {
            _ if is_other => self.skip(skipped::OTHER_STREAM),
            Some(log) if log.bytes().starts_with(b"\"skipped-too-big") => {
                self.skip(skipped::TOO_BIG);
            }
            Some(log) => self.value(log, depth + 1, &self.admit(Wrapper::Azure, context), out),
            None => self.skip(skipped::OTHER_KIND),
        }
    }

    /// Unwraps logs of OpenTelemetry: resources, scopes, records.
    fn resource_logs(&mut self, logs: Raw<'_>, depth: usize, context: &Context, out: &mut Output) {
        for resource in truncated::items(logs) {
            let is_other_resource = |attributes| RecordSource::of_attributes(attributes).is_other();
            let attributes = resource.path(&["resource", "attributes"]);
            let is_other = attributes.is_some_and(is_other_resource);
            let mut context = context.clone();
            let name = attributes.and_then(|attributes| otel::text_attribute(attributes, "k8s.cluster.name"));
            context.cluster = name.map(|name| self.cluster_named(&name)).or(context.cluster);
            let scopes = truncated::get(resource, "scopeLogs").into_iter().flat_map(truncated::items);
            for record in
                scopes.filter_map(|scope| truncated::get(scope, "logRecords")).flat_map(truncated::items)
            {
                let is_other = is_other || record.get("attributes").is_some_and(is_other_resource);
                match truncated::get(record, "body") {
                    _ if is_other => self.skip(skipped::OTHER_STREAM),
                    Some(_) => self.value(record, depth + 1, &context, out),
                    None => self.skip(skipped::OTHER_KIND),
                }
            }
        }
    }

    /// Unwraps the body of an OpenTelemetry log record: a string, or the members of an event as a list of keys and values.
    fn body(&mut self, body: Raw<'_>, depth: usize, context: &Context, out: &mut Output) {
        let (text, list) = (truncated::get(body, "stringValue"), body.get("kvlistValue"));
        match (text, list) {
            (Some(text), _) => self.value(text, depth + 1, context, out),
            (None, Some(_)) => {
                let mut event = Vec::new();
                if otel::push_any_value(body, 0, &mut event) {
                    self.text(&event, depth + 1, context, out);
                } else {
                    self.skip(skipped::TOO_DEEP);
                }
            }
            // Some exporters write the body without a type.
            _ => self.value(body, depth + 1, context, out),
        }
    }
}

/// Maximum length of a column name, in bytes. The name is repeated in each row.
const MAX_COLUMN_NAME_LEN: usize = 128;

/// The text of an object that is assembled from the cells of a row.
#[derive(Debug, Default)]
struct RowObject {
    text: Vec<u8>,
    /// The last value is truncated, and so is the object.
    is_truncated: bool,
}

impl RowObject {
    fn push(&mut self, name: &[u8], value: Raw<'_>) {
        if self.is_truncated || name.len() > MAX_COLUMN_NAME_LEN {
            return;
        }
        self.text.push(if self.text.is_empty() { b'{' } else { b',' });
        push_json_string(name, &mut self.text);
        self.text.push(b':');
        self.text.extend_from_slice(value.bytes());
        self.is_truncated = Raw::first(value.bytes()).is_err();
    }

    fn finish(mut self) -> Vec<u8> {
        if self.text.is_empty() {
            self.text.push(b'{');
        }
        if !self.is_truncated {
            self.text.push(b'}');
        }
        self.text
    }
}

/// The text of a journal field that is not valid UTF-8, encoded as a list of bytes.
fn journal_bytes(value: Raw<'_>) -> Option<Vec<u8>> {
    let mut items = (value.kind() == Type::Array).then(|| value.items())?.map_while(Result::ok).peekable();
    if items.peek()?.kind() != Type::Scalar {
        return None;
    }
    items.map(|item| std::str::from_utf8(item.bytes()).ok()?.parse().ok()).collect()
}

/// The name of the cluster in a record of a cloud provider.
fn cluster_of(record: Raw<'_>) -> Option<Vec<u8>> {
    let [log_group, resource_id, resource_column, table_column, resource, orchestrator, log] = record
        .get_all(["logGroup", "resourceId", "ResourceId", "_ResourceId", "resource", "orchestrator", "@log"]);
    let text = |value: Option<Raw<'_>>| value.and_then(Raw::string).map(Cow::into_owned);
    if let Some(name) = text(log_group.or(log)).as_deref().and_then(of_log_group) {
        return Some(name.to_vec());
    }
    if let Some(name) =
        text(resource_id.or(resource_column).or(table_column)).as_deref().and_then(of_resource_id)
    {
        return Some(name.to_vec());
    }
    let name = resource
        .and_then(|resource| resource.path(&["labels", "cluster_name"]))
        .or(orchestrator.and_then(|orchestrator| orchestrator.path(&["cluster", "name"])));
    text(name).filter(|name| !name.is_empty())
}

/// Extracts `NAME` from `/aws/eks/NAME/cluster`, with or without a leading account number.
fn of_log_group(group: &[u8]) -> Option<&[u8]> {
    const START: &[u8] = b"/aws/eks/";
    let at = memchr::memmem::find(group, START)?;
    let name = group[at + START.len()..].strip_suffix(b"/cluster")?;
    (!name.is_empty() && !name.contains(&b'/')).then_some(name)
}

/// Returns the cluster name `NAME` in an Azure resource id such as
/// `/subscriptions/…/providers/Microsoft.ContainerService/managedClusters/NAME`. Letter case does not matter.
fn of_resource_id(id: &[u8]) -> Option<&[u8]> {
    let mut parts = id.split(|byte| *byte == b'/');
    parts.find(|part| {
        [&b"managedclusters"[..], b"connectedclusters"].iter().any(|name| part.eq_ignore_ascii_case(name))
    })?;
    parts.next().filter(|name| !name.is_empty())
}

/// Appends an event together with its audit level, which ViaQ moved to another member.
fn push_with_level(event: Raw<'_>, level: Raw<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut is_first = true;
    let mut has_level = false;
    for (key, value) in event.members().map_while(Result::ok) {
        if key.is("k8s_audit_level") {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        push_json_string(&key.text(), out);
        out.push(b':');
        let is_level = key.is("level") && !std::mem::replace(&mut has_level, true);
        out.extend_from_slice(&if is_level { level } else { value }.compact());
    }
    out.push(b'}');
}
