//! Finds sources that read the same events, and sinks that write what a source reads.
//!
//! Takes a configuration, returns findings. Expands names, patterns, directories and links to files, unless disabled, in which case it
//! compares the text of the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use super::{Config, FileSource, SourceKind};
use crate::daemon::sink::Kind;
use crate::daemon::source::discover;
use crate::daemon::source::input::Input;
use crate::daemon::source::{kafka, rotation};

/// The inputs of the file sources.
#[derive(Default)]
struct Watched<'a> {
    /// The source, and a path as written in the configuration.
    names: Vec<(&'a str, PathBuf)>,
    /// The live log of each file found, and the first source that reads it.
    logs: BTreeMap<PathBuf, &'a str>,
}

/// Returns findings about logs and topics that are used twice. With `offline`, no files are read.
pub fn findings(config: &Config, offline: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut watched = Watched::default();
    for source in &config.sources {
        if let SourceKind::File(file) = &source.kind {
            watched.add(&source.name, file, offline, &mut found);
        }
    }
    for sink in &config.sinks {
        let written = match &sink.kind {
            Kind::File(file) => Some(&file.path),
            _ => None,
        };
        let dead_letter = sink.dead_letter.as_ref().map(|one| &one.path).filter(|path| path.is_absolute());
        for path in written.into_iter().chain(dead_letter) {
            if let Some(source) = watched.reader(path, offline) {
                found.push(Finding::error(format!(
                    "sink {}: it writes to {}, which source {source} reads: alerts would be read as events",
                    sink.name,
                    absolute(path).display()
                )));
            }
        }
    }
    topics(config, &mut found);
    found
}

impl<'a> Watched<'a> {
    /// Adds the inputs of a source, and reports those that another source reads too.
    fn add(&mut self, source: &'a str, file: &FileSource, offline: bool, found: &mut Vec<Finding>) {
        let mut twice = BTreeSet::new();
        for path in file.paths.iter().map(|path| absolute(Path::new(path))) {
            if let Some((other, _)) = self.names.iter().find(|(_, known)| *known == path) {
                twice.insert((path.clone(), *other));
            }
            self.names.push((source, path));
        }
        if !offline {
            let names: Vec<OsString> = file.paths.iter().map(OsString::from).collect();
            let mut logs = BTreeSet::new();
            for input in discover::inputs(&names).0 {
                if let Input::File(path) = input {
                    logs.insert(rotation::live(&real(&path)));
                }
            }
            for log in logs {
                match self.logs.get(&log) {
                    // A path that is written twice is one finding, however many files it expands to.
                    Some(other)
                        if !twice
                            .iter()
                            .any(|(path, of)| of == other && rotation::live(&real(path)) == log) =>
                    {
                        twice.insert((log, *other));
                    }
                    Some(_) => {}
                    None => {
                        self.logs.insert(log, source);
                    }
                }
            }
        }
        found.extend(twice.into_iter().map(|(path, other)| {
            Finding::error(format!(
                "source {source}: {} is read by source {other} too: each event would be evaluated twice",
                path.display()
            ))
        }));
    }

    /// The source that would read what is written to this path.
    fn reader(&self, written: &Path, offline: bool) -> Option<&'a str> {
        let path = absolute(written);
        let named = |(_, name): &&(&str, PathBuf)| {
            *name == path
                || globset::Glob::new(&name.to_string_lossy())
                    .is_ok_and(|glob| glob.compile_matcher().is_match(&path))
        };
        if let Some((source, _)) = self.names.iter().find(named) {
            return Some(source);
        }
        if offline {
            return None;
        }
        let path = real(&path);
        let below =
            |(_, name): &&(&str, PathBuf)| name.is_dir() && discover::is_log_below(&real(name), &path);
        let directory = || self.names.iter().find(below).map(|(source, _)| *source);
        self.logs.get(&rotation::live(&path)).copied().or_else(directory)
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// The path with links resolved. If the file does not exist yet, its directory is resolved.
fn real(path: &Path) -> PathBuf {
    let in_directory = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(in_directory).unwrap_or_else(|| path.to_owned())
}

/// Reports topics that two consumer groups read, and sinks that write to a topic that is read.
fn topics(config: &Config, found: &mut Vec<Finding>) {
    let mut read: Vec<(&str, &kafka::Settings)> = Vec::new();
    for source in &config.sources {
        let SourceKind::Kafka(settings) = &source.kind else { continue };
        for (other, known) in &read {
            let topic = settings.topics.iter().find(|topic| known.topics.contains(topic));
            if let Some(topic) = topic
                && known.group != settings.group
                && have_common_broker(&known.cluster.brokers, &settings.cluster.brokers)
            {
                found.push(Finding::error(format!(
                    "source {}: the topic {topic} is read by source {other} too, in another group: each event would be evaluated twice",
                    source.name
                )));
            }
        }
        read.push((&source.name, settings));
    }
    for sink in &config.sinks {
        let Kind::Kafka(settings) = &sink.kind else { continue };
        for (source, known) in &read {
            if known.topics.contains(&settings.topic)
                && have_common_broker(&known.cluster.brokers, &settings.cluster.brokers)
            {
                found.push(Finding::error(format!(
                    "sink {}: it writes to the topic {}, which source {source} reads: alerts would be read as events",
                    sink.name, settings.topic
                )));
            }
        }
    }
}

fn have_common_broker(some: &[String], others: &[String]) -> bool {
    some.iter().any(|broker| others.contains(broker))
}
