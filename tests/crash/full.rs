//! No room: for the store, for a file of alerts, for dead letters.
//!
//! A limit on the size of files does for a full disk without any privilege, and can be lifted while the daemon runs. Where the test
//! may mount, a small tmpfs is filled too; it says which was run.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::common::pullwatch;
use crate::common::wait_for;
use crate::receiver::{Mood, Receiver};
use crate::rig::{Daemon, Ledger, Place, kill, stop, times};
use crate::writer::Writer;

/// The daemon with files that may have no more than so many blocks, of 512 bytes or of 1024, as the shell has it.
fn limited(place: &Place, blocks: u64) -> Command {
    let mut command = Command::new("sh");
    // Ignored signals stay so; the kernel says EFBIG then.
    command.args(["-c", "trap '' XFSZ; ulimit -S -f \"$0\"; exec \"$@\"", &blocks.to_string()]);
    command.arg(pullwatch().get_program()).args(["run", "--config"]).arg(place.path("pullwatch.yaml"));
    command.stdout(Stdio::null()).stderr(place.said_file());
    command
}

fn lift_limit(daemon: &Daemon) {
    let none = Rlimit { current: None, maximum: None };
    prlimit(Some(Pid::from_child(&daemon.0)), Resource::Fsize, none).unwrap();
}

/// Waits until the daemon says that its store is full, in every place where it does.
fn assert_says_full(place: &Place) {
    wait_for("pullwatch_store_full is 1", || place.metric("pullwatch_store_full") == Some(1.0));
    wait_for("readiness says so", || {
        place.ask("/readyz").is_some_and(|(code, body)| {
            code == 503 && body.contains("store is not accepting writes: the disk is full")
        })
    });
    assert_eq!(place.ask("/healthz").unwrap().0, 200, "to start it anew would not help");
    wait_for("it is logged", || place.said().contains("store is not accepting writes; sources are paused"));
}

fn assert_works_again(place: &Place) {
    wait_for("pullwatch_store_full is 0", || place.metric("pullwatch_store_full") == Some(0.0));
    wait_for("ready", || place.ask("/readyz").is_some_and(|(code, _)| code == 200));
    wait_for("it is logged", || place.said().contains("store is writable again"));
}

/// Fills the store, kills what waits, makes room, and sees that nothing is missing.
fn fill(place: &Place, start: impl Fn() -> Daemon, make_room: impl Fn(&Daemon)) {
    let receiver = Receiver::start(&[], 0);
    place.configure(&place.log(), &[receiver.sink("http", "")]);
    let mut writer = Writer::new(place.folder.path(), 23);
    let mut child = start();
    let mut ledger = Ledger::default();
    writer.events(20);
    ledger.wait(&place.state, 20);
    for _ in 0..20 {
        writer.events(100);
        writer.rotate_somehow();
    }
    assert_says_full(place);
    for _ in 0..times("PULLWATCH_KILLS", 15) / 5 {
        kill(child);
        writer.work(2, 30);
        child = start();
        writer.random.sleep(1200);
    }
    // Where the kill left some room it fills up again.
    writer.events(1000);
    wait_for("full again", || place.metric("pullwatch_store_full") == Some(1.0));
    ledger.look(&place.state);
    assert!(ledger.ids.len() < writer.written * 2, "it was not full");
    make_room(&child);
    ledger.wait(&place.state, writer.written);
    ledger.assert_exact(0..writer.written);
    receiver.assert_has(&ledger);
    assert_works_again(place);
    assert_eq!(stop(child), Some(0));
    eprintln!("full: {} events, {} alerts stored once", writer.written, ledger.ids.len());
}

#[test]
fn a_limit_on_files_makes_it_wait_and_nothing_is_lost() {
    let place = Place::new();
    fill(&place, || Daemon::start(&mut limited(&place, 1500)), lift_limit);
}

/// A file system of its own, as long as this is there.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(path).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Mounted(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_makes_it_wait_and_nothing_is_lost() {
    let place = Place::new();
    let Some(mounted) = Mounted::new(&place.state, "size=1500k") else {
        eprintln!("not run: this user may not mount; the test with a limit on files stands for it");
        return;
    };
    fill(
        &place,
        || place.start(),
        |_| {
            let grow =
                Command::new("mount").args(["-o", "remount,size=64m"]).arg(&mounted.0).status().unwrap();
            assert!(grow.success());
        },
    );
    drop(mounted);
}

#[test]
fn a_start_without_room_says_so() {
    let place = Place::new();
    place.configure(&place.log(), &["{type: stdout}".to_owned()]);
    let output = limited(&place, 0).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("make room"), "{said}");
    // Where not even that can be said it is an error all the same.
    let status = limited(&place, 0).stderr(File::create("/dev/full").unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let place = Place::new();
    let receiver = Receiver::start(&[], 0);
    place.configure(&place.log(), &[receiver.sink("http", "")]);
    let child = Daemon::start(place.command().stderr(File::create("/dev/full").unwrap()));
    let mut writer = Writer::new(place.folder.path(), 47);
    let mut ledger = Ledger::default();
    for _ in 0..5 {
        writer.events(10);
        writer.rotate(crate::writer::How::Rename);
    }
    ledger.wait(&place.state, writer.written);
    receiver.assert_has(&ledger);
    assert_eq!(stop(child), Some(0));
}

#[test]
fn a_full_file_and_full_dead_letters_are_tried_again_and_hold_up_nobody() {
    let place = Place::new();
    let (refusing, good) = (Receiver::start(&[Mood::RefuseSevens], 100), Receiver::start(&[], 0));
    fs::create_dir(&place.state).unwrap();
    for name in ["alerts.jsonl", "state/dead.jsonl"] {
        symlink("/dev/full", place.path(name)).unwrap();
    }
    place.configure(
        &place.log(),
        &[
            format!(
                "{{type: file, name: file, path: {}, retry: {{initial: 20ms, max: 200ms}}}}",
                place.path("alerts.jsonl").display()
            ),
            refusing.sink("refusing", ", dead_letter: {path: dead.jsonl}"),
            good.sink("good", ""),
        ],
    );
    let mut writer = Writer::new(place.folder.path(), 29);
    writer.events(70);
    let child = place.start();
    let mut ledger = Ledger::default();
    ledger.wait(&place.state, 70);
    good.assert_has(&ledger);
    for (sink, reason) in [("file", "disk_full"), ("refusing", "dead_letter")] {
        let failures = format!("pullwatch_sink_failures_total{{reason=\"{reason}\",sink=\"{sink}\"}}");
        wait_for(&failures, || place.metric(&failures).is_some_and(|count| count > 2.0));
    }
    for name in ["alerts.jsonl", "state/dead.jsonl"] {
        fs::remove_file(place.path(name)).unwrap();
    }
    let lines = |name: &str| fs::read_to_string(place.path(name)).unwrap_or_default().lines().count();
    wait_for("alerts in the file", || lines("alerts.jsonl") >= 140);
    wait_for("dead letters", || lines("state/dead.jsonl") >= 20);
    wait_for("the rest at the refusing one", || refusing.count() >= 120);
    let rejected = "pullwatch_sink_dead_letters_total{reason=\"rejected\",sink=\"refusing\"}";
    wait_for(rejected, || place.metric(rejected) == Some(20.0));
    assert_eq!(stop(child), Some(0));
    assert_eq!((lines("alerts.jsonl"), lines("state/dead.jsonl"), refusing.count()), (140, 20, 120));
}
