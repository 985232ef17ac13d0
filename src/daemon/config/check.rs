//! Finds errors that `run` would refuse, and risky settings, in a configuration whose text is valid.
//!
//! Takes a configuration, returns findings. Reads files and directories that it names, unless disabled; opens nothing for writing and
//! connects to nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::finding::Finding;
use super::{Config, ServerTls, SourceKind, overlap};
use crate::daemon::metrics::Metrics;
use crate::daemon::net::Token;
use crate::daemon::sink::{
    Kind, SettingsError, Sink, SinkConfig, SinkMetrics, TlsError, TlsSettings, Transport,
};
use crate::text::name_patterns::NamePatterns;

/// Returns all findings that do not depend on the rules. With `offline`, no files are read.
pub fn findings(config: &Config, offline: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.sources.is_empty() {
        found.push(Finding::error("`sources` is empty: nothing would be evaluated"));
    }
    if config.sinks.is_empty() && config.server.is_none() {
        found.push(Finding::warning("no sinks and no server: alerts are only stored"));
    }
    listeners(config, offline, &mut found);
    found.extend(overlap::findings(config, offline));
    sinks(config, offline, &mut found);
    if !offline {
        files(config, &mut found);
    }
    found
}

/// Returns findings about rule patterns of sinks that match none of these rules.
pub fn patterns(config: &Config, rules: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    for sink in &config.sinks {
        let all =
            [("rules", &sink.include), ("exclude_rules", &sink.exclude), ("events.rules", &sink.events)];
        for (key, patterns) in all {
            for pattern in patterns {
                let Ok(compiled) = NamePatterns::new([pattern.as_str()]) else { continue };
                if !rules.iter().any(|rule| compiled.matches(rule)) {
                    found.push(Finding::warning(format!(
                        "sink {}: `{key}`: no rule has a name that matches `{pattern}`",
                        sink.name
                    )));
                }
            }
        }
    }
    found
}

/// The listen addresses of this configuration, and how they are protected.
fn listeners(config: &Config, offline: bool, found: &mut Vec<Finding>) {
    let mut all: Vec<(String, SocketAddr, Option<&ServerTls>, Option<&PathBuf>)> = Vec::new();
    for source in &config.sources {
        if let SourceKind::Webhook(webhook) = &source.kind {
            let name = format!("source {}", source.name);
            if webhook.token_file.is_some() && webhook.tls.is_none() {
                let message = "`token_file` without `tls`: the apiserver sends its token over TLS only, so that each batch is refused, \
                               unless a proxy in front of this address terminates TLS";
                found.push(Finding::warning(format!("{name}: {message}")));
            }
            all.push((name, webhook.listen, webhook.tls.as_ref(), webhook.token_file.as_ref()));
        }
    }
    if let Some(server) = &config.server {
        all.push(("server".to_owned(), server.listen, server.tls.as_ref(), server.token_file.as_ref()));
    }
    let mut used: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for (name, address, tls, token) in all {
        if address.port() != 0
            && let Some(other) = used.insert(address, name.clone())
        {
            found.push(Finding::error(format!("{name}: {address} is the address of {other} too")));
        }
        if !address.ip().is_loopback() {
            let has_client_ca = tls.is_some_and(|tls| tls.client_ca.is_some());
            if tls.is_none() {
                let message = "listens beyond loopback without TLS: set `tls`, or listen on 127.0.0.1";
                found.push(Finding::warning(format!("{name}: {address} {message}")));
            }
            if token.is_none() && !has_client_ca {
                let message = "accepts requests from any client: set `token_file`, or `client_ca` in `tls`";
                found.push(Finding::warning(format!("{name}: {address} {message}")));
            }
        }
        if offline {
            continue;
        }
        if let Some(tls) = tls {
            let paths = [
                ("certificate", Some(&tls.certificate)),
                ("key", Some(&tls.key)),
                ("client_ca", tls.client_ca.as_ref()),
            ];
            for (key, path) in paths {
                if let Some(path) = path {
                    readable(&format!("{name}: `{key}`"), path, found);
                }
            }
        }
        if let Some(path) = token
            && let Err(error) = Token::load(path.clone())
        {
            found.push(Finding::error(format!("{name}: `token_file`: {error}")));
        }
    }
}

fn readable(what: &str, path: &Path, found: &mut Vec<Finding>) {
    if let Err(error) = std::fs::File::open(path) {
        found.push(Finding::error(format!("{what}: cannot read {}: {error}", path.display())));
    }
}

/// Invalid settings of sinks.
fn sinks(config: &Config, offline: bool, found: &mut Vec<Finding>) {
    let Ok(metrics) = Metrics::new(&[]) else { return };
    let metrics = SinkMetrics::new(&metrics);
    for sink in &config.sinks {
        let mut settings = sink.clone();
        if offline {
            forget_files(&mut settings);
        }
        match Sink::new(settings, &metrics) {
            Err(SettingsError::Tls(TlsError::NoRoots)) if offline => {}
            Err(error) => found.push(Finding::error(format!("sink {}: {error}", sink.name))),
            Ok(_) => {}
        }
    }
}

/// Removes references to files.
fn forget_files(sink: &mut SinkConfig) {
    match &mut sink.kind {
        Kind::Http(http) => http.tls = without_files(&http.tls),
        Kind::Syslog(syslog) => {
            if let Transport::Tls(_, tls) = &mut syslog.transport {
                *tls = without_files(tls);
            }
        }
        Kind::File(file) => file.group = None,
        _ => {}
    }
}

fn without_files(tls: &TlsSettings) -> TlsSettings {
    TlsSettings { server_name: tls.server_name.clone(), ..TlsSettings::default() }
}

/// Files and directories that must exist.
fn files(config: &Config, found: &mut Vec<Finding>) {
    let mut directory = |what: String, path: &Path| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !parent.is_dir() {
            found.push(Finding::error(format!("{what}: the directory {} does not exist", parent.display())));
        }
    };
    let mut sockets = Vec::new();
    let mut tokens = Vec::new();
    for sink in &config.sinks {
        match &sink.kind {
            Kind::File(file) => directory(format!("sink {}", sink.name), &file.path),
            Kind::Syslog(syslog) => {
                if let Transport::Unix(path) = &syslog.transport {
                    sockets.push((&sink.name, path));
                }
            }
            Kind::Http(http) => tokens.extend(http.bearer_token_file.iter().map(|path| (&sink.name, path))),
            _ => {}
        }
        if let Some(dead_letter) = sink.dead_letter.as_ref().filter(|one| one.path.is_absolute()) {
            directory(format!("sink {}: `dead_letter`", sink.name), &dead_letter.path);
        }
    }
    for (sink, path) in sockets {
        if !path.exists() {
            found.push(Finding::warning(format!("sink {sink}: no socket at {}", path.display())));
        }
    }
    for (sink, path) in tokens {
        readable(&format!("sink {sink}: `bearer_token_file`"), path, found);
    }
}
