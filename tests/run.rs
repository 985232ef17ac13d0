//! The daemon on real files: restarts, rule reloads, standard input. Crashes and rotation are tested in `crash/`.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{RULE, event, pullwatch, wait_for};
use pullwatch::internals::daemon::store::{Filter, StoreReader};

/// A directory with a log, rules and a state directory.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("rules.d")).unwrap();
        fs::write(folder.path().join("rules.d/rule.yaml"), RULE).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = pullwatch();
        command
            .arg("run")
            .arg(self.path("audit.log"))
            .args(["--format", "json", "--listen", "127.0.0.1:0"])
            .arg("--state-dir")
            .arg(self.path("state"))
            .arg("--rules")
            .arg(self.path("rules.d"))
            .stderr(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn append(&self, text: &str) {
        let mut log = OpenOptions::new().create(true).append(true).open(self.path("audit.log")).unwrap();
        log.write_all(text.as_bytes()).unwrap();
    }

    fn events(&self, numbers: std::ops::Range<usize>) {
        let lines: Vec<String> =
            numbers.map(|number| format!("{}\n", event(&number.to_string(), "get", "registry"))).collect();
        self.append(&lines.concat());
    }

    /// How often each event is in the store.
    fn stored(&self) -> BTreeMap<usize, usize> {
        let Ok(reader) = StoreReader::open(&self.path("state")) else { return BTreeMap::new() };
        let mut counts = BTreeMap::new();
        for one in reader.list(&Filter::default()).unwrap_or_default() {
            let alert: serde_json::Value = serde_json::from_slice(&one.alert.json).unwrap();
            let number = alert["event"]["auditID"].as_str().unwrap().parse().unwrap();
            *counts.entry(number).or_default() += 1;
        }
        counts
    }

    /// Waits until the store holds this number of alerts.
    fn wait_for_alerts(&self, count: usize) {
        wait_for("alerts are stored", || self.stored().len() >= count);
    }
}

fn stop(mut child: Child) -> Option<i32> {
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    child.wait().unwrap().code()
}

#[test]
fn alerts_come_out_as_they_are_written_and_again_after_a_stop_only_new_ones() {
    let place = Place::new();
    place.append("");
    let lines = |child: &mut Child, count: usize| -> Vec<String> {
        let out = child.stdout.take().unwrap();
        BufReader::new(out).lines().take(count).map(Result::unwrap).collect()
    };
    let mut child = place.command().stdout(Stdio::piped()).spawn().unwrap();
    place.events(0..3);
    assert_eq!(lines(&mut child, 3).len(), 3);
    assert_eq!(stop(child), Some(0));
    place.events(3..5);
    let mut child = place.command().stdout(Stdio::piped()).spawn().unwrap();
    let new = lines(&mut child, 2);
    assert!(new[0].contains("\"auditID\":\"3\"") && new[1].contains("\"auditID\":\"4\""), "{new:?}");
    stop(child);
    assert_eq!(place.stored().len(), 5);
}

#[test]
fn a_second_one_is_refused_and_so_is_what_makes_no_sense() {
    let place = Place::new();
    place.events(0..1);
    let child = place.command().spawn().unwrap();
    place.wait_for_alerts(1);
    let second = place.command().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another pullwatch"));
    stop(child);
    let broken = pullwatch().args(["run", "--config", "/nosuch.yaml"]).output().unwrap();
    assert_eq!(broken.status.code(), Some(2));
}

#[test]
fn rules_are_read_again_and_broken_ones_leave_the_old_ones_in_use() {
    let place = Place::new();
    place.events(0..1);
    let child = place.command().stderr(fs::File::create(place.path("said")).unwrap()).spawn().unwrap();
    place.wait_for_alerts(1);
    let said = |text: &str| fs::read_to_string(place.path("said")).unwrap().contains(text);
    let write = |text: &str| fs::write(place.path("rules.d/rule.yaml"), text).unwrap();
    write("- rule: broken\n");
    wait_for("the broken ones are refused", || said("invalid rules or inventory"));
    place.events(1..2);
    place.wait_for_alerts(2);
    write(&RULE.replace("Registry Secret Access", "Another Name"));
    // Until the new rules are in use events make alerts of the old name.
    for number in 2.. {
        place.events(number..number + 1);
        place.wait_for_alerts(number + 1);
        let reader = StoreReader::open(&place.path("state")).unwrap();
        let newest = reader.list(&Filter { limit: Some(1), ..Filter::default() }).unwrap();
        if newest[0].alert.rule == "Another Name" {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    stop(child);
}

#[test]
fn standard_input_is_evaluated_to_its_end() {
    let place = Place::new();
    let mut child = pullwatch()
        .args(["run", "-", "--format", "json", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(place.path("state"))
        .arg("--rules")
        .arg(place.path("rules.d"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{}", event("0", "get", "registry")).unwrap();
    write!(input, "{}", event("1", "get", "registry")).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(place.stored().len(), 2);
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
}

#[test]
fn the_end_of_standard_input_ends_no_other_source() {
    let place = Place::new();
    let config = "sources: [{type: stdin}, {paths: [@/audit.log]}]\nsinks: []\nrules: @/rules.d\nstate_dir: @/state\nserver: false\n";
    fs::write(place.path("pullwatch.yaml"), config.replace('@', &place.folder.path().display().to_string()))
        .unwrap();
    let mut child = pullwatch()
        .arg("run")
        .arg("--config")
        .arg(place.path("pullwatch.yaml"))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{}", event("0", "get", "registry")).unwrap();
    drop(input);
    place.wait_for_alerts(1);
    place.events(1..3);
    place.wait_for_alerts(3);
    assert_eq!(stop(child), Some(0));
}

#[test]
fn a_file_of_alerts_is_opened_again_when_it_was_rotated() {
    let place = Place::new();
    let config = format!(
        "sources: [{{paths: [{0}/audit.log]}}]\nsinks: [{{type: file, path: {0}/alerts.jsonl}}]\nrules: {0}/rules.d\nstate_dir: {0}/state\nserver: false\n",
        place.folder.path().display()
    );
    fs::write(place.path("pullwatch.yaml"), config).unwrap();
    place.append("");
    let child = pullwatch()
        .arg("run")
        .arg("--config")
        .arg(place.path("pullwatch.yaml"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = |name: &str| fs::read_to_string(place.path(name)).unwrap_or_default().lines().count();
    let wait = |name: &str, count: usize| wait_for(name, || lines(name) >= count);
    // The sink begins with what comes after it was first there.
    wait_for("the store", || place.path("state/pullwatch.db").exists());
    place.events(0..2);
    wait("alerts.jsonl", 2);
    fs::rename(place.path("alerts.jsonl"), place.path("alerts.jsonl.1")).unwrap();
    place.events(2..3);
    wait("alerts.jsonl", 1);
    assert_eq!((lines("alerts.jsonl.1"), lines("alerts.jsonl")), (2, 1));
    stop(child);
}
