//! A daemon with a place of its own, and what its store holds.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pullwatch::internals::daemon::store::StoreReader;
use serde_json::Value;

use crate::common::{RULE, WAIT_TIMEOUT, free_port, pullwatch, wait_for};

/// Both rules match each event of [`crate::common::event`] whose name contains `registry`.
pub const RULES: [&str; 2] = ["Registry Secret Access", "Second Look"];

/// Numbers that look random and are the same each time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    pub fn count(&mut self, below: usize) -> usize {
        usize::try_from(self.below(below as u64)).unwrap()
    }

    pub fn sleep(&mut self, below: u64) {
        std::thread::sleep(Duration::from_millis(self.below(below)));
    }
}

/// A number from the environment: how long a long form is.
pub fn times(variable: &str, short: usize) -> usize {
    std::env::var(variable).ok().and_then(|times| times.parse().ok()).unwrap_or(short)
}

/// A folder with rules, a configuration, a log and a state directory.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub state: PathBuf,
    port: u16,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("rules.d")).unwrap();
        let second = RULE.replace(RULES[0], RULES[1]);
        fs::write(folder.path().join("rules.d/rules.yaml"), format!("{RULE}{second}")).unwrap();
        Place { state: folder.path().join("state"), port: free_port(), folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A source that follows `audit.log`.
    pub fn log(&self) -> String {
        format!("{{type: file, name: log, poll: 200ms, paths: [{}]}}", self.path("audit.log").display())
    }

    /// Writes the configuration.
    pub fn configure(&self, source: &str, sinks: &[String]) {
        let text = format!(
            "sources: [{source}]\nsinks:\n  - {}\nrules: [{}]\nstate_dir: {}\nserver: {{listen: 127.0.0.1:{}}}\n",
            sinks.join("\n  - "),
            self.path("rules.d").display(),
            self.state.display(),
            self.port
        );
        fs::write(self.path("pullwatch.yaml"), text).unwrap();
    }

    pub fn command(&self) -> Command {
        let mut command = pullwatch();
        command.arg("run").arg("--config").arg(self.path("pullwatch.yaml"));
        command.stdout(Stdio::null()).stderr(self.said_file());
        command
    }

    /// What the daemon says goes to the end of a file.
    pub fn said_file(&self) -> fs::File {
        fs::OpenOptions::new().create(true).append(true).open(self.path("said")).unwrap()
    }

    pub fn said(&self) -> String {
        fs::read_to_string(self.path("said")).unwrap_or_default()
    }

    pub fn start(&self) -> Daemon {
        Daemon::start(&mut self.command())
    }

    /// Asks the daemon's own port; nothing while there is no answer.
    pub fn ask(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let code = answer.split(' ').nth(1)?.parse().ok()?;
        Some((code, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// The value of a metric; nothing while there is no answer or no such line.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.ask("/metrics")?;
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        lines.find(|(start, _)| *start == name)?.1.parse().ok()
    }
}

/// A daemon at work, which does not outlive a test that failed.
pub struct Daemon(pub Child);

impl Daemon {
    pub fn start(command: &mut Command) -> Self {
        Daemon(command.spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until it listens for signals: before its `main` nothing can. SIGHUP is the last that it registers; of the one that it is
/// registering, the handler is there a moment before its receiver.
fn listens(child: &Child) {
    let catches = |line: &str| {
        let mask = line.strip_prefix("SigCgt:").map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap());
        mask.is_some_and(|mask| mask & 1 != 0)
    };
    let status = format!("/proc/{}/status", child.id());
    wait_for("it listens", || fs::read_to_string(&status).unwrap().lines().any(catches));
}

/// Ends it in order; its exit code.
pub fn stop(mut daemon: Daemon) -> Option<i32> {
    listens(&daemon.0);
    let pid = rustix::process::Pid::from_child(&daemon.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    daemon.0.wait().unwrap().code()
}

/// Ends it as a power failure would.
pub fn kill(daemon: Daemon) {
    drop(daemon);
}

/// What an alert says of itself.
pub fn key(alert: &Value) -> (usize, String) {
    let event = alert["event"]["auditID"].as_str().unwrap().parse().unwrap();
    (event, alert["rule"].as_str().unwrap().to_owned())
}

/// All alerts that a store ever held, as far as it was looked at: those that are new since are read, and no more.
#[derive(Default)]
pub struct Ledger {
    last: i64,
    /// How often, by event and rule.
    pub counts: HashMap<(usize, String), usize>,
    pub ids: HashMap<String, (usize, String)>,
}

impl Ledger {
    /// Reads what is new. Says how many alerts there are.
    pub fn look(&mut self, state: &Path) -> usize {
        // There may be none yet, or none for a moment.
        let Ok(reader) = StoreReader::open(state) else { return self.counts.len() };
        while let Ok(page) = reader.after(self.last, 1000) {
            let Some(last) = page.last() else { break };
            self.last = last.seq;
            for stored in &page {
                let alert: Value = serde_json::from_slice(&stored.json).unwrap();
                self.ids.insert(alert["id"].as_str().unwrap().to_owned(), key(&alert));
                *self.counts.entry(key(&alert)).or_default() += 1;
            }
        }
        self.counts.len()
    }

    /// Waits until it holds both alerts of so many events.
    pub fn wait(&mut self, state: &Path, events: usize) {
        let wanted = events * RULES.len();
        wait_for(&format!("{wanted} alerts"), || self.look(state) >= wanted);
    }

    pub fn has(&self, event: usize) -> bool {
        RULES.iter().all(|rule| self.counts.contains_key(&(event, (*rule).to_owned())))
    }

    /// Exactly one alert for each of these events and each rule, and no others.
    pub fn assert_exact(&self, events: impl ExactSizeIterator<Item = usize>) {
        let count = events.len() * RULES.len();
        let keys = events.flat_map(|event| RULES.map(|rule| (event, rule.to_owned())));
        let wrong: Vec<_> = keys
            .filter(|key| self.counts.get(key) != Some(&1))
            .map(|key| (self.counts.get(&key), key))
            .collect();
        assert!(wrong.is_empty(), "{} of {count}, the first {:?}", wrong.len(), wrong.first());
        assert_eq!(self.counts.len(), count);
        assert_eq!(self.ids.len(), count, "each alert has an id of its own");
    }
}
