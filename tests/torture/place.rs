//! A log, rules, a state directory and the daemon that reads them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use pullwatch::store::{Filter, Reader};

use crate::common::{RULE, event, pullwatch};

/// Numbers that look random and are the same each time.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The line of an event that two rules match.
pub fn line(number: usize) -> String {
    event(&number.to_string(), "get", "registry") + "\n"
}

pub struct Place {
    folder: tempfile::TempDir,
    pub state: PathBuf,
    /// Where the daemon serves its metrics.
    pub port: u16,
}

impl Place {
    /// `sources` and `sinks` are the configuration's; `@` in them stands for the folder.
    pub fn new(sources: &str, sinks: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let place = Place { folder, state, port: free_port() };
        let rules = RULE.to_owned() + &RULE.replace("Registry Secret Access", "The Same Again");
        fs::write(place.path("rules.yaml"), rules).unwrap();
        let text = format!(
            "rules: [@/rules.yaml]\nserver: {{listen: 127.0.0.1:{}}}\nsources: {sources}\nsinks: {sinks}\n",
            place.port
        );
        fs::write(
            place.path("pullwatch.yaml"),
            text.replace('@', &place.folder.path().display().to_string()),
        )
        .unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn start(&self) -> Child {
        pullwatch()
            .arg("run")
            .arg("--config")
            .arg(self.path("pullwatch.yaml"))
            .arg("--state-dir")
            .arg(&self.state)
            .stdout(Stdio::null())
            .stderr(OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap())
            .spawn()
            .unwrap()
    }

    pub fn append(&self, text: &str) {
        let mut log = OpenOptions::new().create(true).append(true).open(self.path("audit.log")).unwrap();
        log.write_all(text.as_bytes()).unwrap();
    }

    pub fn events(&self, numbers: std::ops::Range<usize>) {
        self.append(&numbers.map(line).collect::<String>());
    }

    /// How often each event and rule is in the store.
    pub fn stored(&self) -> BTreeMap<(usize, String), usize> {
        let mut counts = BTreeMap::new();
        let Ok(reader) = Reader::open(&self.state) else { return counts };
        for one in reader.list(&Filter::default()).unwrap_or_default() {
            let alert: serde_json::Value = serde_json::from_slice(&one.alert.json).unwrap();
            let number = alert["event"]["auditID"].as_str().unwrap().parse().unwrap();
            *counts.entry((number, one.alert.rule)).or_default() += 1;
        }
        counts
    }

    /// Waits until the store has both alerts of so many events, and none twice.
    pub fn settles_at(&self, events: usize) {
        self.until("the store has everything", || self.alerts() >= 2 * events);
        let stored = self.stored();
        let missing: Vec<_> = (0..events)
            .flat_map(|number| {
                ["Registry Secret Access", "The Same Again"].map(|rule| (number, rule.to_owned()))
            })
            .filter(|key| stored.get(key) != Some(&1))
            .take(5)
            .collect();
        assert!(
            missing.is_empty() && stored.len() == 2 * events,
            "{missing:?} of {events}, {} stored",
            stored.len()
        );
    }

    /// How many alerts are in the store.
    pub fn alerts(&self) -> usize {
        let stats = Reader::open(&self.state).and_then(|reader| reader.stats());
        stats.map_or(0, |stats| usize::try_from(stats.alerts).unwrap())
    }

    /// What the daemon answers; nothing where it does not.
    pub fn get(&self, path: &str) -> String {
        use std::io::Read as _;
        let mut answer = String::new();
        if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            if stream.write_all(request.as_bytes()).is_ok() {
                let _ = stream.read_to_string(&mut answer);
            }
        }
        answer
    }

    /// Waits for what has to come. The end is there for a test that hangs, not for a slow machine.
    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(300);
        while !is_so() {
            assert!(Instant::now() < end, "waited in vain: {what}\n{}", self.tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last words of the daemon.
    fn tail(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
    }
}

/// Ends it as a service manager does; says its exit status.
pub fn stop(mut child: Child) -> Option<i32> {
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    child.wait().unwrap().code()
}

pub fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Rotates a log the way that `how` says; `round` makes the name.
pub fn rotate(log: &Path, round: usize, how: usize) {
    let stamp = format!("2026-11-23T{:02}-{:02}-{:02}.000", round / 3600, round / 60 % 60, round % 60);
    let rotated = log.with_file_name(format!("audit-{stamp}.log"));
    match how {
        // As the apiserver does it.
        0 => drop(fs::rename(log, rotated)),
        // With --audit-log-compress.
        1 => {
            if fs::rename(log, &rotated).is_ok() {
                let unfinished = log.with_file_name("compressing");
                let mut packed = flate2::write::GzEncoder::new(
                    fs::File::create(&unfinished).unwrap(),
                    flate2::Compression::fast(),
                );
                packed.write_all(&fs::read(&rotated).unwrap()).unwrap();
                packed.finish().unwrap();
                fs::rename(unfinished, rotated.with_extension("log.gz")).unwrap();
                fs::remove_file(rotated).unwrap();
            }
        }
        // As logrotate does it for those who keep their file open.
        _ => {
            if fs::copy(log, rotated).is_ok() {
                fs::write(log, "").unwrap();
            }
        }
    }
}
