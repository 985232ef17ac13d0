//! How long pullwatch may be down before events are lost, from the apiserver's flags.
//!
//! Takes a configuration and the flags; returns findings, and a description of each source for people. Defaults and the behavior behind the
//! bounds are those of k8s.io/apiserver 1.20 to 1.36 (`pkg/server/options/audit.go`, `plugin/pkg/audit`, `pkg/util/webhook`) and of the
//! library that rotates its log, lumberjack 2.

// Sizes, times and rates are shown with two units or one digit.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use super::apiserver_flags::ApiserverFlags;
use super::policy::wording::bytes;
use crate::daemon::config::Finding;
use crate::daemon::config::{Config, SourceKind};
use crate::daemon::source::rotation;
use crate::detection::audit::event::Event;
use crate::text::timespan;

const MIB: u64 = 1 << 20;
const DAY: u64 = 86_400;

/// Size of a log file in MiB, if `--audit-log-maxsize` is unset.
const DEFAULT_MAX_SIZE: u64 = 100;

/// From this minor version on, unset rotation flags have the defaults below, and a size of 0 turns rotation off. In earlier versions,
/// nothing is deleted unless a flag is set, and a size of 0 means the default size.
const DEFAULTS_SINCE: u32 = 36;
const DEFAULT_MAX_BACKUP: u64 = 100;
const DEFAULT_MAX_AGE: u64 = 366;

const DEFAULT_INITIAL_BACKOFF: Duration = Duration::from_secs(10);

/// The webhook is tried 5 times. The 4 waits in between grow by this factor, and each is extended by a random part of up to the jitter.
const TRIES: i32 = 5;
const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.2;

/// The apiserver's timeout of one request to a webhook, in seconds.
const REQUEST_TIMEOUT: u64 = 30;

const DEFAULT_BUFFER_SIZE: u64 = 10_000;
const DEFAULT_BATCH_SIZE: u64 = 400;
const DEFAULT_BATCHES_PER_SECOND: f64 = 10.0;

/// Number of bytes at the start and at the end of a log file that are searched for its first and last event.
const EDGE_BYTES: u64 = 4 << 20;

/// The consequences of the flags for the sources.
#[derive(Debug, Default)]
pub struct Downtime {
    pub findings: Vec<Finding>,
    pub lines: Vec<String>,
}

impl Downtime {
    /// With `offline`, the rate of the log is not read from its files.
    pub fn new(config: &Config, flags: &ApiserverFlags, offline: bool) -> Self {
        let mut downtime = Downtime::default();
        for name in flags.unknown() {
            downtime
                .error(format!("kube-apiserver has no flag --{}: it would not start", super::visible(name)));
        }
        if flags.get("audit-policy-file").is_none() {
            downtime.warn("--audit-policy-file is unset: the apiserver records no events");
        }
        for source in &config.sources {
            match &source.kind {
                SourceKind::File(file) => downtime.file(&source.name, &file.paths, flags, offline),
                SourceKind::Webhook(_) => downtime.webhook(&source.name, flags),
                SourceKind::Kafka(_) => downtime.say(
                    &source.name,
                    "bounded by the retention of the topic, not by a flag of the apiserver",
                ),
                SourceKind::Stdin => downtime.say(&source.name, "the process that writes waits, or fails"),
            }
        }
        downtime
    }

    fn error(&mut self, message: impl Into<String>) {
        self.findings.push(Finding::error(message));
    }

    fn warn(&mut self, message: impl Into<String>) {
        self.findings.push(Finding::warning(message));
    }

    fn say(&mut self, source: &str, line: impl AsRef<str>) {
        self.lines.push(format!("source {source}: {}", line.as_ref()));
    }

    /// The value of a numeric flag, which is at least 0.
    fn number<T: FromStr>(&mut self, flags: &ApiserverFlags, name: &str) -> Option<T> {
        let text = flags.get(name)?;
        let number = text.parse();
        if number.is_err() {
            let text = super::visible(text);
            self.error(format!("--{name}: invalid number `{text}`: the apiserver would not start"));
        }
        number.ok()
    }

    fn file(&mut self, source: &str, paths: &[String], flags: &ApiserverFlags, offline: bool) {
        let Some(log) = flags.get("audit-log-path") else {
            return self
                .warn(format!("source {source}: --audit-log-path is unset: the apiserver writes no log"));
        };
        if flags.get("audit-log-format").is_some_and(|format| format != "json") {
            self.error("--audit-log-format: pullwatch reads `json`, the default");
        }
        if log == "-" {
            self.warn(format!(
                "source {source}: --audit-log-path is `-`, standard output: the kubelet rotates the log of the container, by default at \
                 10 MiB with 5 files (containerLogMaxSize, containerLogMaxFiles), and deletes it with the container; set a path"
            ));
            return self.say(source, "about 40 MiB of the container's log, with the defaults of the kubelet");
        }
        let is_read = |pattern: &String| {
            pattern == log
                || globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(log))
        };
        if !paths.is_empty() && !paths.iter().any(is_read) {
            self.warn(format!(
                "source {source}: its paths do not match --audit-log-path {}, unless that is mounted elsewhere",
                super::visible(log)
            ));
        }
        let has_defaults = flags.minor.is_none_or(|minor| minor >= DEFAULTS_SINCE);
        // For an unknown version, default limits are assumed, which results in the shorter time.
        let mut limit = |name, default| match self.number(flags, name) {
            None if has_defaults => default,
            value => value.unwrap_or(0),
        };
        let (backups, days) =
            (limit("audit-log-maxbackup", DEFAULT_MAX_BACKUP), limit("audit-log-maxage", DEFAULT_MAX_AGE));
        let size = match self.number(flags, "audit-log-maxsize") {
            Some(0) if flags.minor.is_some_and(|minor| minor >= DEFAULTS_SINCE) => {
                self.warn("--audit-log-maxsize 0 turns rotation off: the log grows until the disk is full");
                return self.say(source, "no limit: nothing is rotated");
            }
            None | Some(0) => DEFAULT_MAX_SIZE,
            Some(size) => size,
        };
        let is_unset = flags.get("audit-log-maxbackup").is_none() || flags.get("audit-log-maxage").is_none();
        if is_unset && flags.minor.is_none() {
            self.warn(
                "the apiserver's version is unknown: before 1.36, an unset --audit-log-maxbackup or --audit-log-maxage means no limit; since then it \
                 is 100 files and 366 days, which is assumed",
            );
        }
        if backups == 0 {
            self.warn("--audit-log-maxbackup is unset or 0: the number of rotated files has no limit, and the disk may fill up");
        } else {
            let total = backups.saturating_mul(size).saturating_mul(MIB);
            self.say(
                source,
                format!(
                    "until {} of log have been written: {backups} rotated files of {size} MiB; the next rotation deletes the oldest",
                    bytes(total)
                ),
            );
            if let Some(rate) = (!offline).then(|| Rate::of(paths, Path::new(log))).flatten() {
                for (what, rate) in
                    [("average rate of the log", rate.average), ("rate of its fastest file", rate.fastest)]
                {
                    self.lines.push(format!(
                        "  at the {what}, {}: {}",
                        per_second(rate),
                        span(total as f64 / rate)
                    ));
                }
            }
        }
        if days > 0 {
            let line = format!(
                "a rotated file is deleted {} after its rotation (--audit-log-maxage)",
                span((days * DAY) as f64)
            );
            self.say(source, line);
        } else if backups == 0 {
            self.say(source, "no limit: nothing is deleted");
        }
    }

    fn webhook(&mut self, source: &str, flags: &ApiserverFlags) {
        if flags.get("audit-webhook-config-file").is_none() {
            return self.warn(format!(
                "source {source}: --audit-webhook-config-file is unset: the apiserver sends nothing"
            ));
        }
        let name = "audit-webhook-initial-backoff";
        let text = flags.get(name).or_else(|| flags.get("audit-webhook-batch-initial-backoff"));
        let first = match text.map(|text| (text, go_duration(text))) {
            None => DEFAULT_INITIAL_BACKOFF,
            Some((_, Some(first))) => first,
            Some((text, None)) => {
                let text = super::visible(text);
                return self
                    .error(format!("--{name}: invalid duration `{text}`: the apiserver would not start"));
            }
        };
        let (least, most) = retry_window(first);
        self.say(
            source,
            format!(
                "{}: the apiserver sends a batch {TRIES} times within {} to {} (longer if connections hang, up to {REQUEST_TIMEOUT}s each), then drops it",
                span(least), span(least), span(most)
            ),
        );
        if least < 1.0 {
            self.warn(format!(
                "--{name} {}: a restart of pullwatch takes longer than all tries",
                text.unwrap_or_default()
            ));
        }
        match flags.get("audit-webhook-mode").unwrap_or("batch") {
            "batch" => {
                let buffer = self.number(flags, "audit-webhook-batch-buffer-size").unwrap_or(DEFAULT_BUFFER_SIZE);
                let batch = self.number(flags, "audit-webhook-batch-max-size").unwrap_or(DEFAULT_BATCH_SIZE);
                let is_throttled = flags.get("audit-webhook-batch-throttle-enable") != Some("false");
                let batches = self.number(flags, "audit-webhook-batch-throttle-qps").unwrap_or(DEFAULT_BATCHES_PER_SECOND);
                self.lines.push("  batches that wait for their next try are in the apiserver's memory: its restart loses them".to_owned());
                if is_throttled {
                    self.lines.push(format!(
                        "  above {:.0} events a second (batches of {batch}, {batches} a second), what exceeds its buffer of {buffer} events is dropped",
                        batches * batch as f64
                    ));
                }
            }
            "blocking" => self.warn(format!(
                "source {source}: --audit-webhook-mode blocking: while pullwatch is down, each audited request waits up to {}; use batch",
                span(most)
            )),
            "blocking-strict" => self.warn(format!(
                "source {source}: --audit-webhook-mode blocking-strict: while pullwatch is down, each audited request waits up to {}, and \
                 fails if its RequestReceived stage is audited; use batch",
                span(most)
            )),
            other => {
                let other = super::visible(other);
                self.error(format!("--audit-webhook-mode: unknown mode `{other}`: the apiserver would not start"));
            }
        }
    }
}

/// The shortest and the longest time from the first to the last try, in seconds.
fn retry_window(first: Duration) -> (f64, f64) {
    let waits: f64 = (0..TRIES - 1).map(|wait| FACTOR.powi(wait)).sum();
    let least = first.as_secs_f64() * waits;
    (least, least * (1.0 + JITTER))
}

/// Rate at which a log grows, in bytes per second.
#[derive(Debug, PartialEq)]
struct Rate {
    average: f64,
    /// The rate of the file that was filled in the shortest time, since a burst determines how long the daemon may be down.
    fastest: f64,
}

impl Rate {
    /// Derives the rate from the times of the first and the last event of each existing file. Compressed files are ignored.
    fn of(paths: &[String], log: &Path) -> Option<Self> {
        let live = paths.iter().map(Path::new).find(|path| path.is_file()).unwrap_or(log);
        let entries = std::fs::read_dir(live.parent()?).ok()?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_plain = |path: &Path| path.to_str().is_some_and(|name| rotation::uncompressed(name) == name);
        let files = files.filter(|path| is_plain(path) && rotation::is_of_set(path, live) && path.is_file());
        let spans: Vec<FileSpan> = files.filter_map(|path| FileSpan::of(&path).ok().flatten()).collect();
        let total: f64 = spans.iter().map(|file| file.size).sum();
        let first = spans.iter().map(|file| file.first).min()?;
        let last = spans.iter().map(|file| file.last).max()?;
        let average = total / seconds(first, last)?;
        let each = spans.iter().filter_map(|file| Some(file.size / seconds(file.first, file.last)?));
        Some(Rate { average, fastest: each.fold(average, f64::max) })
    }
}

/// A log file, with the times of its first and last event in nanoseconds.
struct FileSpan {
    size: f64,
    first: i64,
    last: i64,
}

impl FileSpan {
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut start = Vec::new();
        (&file).take(EDGE_BYTES).read_to_end(&mut start)?;
        let from = size.saturating_sub(EDGE_BYTES);
        let mut end = vec![0; usize::try_from(size - from).unwrap_or(0)];
        file.read_exact_at(&mut end, from)?;
        let mut times = start
            .split(|byte| *byte == b'\n')
            .take(1)
            .chain(end.rsplit(|byte| *byte == b'\n').skip(1).take(1));
        let mut time = || Event::new(times.next()?).time();
        Ok(time().zip(time()).map(|(first, last)| FileSpan { size: size as f64, first, last }))
    }
}

/// Seconds between two times, if at least one: a shorter time is meaningless for a rate.
fn seconds(first: i64, last: i64) -> Option<f64> {
    let seconds = last.saturating_sub(first) as f64 / 1e9;
    (seconds >= 1.0).then_some(seconds)
}

fn per_second(rate: f64) -> String {
    if rate < MIB as f64 {
        format!("{:.1} KiB/s", rate / 1024.0)
    } else {
        format!("{:.1} MiB/s", rate / MIB as f64)
    }
}

/// A time with its two largest units: more would suggest a precision that does not exist.
fn span(seconds: f64) -> String {
    let step = match seconds {
        seconds if seconds >= 86_400.0 => 3600.0,
        seconds if seconds >= 3600.0 => 60.0,
        _ => 1.0,
    };
    let whole = (seconds / step).floor() * step;
    timespan::format((whole * 1e9) as i64)
}

/// Parses a Go duration: `1m30s`, `500ms`, `1.5h`.
fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
        ("", 0.0),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let unit =
            &unit[..unit.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(unit.len())];
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total += number * length;
        rest = &rest[digits + unit.len()..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(total).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apiserver_tries_for_81_to_98_seconds() {
        assert_eq!(retry_window(DEFAULT_INITIAL_BACKOFF), (81.25, 97.5));
        assert_eq!(retry_window(Duration::ZERO), (0.0, 0.0));
    }

    #[test]
    fn reads_durations_of_go() {
        for (text, milliseconds) in
            [("10s", 10_000), ("1m30s", 90_000), ("500ms", 500), ("1.5h", 5_400_000), ("0", 0), ("0s", 0)]
        {
            assert_eq!(go_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1d", "1 s", "..s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn shows_two_units() {
        let all = [0.5, 81.25, 5400.0, 100_000.0].map(span);
        assert_eq!(all, ["0s", "1m21s", "1h30m", "1d3h"]);
    }
}
