//! Files and the webhook as sources of the daemon: directories that appear and disappear, logs that may not be read, neighbors of the
//! log, lines that a container runtime split, untrusted clients.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{RULE, WAIT_TIMEOUT, event, pullwatch, wait_for as wait};

/// A directory with rules, and a daemon that runs in it.
struct Daemon {
    folder: tempfile::TempDir,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Daemon {
    /// `sources` is YAML, in which `@` stands for the directory.
    fn start(sources: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rule.yaml"), RULE).unwrap();
        let config = format!(
            "sources: {sources}\nsinks: []\nrules: '@/rule.yaml'\nstate_dir: '@/state'\nserver: {{listen: '127.0.0.1:0'}}\n"
        );
        let config = config.replace('@', &folder.path().display().to_string());
        fs::write(folder.path().join("pullwatch.yaml"), config).unwrap();
        let mut daemon = Daemon { folder, child: None, log: Arc::default() };
        daemon.restart();
        daemon
    }

    fn restart(&mut self) {
        self.restart_as(pullwatch());
    }

    /// Without the capability of root to read what its owner may not.
    fn restart_without_capabilities(&mut self) {
        let binary = pullwatch();
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        if !is_root {
            return self.restart_as(binary);
        }
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search").arg(binary.get_program());
        self.restart_as(command);
    }

    fn restart_as(&mut self, mut command: Command) {
        self.kill();
        self.log.lock().unwrap().clear();
        command.arg("run").arg("--config").arg(self.path("pullwatch.yaml"));
        command.env("PULLWATCH_LOG", "info").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stderr, log) = (child.stderr.take().unwrap(), self.log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.child = Some(child);
        wait("the daemon runs", || self.logged("serving metrics"));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn logged(&self, part: &str) -> bool {
        self.log.lock().unwrap().contains(part)
    }

    fn log_lines(&self, part: &str) -> Vec<String> {
        self.log.lock().unwrap().lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }

    /// The address in a line of the log.
    fn address(&self, part: &str) -> String {
        let line = self.log_lines(part).remove(0);
        let at = line.find("127.0.0.1:").unwrap();
        line[at..].split(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').next().unwrap().to_owned()
    }

    fn get(&self, path: &str) -> String {
        request(&self.address("serving metrics"), &format!("GET {path} HTTP/1.1\r\n"), b"")
    }

    /// Sum of all series with this prefix.
    fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics");
        text.lines()
            .filter(|line| line.starts_with(series))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    fn alerts(&self) -> f64 {
        self.metric("pullwatch_alerts_total")
    }

    fn has_alerts(&self, number: usize) -> bool {
        self.alerts() >= f64::from(u32::try_from(number).unwrap())
    }

    fn post(&self, headers: &str, body: &[u8]) -> String {
        let start = format!("POST / HTTP/1.1\r\n{headers}Content-Length: {}\r\n", body.len());
        request(&self.address("receiving audit events"), &start, body)
    }
}

/// Sends a request and returns the response.
fn request(address: &str, start: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let head = format!("{start}Host: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}

const JSON: &str = "Content-Type: application/json\r\n";

fn line(number: usize) -> String {
    format!("{}\n", event(&number.to_string(), "get", "registry"))
}

#[test]
fn a_log_directory_that_appears_later_is_watched() {
    // Without notifications it would be read in an hour.
    let daemon = Daemon::start("[{paths: ['@/logs/audit/audit.log'], poll: 1h}]");
    wait("the missing directory is reported", || daemon.get("/readyz").contains("does not exist"));
    fs::create_dir_all(daemon.path("logs/audit")).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    fs::write(daemon.path("logs/audit/audit.log"), line(0)).unwrap();
    wait("the log is read", || daemon.alerts() >= 1.0);
    wait("it is ready", || daemon.get("/readyz").contains("\"status\":\"ok\""));
}

/// Nothing happens to the log itself when its directory is renamed.
#[test]
fn a_log_directory_that_is_renamed_is_noticed_by_polling() {
    let daemon = Daemon::start("[{paths: ['@/logs/audit.log'], poll: 100ms}]");
    fs::create_dir(daemon.path("logs")).unwrap();
    fs::write(daemon.path("logs/audit.log"), line(0)).unwrap();
    wait("the log is read", || daemon.alerts() >= 1.0);
    wait("the log alone is watched", || {
        is_watched(&daemon, "logs/audit.log") && !is_watched(&daemon, "logs")
    });
    fs::rename(daemon.path("logs"), daemon.path("old")).unwrap();
    fs::create_dir(daemon.path("logs")).unwrap();
    append(&daemon.path("old/audit.log"), &line(1));
    append(&daemon.path("logs/audit.log"), &line(2));
    wait("both logs are read", || daemon.alerts() >= 3.0);
}

#[test]
fn a_log_directory_that_is_removed_is_reported() {
    let mut daemon = Daemon::start("[{paths: ['@/logs/audit.log'], poll: 100ms}]");
    fs::create_dir(daemon.path("logs")).unwrap();
    fs::write(daemon.path("logs/audit.log"), line(0)).unwrap();
    wait("the log is read", || daemon.alerts() >= 1.0);
    daemon.restart();
    wait("it is ready", || daemon.get("/readyz").contains("\"status\":\"ok\""));
    wait("the log is found", || daemon.metric("pullwatch_source_up") > 0.5);
    let errors = daemon.metric("pullwatch_source_errors_total");
    fs::remove_dir_all(daemon.path("logs")).unwrap();
    wait("the removal is logged", || daemon.logged("log directory was removed"));
    wait("it is counted", || daemon.metric("pullwatch_source_errors_total") > errors);
    wait("readiness says so", || {
        let ready = daemon.get("/readyz");
        ready.contains("\"status\":\"degraded\"") && ready.contains("does not exist")
    });
    fs::create_dir(daemon.path("logs")).unwrap();
    fs::write(daemon.path("logs/audit.log"), line(1)).unwrap();
    wait("the new log is read", || daemon.alerts() >= 1.0);
    wait("it is ready again", || daemon.get("/readyz").contains("\"status\":\"ok\""));
}

/// The audit log as kubeadm leaves it: readable by root alone, and pullwatch runs without the capability to pass over that.
#[test]
fn a_log_that_may_not_be_read_is_down_with_the_remedy_until_it_may_be_read() {
    let mut daemon = Daemon::start("[{paths: ['@/logs/audit.log'], poll: 100ms}]");
    daemon.kill();
    fs::create_dir(daemon.path("logs")).unwrap();
    let log = daemon.path("logs/audit.log");
    fs::write(&log, line(0)).unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o000)).unwrap();
    daemon.restart_without_capabilities();
    let up = || {
        daemon
            .get("/metrics")
            .lines()
            .find_map(|line| line.strip_prefix("pullwatch_source_up{").map(str::to_owned))
    };
    wait("the source is down", || up().is_some_and(|series| series.ends_with(" 0")));
    wait("the reason is logged", || daemon.logged("ermission denied"));
    assert!(daemon.logged("run as root with all capabilities dropped"), "{}", daemon.log.lock().unwrap());
    let mut ready = String::new();
    wait("readiness says so", || {
        ready = daemon.get("/readyz");
        ready.contains("\"status\":\"degraded\"") && ready.contains("ermission denied")
    });
    assert!(!ready.contains("not found") && !daemon.logged("not found"), "{ready}");
    assert!(daemon.alerts() < 1.0);
    fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).unwrap();
    wait("the log is read", || daemon.alerts() >= 1.0);
    wait("the source is up", || up().is_some_and(|series| series.ends_with(" 1")));
}

#[test]
fn an_open_rotated_file_does_not_hide_that_the_log_may_not_be_read() {
    let mut daemon = Daemon::start("[{paths: ['@/logs/audit.log'], poll: 100ms}]");
    daemon.kill();
    fs::create_dir(daemon.path("logs")).unwrap();
    let rotated = daemon.path("logs/audit-2026-11-23T01-00-00.000.log");
    fs::write(&rotated, line(0)).unwrap();
    let log = daemon.path("logs/audit.log");
    fs::write(&log, line(1)).unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o000)).unwrap();
    daemon.restart_without_capabilities();
    wait("the rotated file is read", || daemon.alerts() >= 1.0);
    wait("readiness says so", || daemon.get("/readyz").contains("ermission denied"));
    assert!(daemon.metric("pullwatch_source_up") < 0.5);
    // A rotated file that may not be read is logged and counted; the log itself is read.
    fs::set_permissions(&rotated, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).unwrap();
    wait("the log is read", || daemon.alerts() >= 2.0);
    wait("the source is up", || daemon.metric("pullwatch_source_up") > 0.5);
}

#[test]
fn a_directory_that_may_not_be_listed_is_down_with_the_remedy_until_it_may_be_listed() {
    let mut daemon = Daemon::start("[{paths: ['@/logs/audit.log'], poll: 100ms}]");
    daemon.kill();
    let logs = daemon.path("logs");
    fs::create_dir(&logs).unwrap();
    fs::write(daemon.path("logs/audit.log"), line(0)).unwrap();
    fs::set_permissions(&logs, fs::Permissions::from_mode(0o000)).unwrap();
    daemon.restart_without_capabilities();
    wait("the reason is logged", || daemon.logged("run as root with all capabilities dropped"));
    let mut ready = String::new();
    wait("readiness says so", || {
        ready = daemon.get("/readyz");
        ready.contains("ermission denied")
    });
    assert!(!ready.contains("not found"), "{ready}");
    wait("it is counted", || daemon.metric("pullwatch_source_errors_total") > 0.5);
    let errors = daemon.metric("pullwatch_source_errors_total");
    assert!((errors - 1.0).abs() < 0.1, "{errors}");
    fs::set_permissions(&logs, fs::Permissions::from_mode(0o700)).unwrap();
    wait("the log is read", || daemon.alerts() >= 1.0);
    wait("it is ready", || daemon.get("/readyz").contains("\"status\":\"ok\""));
}

/// How often the threads woke up whose name `counts`.
fn wakeups_of(daemon: &Daemon, counts: impl Fn(&str) -> bool) -> u64 {
    let mut wakeups = None;
    let tasks = format!("/proc/{}/task", daemon.child.as_ref().unwrap().id());
    for task in fs::read_dir(tasks).unwrap().flatten() {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        if let Some(switches) = switches.filter(|_| counts(name.trim_end())) {
            *wakeups.get_or_insert(0) += switches.trim().parse::<u64>().unwrap();
        }
    }
    wakeups.unwrap()
}

/// How often the threads woke up that receive notifications of file changes, and the one that reads and evaluates.
fn wakeups(daemon: &Daemon) -> u64 {
    // The kernel cuts the name `notify-rs inotify loop`.
    wakeups_of(daemon, |thread| thread == "pipeline" || thread.starts_with("notify-rs"))
}

/// Whether the kernel notifies the daemon of changes of this file or directory.
fn is_watched(daemon: &Daemon, name: &str) -> bool {
    let Ok(metadata) = fs::metadata(daemon.path(name)) else { return false };
    let descriptors = format!("/proc/{}/fdinfo", daemon.child.as_ref().unwrap().id());
    let inode = format!(" ino:{:x} ", metadata.ino());
    fs::read_dir(descriptors)
        .unwrap()
        .flatten()
        .filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok())
        .any(|text| text.lines().any(|line| line.starts_with("inotify wd:") && line.contains(&inode)))
}

fn append(path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Returns how often the daemon woke up while a file was written, without the wake-ups for its periodic work: it has some every five
/// seconds, and on a loaded machine the writes take that long.
fn wakeups_by_writes(daemon: &Daemon, name: &str) -> u64 {
    let mut neighbor = fs::File::create(daemon.path(name)).unwrap();
    let (before, start) = (wakeups(daemon), Instant::now());
    for _ in 0..5_000 {
        neighbor.write_all(b"text\n").unwrap();
        // Writes that follow each other at once are one notification.
        std::thread::yield_now();
    }
    (wakeups(daemon) - before).saturating_sub(2 * start.elapsed().as_secs())
}

#[test]
fn writes_to_a_neighbor_of_the_log_do_not_wake_the_daemon() {
    let daemon = Daemon::start("[{paths: ['@/logs/audit.log'], poll: 1h}]");
    fs::create_dir(daemon.path("logs")).unwrap();
    let log = daemon.path("logs/audit.log");
    fs::write(&log, line(0)).unwrap();
    wait("the log is read", || daemon.alerts() >= 1.0);
    for round in [1, 2] {
        wait("the log alone is watched", || {
            is_watched(&daemon, "logs/audit.log") && !is_watched(&daemon, "logs")
        });
        let wakeups = wakeups_by_writes(&daemon, "logs/etcd.log");
        assert!(wakeups < 20, "5,000 writes to a neighbor woke the daemon {wakeups} times");
        // The same after a rotation.
        append(&log, &line(2 * round));
        fs::rename(&log, daemon.path(&format!("logs/audit-2026-11-23T0{round}-00-00.000.log"))).unwrap();
        wait("the directory is watched", || is_watched(&daemon, "logs"));
        append(&log, &line(2 * round + 1));
        wait("the new log is read", || daemon.has_alerts(2 * round + 1));
    }
}

#[test]
fn a_new_log_that_matches_a_pattern_is_noticed_at_once_and_other_files_do_not_wake_the_pipeline() {
    let daemon = Daemon::start("[{paths: ['@/logs/*.log'], poll: 1h}]");
    fs::create_dir(daemon.path("logs")).unwrap();
    wait("the directory is watched", || is_watched(&daemon, "logs"));
    for number in 0..3 {
        fs::write(daemon.path(&format!("logs/{number}.log")), line(number)).unwrap();
        wait("a new log is read", || daemon.has_alerts(number + 1));
    }
    let (before, start) = (wakeups_of(&daemon, |thread| thread == "pipeline"), Instant::now());
    wakeups_by_writes(&daemon, "logs/notes.txt");
    append(&daemon.path("logs/0.log"), &line(3));
    wait("the first log is read", || daemon.alerts() >= 4.0);
    let wakeups = wakeups_of(&daemon, |thread| thread == "pipeline") - before;
    let wakeups = wakeups.saturating_sub(2 * start.elapsed().as_secs());
    assert!(wakeups < 100, "5,000 writes to another file woke the pipeline {wakeups} times");
}

/// Each change is read by notifications alone: without them it would be read in an hour. Another file is written all the time.
#[test]
fn every_way_in_which_a_log_is_replaced_is_noticed_at_once() {
    let daemon = Daemon::start("[{paths: ['@/logs/audit.log'], poll: 1h}]");
    let path = |name: &str| daemon.path(&format!("logs/{name}"));
    fs::create_dir(daemon.path("logs")).unwrap();
    fs::create_dir(daemon.path("logs/targets")).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (mut neighbor, is_over) = (fs::File::create(path("etcd.log")).unwrap(), is_over.clone());
        move || {
            while !is_over.load(Ordering::Relaxed) {
                neighbor.write_all(b"text\n").unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    let log = path("audit.log");
    let mut events = 0;
    let mut write = |to: &Path, what: &str| {
        append(to, &line(events));
        events += 1;
        wait(what, || daemon.has_alerts(events));
    };
    // A writer that is slower than the daemon needs the directory to be watched in between.
    let pause = || std::thread::sleep(Duration::from_millis(100));
    for (round, pause) in [|| {}, pause].iter().enumerate() {
        write(&log, "a log that did not exist");
        write(&log, "a write");
        let rotated = path(&format!("audit-2026-11-23T0{round}-00-00.000.log"));
        fs::rename(&log, &rotated).unwrap();
        pause();
        write(&log, "a renamed log");
        write(&rotated, "a writer that did not reopen the log");
        fs::remove_file(&log).unwrap();
        pause();
        write(&log, "a deleted log");
        fs::write(path("new"), "").unwrap();
        fs::rename(path("new"), &log).unwrap();
        pause();
        write(&log, "a log that was replaced by a rename");
        fs::copy(&log, path("audit.log.1")).unwrap();
        pause();
        fs::File::create(&log).unwrap();
        pause();
        write(&log, "copytruncate");
        fs::hard_link(&log, path("other-name")).unwrap();
        write(&path("other-name"), "a write by another name");
        fs::remove_file(path("other-name")).unwrap();
        fs::remove_file(&log).unwrap();
        // As of a container: the link is created first.
        symlink("targets/0.log", &log).unwrap();
        pause();
        write(&path("targets/0.log"), "the target of a link");
        write(&path("targets/0.log"), "a write to the target of a link");
        fs::rename(path("targets/0.log"), path(&format!("targets/0.log.{round}"))).unwrap();
        pause();
        write(&path("targets/0.log"), "a target that was rotated");
        fs::write(path("targets/1.log"), "").unwrap();
        symlink("targets/1.log", path("link")).unwrap();
        fs::rename(path("link"), &log).unwrap();
        write(&path("targets/1.log"), "another target");
        for name in ["audit.log", "targets/0.log", "targets/1.log"] {
            fs::remove_file(path(name)).unwrap();
        }
        fs::remove_dir_all(path("targets")).unwrap();
        pause();
        fs::create_dir(path("targets")).unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

#[test]
fn a_trace_log_in_the_watched_directory_does_not_feed_itself() {
    let mut daemon = Daemon::start("[{paths: ['@/logs/audit.log'], poll: 1h}]");
    let config = daemon.path("pullwatch.yaml");
    daemon.kill();
    fs::create_dir(daemon.path("logs")).unwrap();
    fs::write(daemon.path("logs/audit.log"), line(0)).unwrap();
    let path = daemon.path("logs/pullwatch.log");
    let mut command = pullwatch();
    command.arg("run").arg("--config").arg(config).env("PULLWATCH_LOG", "trace");
    command.stdout(Stdio::null()).stderr(fs::File::create(&path).unwrap());
    daemon.child = Some(command.spawn().unwrap());
    let said = || fs::read_to_string(&path).unwrap();
    wait("the daemon runs", || said().contains("serving metrics"));
    *daemon.log.lock().unwrap() = said();
    wait("the log is read", || daemon.alerts() >= 1.0);
    // If each line caused another one, there would be no end to them.
    wait("the daemon has nothing to say", || {
        let before = said().lines().count();
        std::thread::sleep(Duration::from_millis(500));
        said().lines().count() - before < 50
    });
}

/// A JSON patch whose value is an event, split by the runtime at the start of that event.
#[test]
fn a_piece_of_a_split_line_is_never_an_event_of_its_own() {
    let forged = event("forged", "get", "registry");
    let start = event("own", "patch", "registry");
    let start = start.strip_suffix('}').unwrap();
    let first =
        format!("2026-11-23T04:00:00Z stdout P {start},\"requestObject\":[{{\"op\":\"add\",\"value\":\n");
    let last = format!("2026-11-23T04:00:00Z stdout F {forged}}}]}}\n");
    let whole = format!("2026-11-23T04:00:00Z stdout F {}\n", event("whole", "get", "registry"));
    let mut daemon = Daemon::start("[{paths: ['@/audit.log'], poll: 50ms}]");
    let append = |daemon: &Daemon, text: &str| {
        let mut log =
            fs::OpenOptions::new().create(true).append(true).open(daemon.path("audit.log")).unwrap();
        log.write_all(text.as_bytes()).unwrap();
    };
    append(&daemon, &whole);
    append(&daemon, &first);
    wait("the whole line is read", || daemon.alerts() >= 1.0);
    // The position that is stored now must not be between the pieces.
    daemon.restart();
    append(&daemon, &last);
    append(&daemon, &whole.replace("whole", "second"));
    let mut alerts = String::new();
    wait("the rest is stored", || {
        let output = pullwatch()
            .args(["alerts", "list", "--format", "json", "--state-dir"])
            .arg(daemon.path("state"))
            .output()
            .unwrap();
        alerts = String::from_utf8(output.stdout).unwrap();
        alerts.contains("\"second\"")
    });
    assert!(alerts.contains("\"whole\""), "{alerts}");
    assert!(!alerts.contains("\"auditID\":\"forged\""), "{alerts}");
}

#[test]
fn the_same_event_from_file_and_webhook_is_counted_once() {
    let daemon =
        Daemon::start("[{paths: ['@/audit.log'], poll: 50ms}, {type: webhook, listen: '127.0.0.1:0'}]");
    let response = daemon.post(JSON, event("a", "get", "registry").as_bytes());
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    fs::write(daemon.path("audit.log"), format!("{}\n", event("a", "get", "registry")) + &line(1)).unwrap();
    wait("both are read", || daemon.alerts() >= 2.0);
    assert!((daemon.alerts() - 2.0).abs() < f64::EPSILON);
}

#[test]
fn a_refused_token_is_logged_with_the_address_at_a_limited_rate() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef").unwrap();
    let daemon = Daemon::start(&format!(
        "[{{type: webhook, listen: '127.0.0.1:0', token_file: '{}'}}]",
        token.display()
    ));
    for _ in 0..5 {
        let response = daemon.post(&format!("{JSON}Authorization: Bearer wrong\r\n"), b"[{}]");
        assert!(response.starts_with("HTTP/1.1 403"), "{response}");
        assert!(daemon.post(JSON, b"[{}]").starts_with("HTTP/1.1 401"));
    }
    wait("both kinds are logged", || daemon.log_lines("webhook request refused").len() >= 2);
    let lines = daemon.log_lines("webhook request refused");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("127.0.0.1")), "{lines:?}");
    assert!(!daemon.logged("0123456789abcdef"));
    assert!((daemon.metric("pullwatch_webhook_requests_total{code=\"403\"") - 5.0).abs() < f64::EPSILON);
}

#[test]
fn a_flood_of_idle_connections_does_not_lock_out_the_apiserver() {
    let daemon = Daemon::start("[{type: webhook, listen: '127.0.0.1:0'}]");
    let address = daemon.address("receiving audit events");
    let mut held = Vec::new();
    for number in 0..200 {
        let mut idle = TcpStream::connect(&address).unwrap();
        if number % 2 == 0 {
            let _ = idle.write_all(b"POST / HTTP/1.1\r\n");
        }
        held.push(idle);
        if number % 20 == 19 {
            let response = daemon.post(JSON, event(&number.to_string(), "get", "registry").as_bytes());
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        }
    }
    wait("it is logged", || daemon.logged("connection limit reached"));
}

#[test]
fn requests_of_a_web_page_are_refused() {
    let daemon = Daemon::start("[{type: webhook, listen: '127.0.0.1:0'}]");
    let body = event("a", "get", "registry");
    assert!(daemon.post("Content-Type: text/plain\r\n", body.as_bytes()).starts_with("HTTP/1.1 415"));
    assert!(daemon.post("", body.as_bytes()).starts_with("HTTP/1.1 415"));
    let origin = format!("{JSON}Origin: https://evil.example\r\n");
    assert!(daemon.post(&origin, body.as_bytes()).starts_with("HTTP/1.1 403"));
    let get = |host: &str| {
        let mut stream = TcpStream::connect(daemon.address("serving metrics")).unwrap();
        write!(stream, "GET /api/v1/alerts HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    };
    assert!(get("localhost").starts_with("HTTP/1.1 200"));
    for host in ["pullwatch", "printer.local", "evil.example.com"] {
        assert!(get(host).starts_with("HTTP/1.1 403"), "{host}");
    }
}

/// A log that rotates as the apiserver's does with `--audit-log-maxsize=1 --audit-log-maxbackup=3`.
struct RotatedLog {
    folder: PathBuf,
    written: usize,
    rotations: usize,
}

impl RotatedLog {
    const MAX_SIZE: u64 = 1 << 20;
    const MAX_BACKUPS: usize = 3;

    fn backups(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            files.filter(|path| path.to_str().unwrap().contains("audit-2026")).collect();
        files.sort();
        files
    }

    /// Writes one event of 8 KiB.
    fn write(&mut self) {
        let event = event(&format!("event-{:05}", self.written), "get", "registry");
        let padding = "x".repeat(8192 - event.len());
        let line = event
            .replace("\"annotations\":{", &format!("\"annotations\":{{\"padding\":\"{padding}\","))
            + "\n";
        self.written += 1;
        let live = self.folder.join("audit.log");
        if fs::metadata(&live).is_ok_and(|file| file.len() + line.len() as u64 > Self::MAX_SIZE) {
            self.rotations += 1;
            let name = format!("audit-2026-11-23T10-{:02}-00.000.log", self.rotations);
            fs::rename(&live, self.folder.join(name)).unwrap();
            let backups = self.backups();
            for oldest in backups.iter().take(backups.len().saturating_sub(Self::MAX_BACKUPS)) {
                fs::remove_file(oldest).unwrap();
            }
        }
        let mut log = fs::OpenOptions::new().create(true).append(true).open(live).unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }

    fn is_full(&self) -> bool {
        fs::metadata(self.folder.join("audit.log")).unwrap().len() + 16_384 > Self::MAX_SIZE
    }

    /// Numbers of the events in the files that are there.
    fn kept(&self) -> Vec<usize> {
        let mut files = self.backups();
        files.push(self.folder.join("audit.log"));
        files.iter().flat_map(|path| numbers(&fs::read_to_string(path).unwrap())).collect()
    }
}

/// Numbers of the events that a text mentions, in ascending order.
fn numbers(text: &str) -> Vec<usize> {
    let found = text.match_indices("\"event-").map(|(at, _)| text[at + 7..at + 12].parse().unwrap());
    found.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// The least that fits is what is promised: the position is at the end of a full file, which is the first one to be deleted.
#[test]
fn a_downtime_up_to_the_bound_of_the_flags_loses_nothing_and_a_longer_one_is_reported() {
    let mut daemon = Daemon::start("[{paths: ['@/logs/audit.log'], poll: 50ms}]");
    fs::create_dir(daemon.path("logs")).unwrap();
    let flags = "--audit-policy-file=/p --audit-log-path=/logs/audit.log --audit-log-maxsize=1 --audit-log-maxbackup=3";
    fs::write(daemon.path("flags"), flags).unwrap();
    let check = pullwatch()
        .args(["config", "check", "--apiserver-flags"])
        .args([daemon.path("flags"), daemon.path("pullwatch.yaml")])
        .output()
        .unwrap();
    let check = String::from_utf8(check.stdout).unwrap();
    assert!(check.contains("until 3 MiB of log have been written"), "{check}");

    let mut log = RotatedLog { folder: daemon.path("logs"), written: 0, rotations: 0 };
    let stored = |daemon: &Daemon| {
        let output = pullwatch()
            .args(["alerts", "list", "--format", "json", "--limit", "100000", "--state-dir"])
            .arg(daemon.path("state"))
            .output()
            .unwrap();
        numbers(&String::from_utf8(output.stdout).unwrap())
    };
    log.write();
    while !log.is_full() {
        log.write();
    }
    wait("the first file is read", || stored(&daemon).len() == log.written);

    daemon.kill();
    let mut bytes = 0;
    while bytes + 8193 * (RotatedLog::MAX_BACKUPS as u64 + 1)
        <= RotatedLog::MAX_BACKUPS as u64 * RotatedLog::MAX_SIZE
    {
        log.write();
        bytes += 8193;
    }
    daemon.restart();
    wait("all that was written while it was down is stored", || stored(&daemon).len() == log.written);
    assert!(!daemon.logged("events written in between may be lost"), "{}", daemon.log.lock().unwrap());
    assert!(daemon.metric("pullwatch_source_errors_total") < 1.0);

    while !log.is_full() {
        log.write();
    }
    wait("the last file is read", || stored(&daemon).len() == log.written);
    let before = log.written;
    daemon.kill();
    let rotations = log.rotations;
    while log.rotations < rotations + RotatedLog::MAX_BACKUPS + 2 {
        log.write();
    }
    let kept = log.kept();
    assert!(kept[0] > before, "the log of the bound and more was written");
    daemon.restart();
    wait("the loss is logged", || daemon.logged("events written in between may be lost"));
    wait("the loss is counted", || daemon.metric("pullwatch_source_errors_total") >= 1.0);
    let expected: Vec<usize> = (0..before).chain(kept).collect();
    wait("what is left is stored", || stored(&daemon).len() >= expected.len());
    assert_eq!(stored(&daemon), expected);
}
