//! `pullwatch scan` on difficult input: directory layouts, broken files, slow pipes, large lines.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use common::{RULE, event, ids, peak_memory, pullwatch, said};
use tempfile::TempDir;

/// A directory with a rule file; commands run there.
struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        let lab = Lab(tempfile::tempdir().unwrap());
        lab.write("rules/rule.yaml", RULE);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Writes a log with one event that alerts.
    fn log(&self, name: &str, id: &str, time: &str) {
        let line = event(id, "get", "registry-1").replace("2026-11-23T10:00", time) + "\n";
        let path = Path::new(name);
        let content = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => gzip(line.as_bytes()),
            Some("zst" | "zstd") => zstd::encode_all(line.as_bytes(), 1).unwrap(),
            _ => line.into_bytes(),
        };
        self.write(name, content);
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = pullwatch();
        command
            .args(["scan", "--format", "json", "--rules", "rules"])
            .args(arguments)
            .current_dir(self.0.path());
        command
    }

    fn scan(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn order(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.scan(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        ids(&output)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn log_sets_are_read_in_the_order_of_their_first_events() {
    let lab = Lab::new();
    // Neither the names nor the modification times have the order.
    lab.log("logs/a.log", "third", "2026-11-23T12:00");
    lab.log("logs/node-2/b.json.gz", "first", "2026-11-23T08:00");
    lab.log("logs/c.log.zst", "second", "2026-11-23T10:00");
    lab.log("logs/.hidden/d.log", "hidden", "2026-11-23T10:00");
    lab.write("logs/z.log", "no time in here\n");
    assert_eq!(lab.order(&["logs"]), ["first", "second", "third"]);
    assert_eq!(lab.order(&["logs/**"]), ["first", "second", "third"]);
    assert_eq!(lab.order(&["./logs//*.lo[g]*"]), ["second", "third"]);
}

#[test]
fn a_rotated_set_named_file_by_file_is_read_oldest_first() {
    let lab = Lab::new();
    lab.log("audit.log", "live", "2026-11-23T10:00");
    lab.log("audit.log.1", "newer", "2026-11-23T10:00");
    lab.log("audit.log.10.gz", "oldest", "2026-11-23T10:00");
    lab.log("audit.log.2.gz", "older", "2026-11-23T10:00");
    lab.log("other.log", "other", "2026-11-23T01:00");
    let names = ["audit.log", "audit.log.1", "audit.log.10.gz", "audit.log.2.gz", "other.log"];
    assert_eq!(lab.order(&names), ["oldest", "older", "newer", "live", "other"]);
}

#[test]
fn patterns_match_directories_but_no_hidden_files_and_each_file_is_read_once() {
    let lab = Lab::new();
    lab.log("node-1/audit.log", "a1", "2026-11-23T10:00");
    lab.log("node-2/audit.log", "a2", "2026-11-23T11:00");
    lab.log("node-2/.audit.log.swp", "no", "2026-11-23T12:00");
    assert_eq!(lab.order(&["node-*"]), ["a1", "a2"]);
    assert_eq!(lab.order(&["*/*log*"]), ["a1", "a2"]);
    assert_eq!(lab.order(&["node-1", "node-*", "node-2/audit.log", "./node-2"]), ["a1", "a2"]);
}

#[test]
#[cfg(unix)]
fn follows_links_without_loops() {
    let lab = Lab::new();
    lab.log("data/real.log", "a1", "2026-11-23T10:00");
    fs::create_dir(lab.path("logs")).unwrap();
    std::os::unix::fs::symlink("../data/real.log", lab.path("logs/audit.log")).unwrap();
    std::os::unix::fs::symlink("..", lab.path("logs/up.log")).unwrap();
    assert_eq!(lab.order(&["logs"]), ["a1"]);
    assert_eq!(lab.order(&["logs/**/*.log"]), ["a1"]);
}

#[test]
fn accepts_file_names_of_any_bytes() {
    use std::os::unix::ffi::OsStrExt as _;
    let lab = Lab::new();
    let name = std::ffi::OsStr::from_bytes(b"audit-\xff\x1b[2J.log");
    fs::write(lab.path("x").with_file_name(name), event("a1", "get", "registry-1")).unwrap();
    let output = lab.command(&[]).arg(name).output().unwrap();
    assert_eq!(ids(&output), ["a1"]);
    fs::remove_file(lab.path("x").with_file_name(name)).unwrap();
    let output = lab.command(&[]).arg(name).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!said(&output).contains('\u{1b}'), "{}", said(&output));
}

#[test]
fn names_unsupported_formats_with_a_remedy() {
    let lab = Lab::new();
    lab.write("a.log.xz", b"\xfd7zXZ\0\0\x04rest");
    lab.write("b.log.bz2", b"BZh91AY&SYrest");
    lab.write("c.log", b"\xff\xfe{\0\"\0");
    lab.write("empty.log", "");
    lab.write("empty.log.gz", gzip(b""));
    lab.log("good.log", "a1", "2026-11-23T10:00");
    for threads in ["1", "3"] {
        let output = lab.scan(&["--threads", threads, ".", "a.log.xz"]);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(ids(&output), ["a1"]);
        let said = said(&output);
        for part in ["xz -dc", "bzip2 -dc", "iconv -f UTF-16", "Empty inputs: 2\n", "empty.log.gz"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("Malformed"), "{said}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn names_inputs_with_read_errors_and_continues() {
    let lab = Lab::new();
    lab.log("good.log", "a1", "2026-11-23T10:00");
    // Can be opened, but never read at its start.
    let output = lab.scan(&["/proc/self/mem", "good.log"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(ids(&output), ["a1"]);
    assert!(said(&output).contains("/proc/self/mem: "), "{}", said(&output));
    let line = event("a2", "get", "registry-1") + "\n";
    let random: String = (0..4000_u32)
        .map(|n| line.replace("curl/8", &format!("{:x}", n.wrapping_mul(2_654_435_761))))
        .collect();
    for (name, whole) in [
        ("torn.log.gz", gzip(random.as_bytes())),
        ("torn.log.zst", zstd::encode_all(random.as_bytes(), 1).unwrap()),
    ] {
        lab.write(name, &whole[..whole.len() * 2 / 3]);
        let output = lab.scan(&[name, "good.log"]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let ids = ids(&output);
        assert!(ids.len() > 1000 && ids.last().unwrap() == "a1", "{name}: {} alerts", ids.len());
        assert!(said(&output).contains(&format!("{name}: ")), "{}", said(&output));
    }
}

#[test]
fn an_indented_event_arriving_line_by_line_stays_whole() {
    let lab = Lab::new();
    let value: serde_json::Value = serde_json::from_str(&event("a1", "get", "registry-1")).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap() + "\n";
    let mut child = lab
        .command(&["-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in pretty.repeat(2).split_inclusive('\n') {
        stdin.write_all(line.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(ids(&output), ["a1", "a1"]);
    assert!(!said(&output).contains("Truncated"), "{}", said(&output));
}

#[test]
fn exits_on_a_closed_pipe_while_standard_input_is_idle() {
    let lab = Lab::new();
    for threads in ["1", "3"] {
        let mut child = lab
            .command(&["--threads", threads, "--fail-on", "debug"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{}", event("a1", "get", "registry-1")).unwrap();
        // Standard input stays open all the time.
        let deadline = std::time::Instant::now() + common::WAIT_TIMEOUT;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if std::time::Instant::now() > deadline {
                break None;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{threads} threads");
        assert_eq!(said(&output), "");
    }
}

#[test]
fn rejects_an_empty_time_range() {
    let lab = Lab::new();
    lab.log("a.log", "a1", "2026-11-23T10:00");
    let output = lab.scan(&["a.log", "--since", "2026-11-24", "--until", "2026-11-23"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--since must be earlier than --until"), "{}", said(&output));
}

#[test]
fn compressed_files_that_are_read_at_once_give_the_output_of_one_thread() {
    let lab = Lab::new();
    let time = |number: usize| format!("2026-11-23T1{}:00", number % 10);
    for number in 0..9 {
        let line = event("ID", "get", "registry-1").replace("2026-11-23T10:00", &time(number)) + "\n";
        let lines: String = (0..3000).map(|n| line.replace("\"ID\"", &format!("\"{number}-{n}\""))).collect();
        let name = format!("{number}.log");
        match number % 3 {
            0 => lab.write(&format!("{name}.gz"), gzip(lines.as_bytes())),
            1 => lab.write(&format!("{name}.zst"), zstd::encode_all(lines.as_bytes(), 1).unwrap()),
            _ => lab.write(&name, &lines),
        }
    }
    // Torn, unsupported and empty ones between them.
    let whole = fs::read(lab.path("3.log.gz")).unwrap();
    lab.write("3.log.gz", &whole[..whole.len() / 2]);
    lab.write("4a.log", b"\xfd7zXZ\0\0\x04rest");
    lab.write("6a.log", "");
    let names =
        ["0.log.gz", "1.log.zst", "2.log", "3.log.gz", "4.log.zst", "4a.log", "5.log", "6.log.gz", "6a.log"];
    let scan =
        |threads: &str| lab.scan(&[&["--threads", threads], &names[..], &["7.log.zst", "8.log"]].concat());
    let said_without_times = |output: &Output| {
        let said = said(output);
        said.lines().filter(|line| !line.contains(" events, ")).collect::<Vec<_>>().join("\n")
    };
    let one = scan("1");
    assert!(ids(&one).len() > 20_000 && one.status.code() == Some(2));
    for threads in ["2", "3", "8"] {
        let many = scan(threads);
        assert!(many.stdout == one.stdout, "output differs with {threads} threads");
        assert_eq!(said_without_times(&many), said_without_times(&one));
        assert_eq!(many.status.code(), Some(2));
    }
}

/// An event with a response of 6 MB, about a credential of its own: repeated reads of one are throttled.
fn long_event(id: &str) -> String {
    let line = event(id, "get", &format!("registry-{id}"));
    let (head, tail) = line.split_at(line.find(r#""requestReceived"#).unwrap());
    format!("{head}\"responseObject\":{{\"data\":\"{}\"}},{tail}\n", "x".repeat(6_000_000))
}

#[test]
#[cfg(target_os = "linux")]
fn threads_share_the_memory_limit_for_long_lines() {
    let lab = Lab::new();
    lab.write("a.log", (0..10).map(|number| long_event(&number.to_string())).collect::<String>());
    let (peak, found) = peak_memory(&mut lab.command(&["--threads", "8", "--max-event-size", "7M", "a.log"]));
    assert_eq!(found, (0..10).map(|number| number.to_string()).collect::<Vec<_>>());
    // Each of 24 buffers could hold 7 MiB.
    assert!(peak < 56 << 20, "{peak} bytes");
}

/// Long records of inputs that were read ahead wait for their turn; so do not all inputs that there are.
#[test]
#[cfg(target_os = "linux")]
fn long_lines_that_wait_for_their_turn_count_toward_the_memory_limit() {
    let lab = Lab::new();
    let line = event("first", "get", "other");
    lab.write("logs/00.log", format!("{line}\n").repeat(20_000_000 / line.len()));
    for number in 10..50 {
        lab.write(&format!("logs/{number}.log"), long_event(&number.to_string()));
    }
    let rules = common::project("rules.d").display().to_string();
    let arguments = ["--threads", "4", "--max-event-size", "7M", "--rules", &rules, "logs"];
    let (peak, found) = peak_memory(&mut lab.command(&arguments));
    assert!(found.contains(&"49".to_owned()), "{found:?}");
    // 40 records of 6 MB are twice as much.
    assert!(peak < 128 << 20, "{peak} bytes");
}

#[test]
fn input_without_audit_events_is_an_error_that_says_what_it_looks_like() {
    let lab = Lab::new();
    let core = r#"{"kind":"Event","apiVersion":"v1","metadata":{"name":"web-0.17"},"involvedObject":{"kind":"Pod"},"message":"m"}"#;
    let new_core =
        r#"{"kind":"Event","apiVersion":"events.k8s.io/v1","regarding":{"kind":"Pod"},"note":"m"}"#;
    let rancher = r#"{"auditID":"30022177","requestURI":"/v3/secrets","sourceIPs":["::1"],"user":{"name":"user-1","group":["g"]},"verb":"GET","stage":"RequestReceived","stageTimestamp":"2018-07-20 10:22:43 +0800"}"#;
    let cases = [
        (
            core.to_owned(),
            "Event object of the Kubernetes API",
            "{kind: Event, apiVersion, metadata, involvedObject, message}",
        ),
        (format!("{new_core}\n{new_core}\n"), "2 of 2 records", "kubectl get events"),
        (rancher.to_owned(), "audit record of another program", "Rancher"),
        (
            "<133>Oct  7 16:19:19 m7 app: password=hunter2\n".repeat(1500),
            "1,500 of 1,500 records",
            "<133>Oct  7 16:00:00 x0 xxx: ",
        ),
        (r#"{"kind":"Pod","s3cr3tkey":"hunter2"}"#.to_owned(), "not an audit event", "{kind: Pod, …}"),
    ];
    for (content, reason, look) in &cases {
        lab.write("logs/audit.log", content);
        for command in [
            &["scan", "-q", "--rules", "rules", "logs"][..],
            &["report", "--rules", "rules", "logs"],
            &["baseline", "--rules", "rules", "logs"],
        ] {
            let run = pullwatch().args(command).current_dir(lab.0.path()).output().unwrap();
            let text = said(&run);
            assert_eq!(run.status.code(), Some(2), "{command:?} {text}");
            assert!(text.contains(reason) && text.contains(look), "{command:?} {text}");
            assert!(!text.contains("hunter2") && !text.contains("s3cr3t"), "{text}");
        }
    }
    // One audit event is enough, and so is an empty input.
    lab.write("logs/audit.log", format!("{core}\n{}\n", event("a", "get", "registry-1")));
    assert_eq!(lab.scan(&["logs"]).status.code(), Some(0));
    assert_eq!(ids(&lab.scan(&["logs"])), ["a"]);
    lab.write("logs/audit.log", "\n");
    assert_eq!(lab.scan(&["logs"]).status.code(), Some(0));
}

#[test]
fn a_line_that_is_cut_where_a_value_is_expected_costs_no_later_event() {
    let lab = Lab::new();
    let first = event("first", "get", "registry-1");
    for end in [":", "[", ",", ":{"] {
        let cut = &first[..first.rfind(end).unwrap_or(first.len() - 2) + end.len()];
        for count in [1, 2, 40] {
            let expected: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
            let lines: Vec<String> = expected.iter().map(|id| event(id, "get", "registry-1")).collect();
            lab.write("audit.log", format!("{cut}\n{}\n", lines.join("\n")));
            for threads in ["1", "3"] {
                let found = ids(&lab.scan(&["audit.log", "--threads", threads]));
                let later: Vec<String> = found.into_iter().filter(|id| id != "first").collect();
                assert_eq!(later, expected, "{end} {count}");
            }
        }
    }
}
