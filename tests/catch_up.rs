//! A backlog is read with a second core; what is stored is the same.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{RULE, event, pullwatch, sample, wait_for};
use pullwatch::internals::daemon::store::StoreReader;
use pullwatch::internals::detection::detector::{Detector, LogContext, Options};
use pullwatch::internals::detection::rules;
use pullwatch::internals::shipped;

const SAMPLES: [&str; 4] =
    ["objects.log.gz", "request-response.log.gz", "metadata.log.gz", "kubernetes-1.36.log.gz"];

/// The last event of the log, which makes an alert.
const LAST: &str = "00000000-0000-4000-8000-00000000last";

/// What the daemon says when a second thread has helped.
const HELPED: &str = "caught up with a second thread";

/// Events of the sample logs, several times, each time with other audit ids.
fn backlog() -> Vec<u8> {
    let mut log = Vec::new();
    for copy in 0..2 {
        for name in SAMPLES {
            for line in sample(name).split_inclusive(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(line);
                log.extend_from_slice(
                    line.replacen("\"auditID\":\"", &format!("\"auditID\":\"{copy}"), 1).as_bytes(),
                );
            }
        }
    }
    log.extend_from_slice(format!("{}\n", event(LAST, "get", "registry-pull")).as_bytes());
    log
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(log: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("audit.log"), log).unwrap();
        // The same hashes of redacted values everywhere.
        fs::create_dir(folder.path().join("state")).unwrap();
        let key = folder.path().join("state/redaction.key");
        fs::write(&key, [7; 32]).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, core: Option<&str>) -> Child {
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", core]).arg(pullwatch().get_program());
                command
            }
            None => pullwatch(),
        };
        let said = fs::OpenOptions::new().create(true).append(true).open(self.path("said")).unwrap();
        // An empty folder, so that the shipped rules are used.
        command.current_dir(self.folder.path()).env("PULLWATCH_LOG", "pullwatch=debug");
        command.arg("run").arg(self.path("audit.log")).args(["--format", "json", "--listen", "127.0.0.1:0"]);
        command.arg("--state-dir").arg(self.path("state"));
        if self.path("rules.d").exists() {
            command.arg("--rules").arg(self.path("rules.d"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        command.spawn().unwrap()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("said")).unwrap()
    }

    /// What is stored, in order.
    fn stored(&self) -> Vec<String> {
        let mut all = Vec::new();
        let Ok(reader) = StoreReader::open(&self.path("state")) else { return all };
        let mut last = 0;
        while let Ok(page) = reader.after(last, 1000) {
            let Some(newest) = page.last() else { break };
            last = newest.seq;
            all.extend(page.iter().map(|alert| String::from_utf8(alert.json.clone()).unwrap()));
        }
        all
    }

    fn has(&self, id: &str) -> bool {
        StoreReader::open(&self.path("state")).is_ok_and(|reader| {
            let alerts = reader
                .list(&pullwatch::internals::daemon::store::Filter { limit: Some(20), ..Default::default() });
            let has = |json: &[u8]| memchr::memmem::find(json, id.as_bytes()).is_some();
            alerts.is_ok_and(|alerts| alerts.iter().any(|one| has(&one.alert.json)))
        })
    }

    fn finish(&self, child: Child) {
        wait_for("the end is stored", || self.has(LAST));
        stop(child);
    }
}

fn stop(mut child: Child) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();
}

/// The cores that this process may use.
fn first_core() -> String {
    let status = fs::read_to_string(Path::new("/proc/self/status")).unwrap();
    let list =
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    list.split([',', '-']).next().unwrap().to_owned()
}

#[test]
fn two_threads_store_what_one_stores_also_when_killed() {
    let log = backlog();
    let (one, two, killed) = (Place::new(&log), Place::new(&log), Place::new(&log));
    one.finish(one.start(Some(&first_core())));
    assert!(!one.said().contains(HELPED), "one core");
    two.finish(two.start(None));
    if std::thread::available_parallelism().unwrap().get() > 1 {
        assert!(two.said().contains(HELPED), "two cores");
    }
    let wanted = one.stored();
    assert!(wanted.len() > 300, "{}", wanted.len());
    assert!(two.stored() == wanted, "{} and {}", two.stored().len(), wanted.len());
    let mut kills = 0;
    while !killed.has(LAST) && kills < 20 {
        let before = killed.stored().len();
        let mut child = killed.start(None);
        wait_for("more is stored", || killed.stored().len() > before);
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    killed.finish(killed.start(None));
    assert!(killed.stored() == wanted, "{kills} kills, {} and {}", killed.stored().len(), wanted.len());
}

#[test]
fn at_rest_no_second_thread_works() {
    let place = Place::new(b"");
    // A rule that is not throttled.
    fs::create_dir(place.path("rules.d")).unwrap();
    fs::write(place.path("rules.d/rule.yaml"), RULE).unwrap();
    let child = place.start(None);
    for number in 0..20 {
        let id = format!("id-{number}-");
        let mut log = fs::OpenOptions::new().append(true).open(place.path("audit.log")).unwrap();
        std::io::Write::write_all(&mut log, format!("{}\n", event(&id, "get", "registry-pull")).as_bytes())
            .unwrap();
        wait_for("it is stored", || place.has(&id));
    }
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    assert!(names.into_iter().all(|name| name.trim() != "catch-up"));
    stop(child);
    assert!(!place.said().contains(HELPED));
}

#[test]
fn screening_and_the_rest_make_the_alerts_of_a_session() {
    let rules = rules::load(&shipped::files(), &rules::Options::default()).rules;
    let detector = Detector::new(&rules, Options::default());
    let log = LogContext::default();
    let (mut whole, mut split) = (detector.session(), detector.session());
    let mut screening = detector.screening(&log);
    for name in SAMPLES {
        let mut wanted = Vec::new();
        let mut got = Vec::new();
        let text = sample(name);
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        for chunk in lines.chunks(200) {
            let bytes = chunk.concat();
            whole.chunk(&bytes, &mut |alert| {
                alert.write_json(&mut wanted);
                wanted.push(b'\n');
            });
            let screened = screening.chunk(&bytes);
            split.screened(&screened, &bytes, &mut |alert| {
                alert.write_json(&mut got);
                got.push(b'\n');
            });
        }
        assert!(!wanted.is_empty() && wanted == got, "{name}");
        assert_eq!(whole.take_stats(), split.take_stats(), "{name}");
    }
}
