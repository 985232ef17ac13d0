//! Alerts in files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use pullwatch::internals::daemon::sink::{File, Format, Kind};

use crate::rig::{HOSTILE, Memory, Rig, alert, alert_of, config, wait_until};

fn start(path: &Path, format: Format, memory: &Memory) -> Rig {
    Rig::start(
        config(Kind::File(File { path: path.to_owned(), format, sync: true, ..File::default() })),
        memory,
    )
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn line(seq: i64) -> String {
    String::from_utf8(alert(seq).json).unwrap()
}

#[tokio::test]
async fn a_file_that_is_moved_or_removed_is_opened_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (directory.path().join("alerts"), directory.path().join("alerts.1"));
    let rig = start(&path, Format::Falco, &Memory::with([alert(1)]));
    rig.reaches(1).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::rename(&path, &moved).unwrap();
    rig.add(alert(2));
    rig.reaches(2).await;
    assert_eq!((lines(&moved), lines(&path)), (vec![line(1)], vec![line(2)]));
    std::fs::remove_file(&path).unwrap();
    rig.add(alert(3));
    rig.reaches(3).await;
    assert_eq!(lines(&path), [line(3)]);
    // Cut in place, as `copytruncate` does.
    std::fs::write(&path, "").unwrap();
    rig.add(alert(4));
    rig.reaches(4).await;
    assert_eq!(lines(&path), [line(4)]);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn a_signal_lets_go_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    let rig = start(&path, Format::Falco, &Memory::with([alert(1)]));
    rig.reaches(1).await;
    let is_held = || {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|target| target == path)
    };
    wait_until(async || is_held()).await;
    rig.reopen.reopen();
    wait_until(async || !is_held()).await;
    rig.add(alert(2));
    rig.reaches(2).await;
    assert_eq!(lines(&path), [line(1), line(2)]);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_kill_cut_off_stays_a_line_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    std::fs::write(&path, "{\"half").unwrap();
    let rig = start(&path, Format::Falco, &Memory::with([alert(1)]));
    rig.reaches(1).await;
    assert_eq!(lines(&path), ["{\"half".to_owned(), line(1)]);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let (path, real) = (directory.path().join("alerts"), directory.path().join("real"));
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let rig = start(&path, Format::Falco, &Memory::with([alert(1), alert(2)]));
    wait_until(async || rig.count("failures_total", Some("disk_full")) > 1).await;
    assert_eq!(rig.memory.cursor(), 0);
    // Room again.
    let other = directory.path().join("other");
    std::os::unix::fs::symlink(&real, &other).unwrap();
    std::fs::rename(&other, &path).unwrap();
    rig.reaches(2).await;
    assert_eq!(lines(&real), [line(1), line(2)]);
    assert_eq!(rig.count("dead_letters_total", Some("rejected")), 0);
    rig.stop().await.unwrap();
}

#[tokio::test]
async fn text_stays_on_its_line_and_moves_no_cursor() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    let hostile = alert_of(1, "Rule\n2026 fake", alert(1).priority, HOSTILE);
    let rig = start(&path, Format::Text, &Memory::with([hostile, alert(2)]));
    rig.reaches(2).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(!text.replace('\n', "").chars().any(pullwatch::internals::text::escape::is_disruptive));
    assert!(text.ends_with("2026-11-23 03:45:32.270Z  WARNING        Secret Read: alice read b\n"), "{text}");
    rig.stop().await.unwrap();
}
