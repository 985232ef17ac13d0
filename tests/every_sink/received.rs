//! What a receiver has, and what is wrong with it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pullwatch::internals::daemon::sink::Format;
use serde_json::Value;

/// How a receiver behaves at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Accepts what comes.
    Accept,
    /// Accepts it after a while.
    Slow,
    /// Has no capacity: 429 and 503.
    Busy,
    /// Is not there: it accepts no connections, and closes those that are open.
    Down,
    /// Refuses everything: 403.
    Refuse,
}

/// Each failure is followed by a recovery.
const MOODS: [Mood; 8] = [
    Mood::Accept,
    Mood::Slow,
    Mood::Accept,
    Mood::Busy,
    Mood::Accept,
    Mood::Down,
    Mood::Accept,
    Mood::Refuse,
];

/// The alerts of one receiver.
#[derive(Debug)]
pub struct Received {
    pub name: String,
    /// Maximum length of a message, in bytes.
    max_len: usize,
    format: Format,
    /// Index in [`MOODS`].
    mood: AtomicUsize,
    /// It accepts everything from now on.
    is_calm: AtomicBool,
    alerts: Mutex<HashMap<String, usize>>,
    wrong: Mutex<Vec<String>>,
}

impl Received {
    pub fn new(name: &str, max_len: usize, format: Format, first_mood: usize) -> Arc<Self> {
        Arc::new(Received {
            name: name.to_owned(),
            max_len,
            format,
            mood: AtomicUsize::new(first_mood),
            is_calm: AtomicBool::new(false),
            alerts: Mutex::default(),
            wrong: Mutex::default(),
        })
    }

    pub fn mood(&self) -> Mood {
        if self.is_calm.load(Ordering::SeqCst) {
            return Mood::Accept;
        }
        MOODS[self.mood.load(Ordering::SeqCst) % MOODS.len()]
    }

    pub fn next_mood(&self) {
        self.mood.fetch_add(1, Ordering::SeqCst);
    }

    pub fn calm(&self) {
        self.is_calm.store(true, Ordering::SeqCst);
    }

    /// Accepts an alert that arrived as this message.
    pub fn accept(&self, id: Option<&str>, message: &[u8]) {
        let Some(id) = id.filter(|id| id.len() == 32) else {
            return self.wrong(format!("no id: {}", String::from_utf8_lossy(message)));
        };
        if message.len() > self.max_len {
            self.wrong(format!("{id}: {} bytes", message.len()));
        }
        match std::str::from_utf8(message) {
            Err(_) => self.wrong(format!("{id}: no UTF-8")),
            Ok(text) if text.chars().any(pullwatch::internals::text::escape::is_disruptive) => {
                self.wrong(format!("{id}: disruptive characters: {text}"));
            }
            Ok(_) => {}
        }
        *self.alerts.lock().unwrap().entry(id.to_owned()).or_default() += 1;
    }

    /// Accepts a message in the receiver's format.
    pub fn accept_message(&self, message: &[u8]) {
        match self.format {
            Format::Falco => self.accept_json(message, "/id"),
            Format::Ecs => self.accept_json(message, "/event/id"),
            Format::Ocsf => self.accept_json(message, "/metadata/uid"),
            Format::Cef => match crate::text::cef_id(&String::from_utf8_lossy(message)) {
                Ok(id) => self.accept(Some(&id), message),
                Err(reason) => self.wrong(format!("{reason}: {}", String::from_utf8_lossy(message))),
            },
            // It has no id: a message that is sent again, because its confirmation came too late, has the same text.
            _ => {
                if !has_time_and_severity(&String::from_utf8_lossy(message)) {
                    self.wrong(format!("no text of an alert: {}", String::from_utf8_lossy(message)));
                }
                let mut hasher = DefaultHasher::new();
                message.hash(&mut hasher);
                self.accept(Some(&format!("{:032x}", hasher.finish())), message);
            }
        }
    }

    /// Checks that a text is in the receiver's format.
    pub fn check_format(&self, text: &str) {
        let is_valid = match self.format {
            Format::Text => true,
            Format::Cef => crate::text::cef_id(text).is_ok(),
            _ => serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object()),
        };
        if !is_valid {
            self.wrong(format!("not in its format: {text}"));
        }
    }

    /// Whether messages contain the alert's id.
    pub fn has_ids(&self) -> bool {
        self.format != Format::Text
    }

    /// Nothing that arrived was wrong.
    pub fn check_messages(&self) {
        let wrong = self.wrong.lock().unwrap();
        assert!(
            wrong.is_empty(),
            "{}: {} messages are wrong, the first {}",
            self.name,
            wrong.len(),
            wrong[0]
        );
    }

    /// Accepts an alert that arrived as JSON, with its id at a JSON pointer.
    pub fn accept_json(&self, message: &[u8], pointer: &str) {
        match serde_json::from_slice::<Value>(message) {
            Ok(value) => self.accept(value.pointer(pointer).and_then(Value::as_str), message),
            Err(error) => self.wrong(format!("{error}: {}", String::from_utf8_lossy(message))),
        }
    }

    pub fn has(&self, id: &str) -> bool {
        self.alerts.lock().unwrap().contains_key(id)
    }

    pub fn wrong(&self, what: impl Into<String>) {
        let mut what = what.into();
        let end = (0..=what.len().min(2000)).rev().find(|end| what.is_char_boundary(*end));
        what.truncate(end.unwrap_or_default());
        self.wrong.lock().unwrap().push(what);
    }

    /// Number of different alerts.
    pub fn count(&self) -> usize {
        self.alerts.lock().unwrap().len()
    }

    /// Number of messages, with those that arrived more than once.
    pub fn messages(&self) -> usize {
        self.alerts.lock().unwrap().values().sum()
    }

    /// Number of alerts that arrived more than once.
    pub fn repeated(&self) -> usize {
        self.alerts.lock().unwrap().values().filter(|count| **count > 1).count()
    }

    /// Every alert arrived, no other did, and each was valid and within the limit.
    pub fn check(&self, ids: &HashMap<String, (usize, String)>, is_complete: bool) {
        self.check_messages();
        let alerts = self.alerts.lock().unwrap();
        let foreign: Vec<_> = alerts.keys().filter(|id| !ids.contains_key(*id)).take(3).collect();
        assert!(foreign.is_empty(), "{}: {foreign:?} are not in the store", self.name);
        let missing: Vec<_> = ids.iter().filter(|(id, _)| !alerts.contains_key(*id)).collect();
        assert!(
            missing.is_empty() || !is_complete,
            "{}: {} alerts are missing, such as {:?}",
            self.name,
            missing.len(),
            &missing[..missing.len().min(3)]
        );
    }
}

/// Whether a text begins as an alert does: the time with its zone, and the severity.
fn has_time_and_severity(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let mut next = || words.next().unwrap_or_default();
    let (day, time, severity) = (next(), next(), next());
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || b"-:.".contains(&byte));
    day.len() == 10
        && is_number(day)
        && time.strip_suffix('Z').is_some_and(|time| time.len() == 12 && is_number(time))
        && severity.bytes().all(|byte| byte.is_ascii_uppercase())
}
