//! Receivers over HTTP, one for each protocol.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{self, free_port, listener};
use crate::received::{Mood, Received};

/// What requests contain, and what their responses say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One alert.
    Alert,
    /// An array of alerts.
    Array,
    /// One alert per line.
    Lines,
    /// The body for Slack: the id is in the text.
    Slack,
    /// Events API v2.
    PagerDuty,
    /// Adaptive cards.
    Teams,
    /// Alert API v2.
    Opsgenie,
    /// Webhooks.
    Discord,
    /// `_bulk` of Elasticsearch.
    Bulk,
    /// HTTP Event Collector with acknowledgements.
    Splunk,
    /// OTLP logs.
    Otlp,
    /// Loki's push API.
    Loki,
    /// Alertmanager's API v2.
    Alertmanager,
}

/// A server on a port of its own.
pub struct Server {
    pub received: Arc<Received>,
    pub port: u16,
    protocol: Protocol,
    /// Entries of Loki as it stores them: equal ones are one.
    entries: Mutex<HashSet<String>>,
    requests: AtomicU64,
}

impl Server {
    pub fn start(protocol: Protocol, received: Arc<Received>) -> Arc<Self> {
        let port = free_port();
        let listener = listener(port);
        let server = Arc::new(Server {
            received,
            port,
            protocol,
            entries: Mutex::default(),
            requests: AtomicU64::new(0),
        });
        let ours = server.clone();
        std::thread::spawn(move || ours.listen(listener));
        server
    }

    /// Accepts connections, on the same port again after each time that it was down.
    fn listen(self: Arc<Self>, first: TcpListener) {
        let mut listener = Some(first);
        loop {
            if self.received.mood() == Mood::Down {
                listener = None;
            } else if listener.is_none() {
                listener = Some(common::listener(self.port));
            }
            let Some(open) = &listener else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            open.set_nonblocking(true).unwrap();
            match open.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    let server = self.clone();
                    // A connection that breaks off is the client's business.
                    std::thread::spawn(move || server.serve(stream));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        // Otherwise the second part of an answer waits for an acknowledgement of the first.
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        while let Some((path, length, is_gzip)) = head(&mut reader)? {
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            if is_gzip {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain)?;
                body = plain;
            }
            let number = self.requests.fetch_add(1, Ordering::SeqCst);
            let (status, answer) = match self.received.mood() {
                Mood::Down => return Ok(()),
                Mood::Refuse => (403, Vec::new()),
                Mood::Busy => (if number.is_multiple_of(2) { 429 } else { 503 }, Vec::new()),
                mood => {
                    if mood == Mood::Slow {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    self.accept(&path, &body)
                }
            };
            write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", answer.len())?;
            // In two parts, as answers of busy servers come.
            let (start, end) = answer.split_at(answer.len() / 2);
            stream.write_all(start)?;
            stream.flush()?;
            stream.write_all(end)?;
        }
        Ok(())
    }

    /// Accepts a request: status and body of the response.
    fn accept(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let received = &self.received;
        match self.protocol {
            Protocol::Alert => received.accept_message(body),
            Protocol::Lines => {
                let lines = body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
                lines.for_each(|line| received.accept_message(line));
            }
            Protocol::Array => self.each(body, "", |_, text| received.accept_message(text)),
            Protocol::Alertmanager => self.each(body, "", |alert, text| {
                received.accept(alert["annotations"]["alert_id"].as_str(), text);
            }),
            Protocol::Slack => self.slack(body),
            Protocol::PagerDuty => received.accept_json(body, "/payload/custom_details/id"),
            Protocol::Opsgenie => received.accept_json(body, "/details/id"),
            Protocol::Discord => {
                received.accept_json(body, "/embeds/0/footer/text");
                let text = String::from_utf8_lossy(body);
                if text.contains(" @everyone") || text.contains(" [a](http") {
                    received.wrong(format!("markup for Discord: {text}"));
                }
            }
            Protocol::Teams => {
                let card = serde_json::from_slice::<Value>(body).unwrap_or_default();
                let last =
                    card.pointer("/attachments/0/content/body/2/inlines/0/text").and_then(Value::as_str);
                received.accept(last.and_then(|text| text.rsplit_once("· ")).map(|(_, id)| id), body);
            }
            Protocol::Bulk => return (200, self.bulk(body)),
            Protocol::Splunk => return (200, self.splunk(path, body)),
            Protocol::Otlp => crate::otlp::records(body, |record| {
                received.accept(record.get("alert_id").map(String::as_str), record["body"].as_bytes());
            })
            .unwrap_or_else(|| received.wrong("invalid OTLP")),
            Protocol::Loki => self.loki(body),
        }
        (if self.protocol == Protocol::Loki { 204 } else { 200 }, Vec::new())
    }

    /// Calls with each element of a list, and its text.
    fn each(&self, body: &[u8], pointer: &str, take: impl Fn(&Value, &[u8])) {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => {
                for item in value.pointer(pointer).and_then(Value::as_array).into_iter().flatten() {
                    take(item, &text(item));
                }
            }
            Err(error) => self.received.wrong(error.to_string()),
        }
    }

    fn slack(&self, body: &[u8]) {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return self.received.wrong("invalid JSON for Slack");
        };
        let last = value.pointer("/blocks/2/elements/3/text").and_then(Value::as_str).unwrap_or_default();
        self.received.accept(last.rsplit_once("id=").map(|(_, id)| id), body);
        if String::from_utf8_lossy(body).contains("<!channel>") {
            self.received.wrong("a mention for Slack");
        }
    }

    fn bulk(&self, body: &[u8]) -> Vec<u8> {
        let lines: Vec<&[u8]> = body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
        let mut items = Vec::new();
        // One request after the other: that of a killed daemon may still be here when the next one sends it again.
        let _alone = self.entries.lock().unwrap();
        for pair in lines.chunks(2) {
            let &[action, document] = pair else {
                self.received.wrong(format!(
                    "{} lines in {} bytes, the last without a document: {}",
                    lines.len(),
                    body.len(),
                    String::from_utf8_lossy(pair[0])
                ));
                continue;
            };
            let action: Value = serde_json::from_slice(action).unwrap_or_default();
            let id = action["create"]["_id"].as_str().unwrap_or_default();
            if self.received.has(id) {
                items.push(json!({"create": {"status": 409, "error": {"type": "version_conflict_engine_exception"}}}));
                continue;
            }
            self.received.accept_message(document);
            if !self.received.has(id) {
                self.received.wrong(format!("another id than {id}"));
            }
            items.push(json!({"create": {"status": 201}}));
        }
        let errors = items.iter().any(|item| item["create"]["error"].is_object());
        json!({"errors": errors, "items": items}).to_string().into_bytes()
    }

    fn splunk(&self, path: &str, body: &[u8]) -> Vec<u8> {
        if path.ends_with("/ack") {
            let asked: Value = serde_json::from_slice(body).unwrap_or_default();
            let id = asked["acks"][0].as_u64().unwrap_or_default();
            return json!({"acks": {id.to_string(): true}}).to_string().into_bytes();
        }
        for event in serde_json::Deserializer::from_slice(body).into_iter::<Value>() {
            match event {
                Ok(event) => {
                    let id = event["fields"]["alert_id"].as_str();
                    match &event["event"] {
                        Value::String(line) => self.received.accept(id, line.as_bytes()),
                        object => self.received.accept(id, &text(object)),
                    }
                }
                Err(error) => self.received.wrong(error.to_string()),
            }
        }
        let id = self.requests.load(Ordering::SeqCst);
        json!({"text": "Success", "code": 0, "ackId": id}).to_string().into_bytes()
    }

    fn loki(&self, body: &[u8]) {
        self.each(body, "/streams", |stream, _| {
            for entry in stream["values"].as_array().into_iter().flatten() {
                let whole = format!("{}{entry}", stream["stream"]);
                let metadata = entry[2].as_object().into_iter().flat_map(|labels| labels.values());
                let labels = stream["stream"].as_object().into_iter().flat_map(|labels| labels.values());
                if metadata.chain(labels).any(|value| value.as_str().is_none_or(|text| text.len() > 2048)) {
                    self.received.wrong(format!("a label beyond the limit: {entry}"));
                }
                if self.entries.lock().unwrap().insert(whole) {
                    let line = entry[1].as_str().unwrap_or_default();
                    self.received.accept(entry[2]["alert_id"].as_str(), line.as_bytes());
                    self.received.check_format(line);
                }
            }
        });
    }
}

/// A value as pullwatch writes it.
fn text(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    pullwatch::internals::detection::shorten::write(value, &mut out);
    out
}

/// Reads the head of a request: path, length of the body, and whether it is compressed.
fn head(reader: &mut impl std::io::BufRead) -> std::io::Result<Option<(String, usize, bool)>> {
    let (mut path, mut length, mut is_gzip) = (String::new(), 0, false);
    for line in reader.by_ref().lines() {
        let line = line?;
        if path.is_empty() {
            line.split(' ').nth(1).unwrap_or_default().clone_into(&mut path);
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        is_gzip |= lower == "content-encoding: gzip";
        if line.is_empty() {
            return Ok(Some((path, length, is_gzip)));
        }
    }
    Ok(None)
}
