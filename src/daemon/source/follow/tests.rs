use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::*;

struct Log {
    folder: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        Log { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn lines(&self, name: &str, numbers: std::ops::Range<usize>) {
        let text: Vec<String> = numbers.map(|number| format!("{}\n", line(number))).collect();
        self.append(name, &text.concat());
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn compress(&self, from: &str, to: &str) {
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(self.path(to)).unwrap(), flate2::Compression::fast());
        encoder.write_all(&fs::read(self.path(from)).unwrap()).unwrap();
        encoder.finish().unwrap();
        fs::remove_file(self.path(from)).unwrap();
    }

    fn follow(&self, start_at: StartAt, checkpoints: Vec<Checkpoint>) -> LogFollower {
        LogFollower::new(self.path("audit.log"), start_at, 1 << 20, checkpoints)
    }
}

/// Lines differ near their start, like events.
fn line(number: usize) -> String {
    format!(r#"{{"kind":"Event","auditID":"{number:08}","rest":"{}"}}"#, "x".repeat(number % 50))
}

/// Reads everything and returns the numbers of the lines.
fn drain(follow: &mut LogFollower) -> Vec<usize> {
    let mut numbers = Vec::new();
    let mut buffer = Vec::new();
    follow.rescan();
    while follow.next(&mut buffer) != ReadStep::Idle {
        for line in buffer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let text = std::str::from_utf8(line).unwrap();
            numbers.push(text[27..35].parse().unwrap());
        }
        buffer.clear();
    }
    numbers
}

fn numbers(range: std::ops::Range<usize>) -> Vec<usize> {
    range.collect()
}

#[test]
fn reads_complete_lines_as_they_are_appended() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    assert!(drain(&mut follow).is_empty() && !follow.is_open());
    log.lines("audit.log", 0..3);
    assert_eq!(drain(&mut follow), numbers(0..3));
    let (start, end) = (line(3), format!("\n{}\n", line(4)));
    log.append("audit.log", &start[..20]);
    assert!(drain(&mut follow).is_empty());
    log.append("audit.log", &start[20..]);
    assert!(drain(&mut follow).is_empty());
    assert!(follow.lag() > 0);
    log.append("audit.log", &end);
    assert_eq!(drain(&mut follow), numbers(3..5));
    assert_eq!(follow.lag(), 0);
}

#[test]
fn a_renamed_file_is_read_to_its_end_and_the_new_one_from_its_start() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    log.lines("audit.log", 0..3);
    assert_eq!(drain(&mut follow), numbers(0..3));
    log.lines("audit.log", 3..5);
    log.rename("audit.log", "audit-2026-11-23T04-37-59.162.log");
    log.lines("audit.log", 5..8);
    // The writer has not reopened yet.
    log.lines("audit-2026-11-23T04-37-59.162.log", 8..9);
    assert_eq!(drain(&mut follow), [3, 4, 8, 5, 6, 7]);
    log.lines("audit-2026-11-23T04-37-59.162.log", 9..10);
    assert_eq!(drain(&mut follow), numbers(9..10));
    // A rotated file that is compressed later is not read again.
    log.compress("audit-2026-11-23T04-37-59.162.log", "audit-2026-11-23T04-37-59.162.log.gz");
    assert!(drain(&mut follow).is_empty());
    log.lines("audit.log", 10..12);
    assert_eq!(drain(&mut follow), numbers(10..12));
    // Two rotations between two scans.
    log.lines("audit.log", 12..13);
    log.rename("audit.log", "audit-2026-11-23T04-38-00.000.log");
    log.lines("audit.log", 13..15);
    log.rename("audit.log", "audit-2026-11-23T04-38-01.000.log");
    log.lines("audit.log", 15..16);
    assert_eq!(drain(&mut follow), numbers(12..16));
}

#[test]
fn resumes_after_a_restart() {
    let log = Log::new();
    log.lines("audit-2026-11-22T00-00-00.000.log", 0..5);
    log.lines("audit.log", 5..10);
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    assert_eq!(drain(&mut follow), numbers(0..10));
    let checkpoints = follow.checkpoints();
    drop(follow);
    // Nothing changed.
    assert!(drain(&mut log.follow(StartAt::Beginning, checkpoints.clone())).is_empty());
    // Rotated, compressed, and rotated again.
    log.lines("audit.log", 10..12);
    log.rename("audit.log", "audit-2026-11-23T01-00-00.000.log");
    log.compress("audit-2026-11-23T01-00-00.000.log", "audit-2026-11-23T01-00-00.000.log.gz");
    log.lines("audit-2026-11-23T02-00-00.000.log", 12..14);
    log.lines("audit.log", 14..15);
    let mut follow = log.follow(StartAt::End, checkpoints.clone());
    assert_eq!(drain(&mut follow), numbers(10..15));
    assert!(follow.take_incidents().is_empty());
    // Resumed from the new checkpoints.
    let again = follow.checkpoints();
    assert!(drain(&mut log.follow(StartAt::Beginning, again)).is_empty());
    // The known files no longer exist: the others are read, and the gap is reported.
    for name in ["audit-2026-11-22T00-00-00.000.log", "audit-2026-11-23T01-00-00.000.log.gz"] {
        fs::remove_file(log.path(name)).unwrap();
    }
    let mut follow = log.follow(StartAt::End, checkpoints);
    assert_eq!(drain(&mut follow), numbers(12..15));
    assert_eq!(follow.take_incidents(), [Incident::Gap(log.path("audit.log"))]);
}

#[test]
fn an_unread_part_of_a_file_that_was_deleted_is_reported() {
    let log = Log::new();
    let rotated = "audit-2026-11-23T01-00-00.000.log";
    log.lines(rotated, 0..5);
    log.lines("audit.log", 5..10);
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    assert_eq!(drain(&mut follow), numbers(0..10));
    let mut checkpoints = follow.checkpoints();
    // The last run was stopped in the middle of the older file.
    let older = fs::metadata(log.path(rotated)).unwrap();
    let at = checkpoints.iter().position(|one| one.inode == older.ino()).unwrap();
    checkpoints[at].is_finished = false;
    checkpoints[at].size = older.len();
    fs::remove_file(log.path(rotated)).unwrap();
    // It was read to its end.
    checkpoints[at].offset = older.len();
    let mut follow = log.follow(StartAt::Beginning, checkpoints.clone());
    assert!(drain(&mut follow).is_empty());
    assert_eq!(follow.take_incidents(), []);
    checkpoints[at].offset = older.len() - 7;
    let mut follow = log.follow(StartAt::Beginning, checkpoints);
    assert!(drain(&mut follow).is_empty());
    assert_eq!(follow.take_incidents(), [Incident::Deleted(log.path("audit.log"), 7)]);
}

#[test]
fn copytruncate_loses_nothing_that_is_in_the_copy() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    log.lines("audit.log", 0..40);
    assert_eq!(drain(&mut follow), numbers(0..40));
    log.lines("audit.log", 40..45);
    fs::copy(log.path("audit.log"), log.path("audit.log.1")).unwrap();
    File::create(log.path("audit.log")).unwrap();
    log.lines("audit.log", 45..47);
    assert_eq!(drain(&mut follow), numbers(40..47));
    assert!(drain(&mut follow).is_empty());
    // It grew beyond the old offset, so that only its prefix reveals the truncation.
    fs::rename(log.path("audit.log.1"), log.path("audit.log.2")).unwrap();
    log.lines("audit.log", 47..48);
    fs::copy(log.path("audit.log"), log.path("audit.log.1")).unwrap();
    File::create(log.path("audit.log")).unwrap();
    log.lines("audit.log", 48..100);
    assert_eq!(drain(&mut follow), numbers(47..100));
    assert!(follow.take_incidents().is_empty());
    // Without a copy, unread lines are lost and reported.
    log.lines("audit.log", 100..101);
    drain(&mut follow);
    File::create(log.path("audit.log")).unwrap();
    log.lines("audit.log", 101..102);
    assert_eq!(drain(&mut follow), numbers(101..102));
}

#[test]
fn a_writer_that_keeps_its_offset_leaves_a_hole_and_no_event_is_lost() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    log.lines("audit.log", 0..20_000);
    assert_eq!(drain(&mut follow), numbers(0..20_000));
    let size = fs::metadata(log.path("audit.log")).unwrap().len();
    fs::copy(log.path("audit.log"), log.path("audit.log.1")).unwrap();
    // The hole is longer than the maximum record, and longer than one read.
    assert!(size > 1 << 20);
    let file = OpenOptions::new().write(true).open(log.path("audit.log")).unwrap();
    file.set_len(0).unwrap();
    file.set_len(size).unwrap();
    log.lines("audit.log", 20_000..20_010);
    assert_eq!(drain(&mut follow), numbers(20_000..20_010));
    log.lines("audit.log", 20_010..20_020);
    assert_eq!(drain(&mut follow), numbers(20_010..20_020));
}

#[test]
fn a_file_rewritten_between_scan_and_read_is_read_from_its_copy() {
    for read_before in [0, 30] {
        let log = Log::new();
        let mut follow = log.follow(StartAt::Beginning, Vec::new());
        log.lines("audit.log", 0..read_before);
        assert_eq!(drain(&mut follow), numbers(0..read_before));
        log.append("audit.log", "");
        follow.rescan();
        // All of it after the scan.
        log.lines("audit.log", read_before..40);
        fs::copy(log.path("audit.log"), log.path("audit-2026-11-23T00-00-00.000.log")).unwrap();
        fs::write(log.path("audit.log"), "").unwrap();
        log.lines("audit.log", 40..100);
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        while follow.next(&mut buffer) != ReadStep::Idle {
            let text = String::from_utf8(std::mem::take(&mut buffer)).unwrap();
            found.extend(text.lines().map(|line| line[27..35].parse::<usize>().unwrap()));
        }
        found.extend(drain(&mut follow));
        found.sort_unstable();
        assert_eq!(found, numbers(read_before..100), "{read_before}");
    }
}

#[test]
fn follows_changed_links_and_truncates_long_lines() {
    let log = Log::new();
    log.lines("a", 0..2);
    log.lines("b", 2..4);
    std::os::unix::fs::symlink(log.path("a"), log.path("audit.log")).unwrap();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    assert_eq!(drain(&mut follow), numbers(0..2));
    fs::remove_file(log.path("audit.log")).unwrap();
    std::os::unix::fs::symlink(log.path("b"), log.path("audit.log")).unwrap();
    log.lines("a", 4..5);
    assert_eq!(drain(&mut follow), [4, 2, 3]);

    let log = Log::new();
    let mut follow = LogFollower::new(log.path("audit.log"), StartAt::Beginning, 1000, Vec::new());
    log.lines("audit.log", 0..1);
    log.append("audit.log", &format!("{{{}", "y".repeat(600_000)));
    follow.rescan();
    let mut buffer = Vec::new();
    assert_eq!(follow.next(&mut buffer), ReadStep::Records);
    buffer.clear();
    assert_eq!(follow.next(&mut buffer), ReadStep::Head);
    assert_eq!(buffer.len(), 1000);
    log.append("audit.log", "y\n");
    log.lines("audit.log", 1..2);
    assert_eq!(drain(&mut follow), numbers(1..2));
}

#[test]
fn start_at_end_reads_only_new_lines() {
    let log = Log::new();
    log.lines("audit-2026-11-22T00-00-00.000.log", 0..5);
    log.lines("audit.log", 5..8);
    log.append("audit.log", &line(8)[..10]);
    let mut follow = log.follow(StartAt::End, Vec::new());
    assert!(drain(&mut follow).is_empty());
    log.append("audit.log", &format!("{}\n", &line(8)[10..]));
    assert_eq!(drain(&mut follow), numbers(8..9));
}

/// A long random sequence of rotations and restarts.
#[test]
fn random_rotations_and_restarts_lose_and_duplicate_nothing() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    let (mut written, mut read) = (0, Vec::new());
    let mut state: u64 = 42;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..600 {
        let count = usize::try_from(random(30)).unwrap();
        log.lines("audit.log", written..written + count);
        written += count;
        match random(10) {
            0..=2 if Path::exists(&log.path("audit.log")) => {
                let name = format!(
                    "audit-2026-11-23T{:02}-{:02}-{:02}.000.log",
                    round / 3600,
                    round / 60 % 60,
                    round % 60
                );
                log.rename("audit.log", &name);
                if random(3) == 0 {
                    log.compress(&name, &format!("{name}.gz"));
                }
            }
            3 => {
                let checkpoints = follow.checkpoints();
                follow = log.follow(StartAt::Beginning, checkpoints);
            }
            _ => {}
        }
        if random(2) == 0 {
            read.extend(drain(&mut follow));
        }
    }
    read.extend(drain(&mut follow));
    read.sort_unstable();
    let wrong = read.iter().zip(0..).find(|(number, expected)| *number != expected);
    assert_eq!((wrong, read.len()), (None, written));
    assert_eq!(follow.take_incidents(), []);
}

#[test]
fn an_unfinished_copy_is_not_read() {
    for before in [0, 3] {
        let log = Log::new();
        let mut follow = log.follow(StartAt::Beginning, Vec::new());
        log.lines("audit.log", 0..before);
        assert_eq!(drain(&mut follow), numbers(0..before));
        log.lines("audit.log", before..100);
        let whole = fs::read(log.path("audit.log")).unwrap();
        let mut read = Vec::new();
        for length in [0, 1, 500, 2000, whole.len()] {
            fs::write(log.path("audit.log.1"), &whole[..length]).unwrap();
            read.extend(drain(&mut follow));
            // The same after a restart.
            assert!(drain(&mut log.follow(StartAt::Beginning, follow.checkpoints())).is_empty(), "{length}");
        }
        assert_eq!(read, numbers(before..100));
        File::create(log.path("audit.log")).unwrap();
        log.lines("audit.log", 100..101);
        assert_eq!(drain(&mut follow), numbers(100..101));
        assert!(follow.take_incidents().is_empty());
    }
}

#[test]
fn a_copy_and_its_original_are_read_once() {
    let log = Log::new();
    log.lines("audit-2026-11-23T00-00-00.000.log", 0..50);
    let text = fs::read(log.path("audit-2026-11-23T00-00-00.000.log")).unwrap();
    log.compress("audit-2026-11-23T00-00-00.000.log", "audit-2026-11-23T00-00-00.000.log.gz");
    fs::write(log.path("audit-2026-11-23T00-00-00.000.log"), text).unwrap();
    log.lines("audit.log", 50..90);
    fs::copy(log.path("audit.log"), log.path("audit-2026-11-23T00-00-01.000.log")).unwrap();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    assert_eq!(drain(&mut follow), numbers(0..90));
    let checkpoints = follow.checkpoints();
    log.lines("audit.log", 90..92);
    assert_eq!(drain(&mut log.follow(StartAt::Beginning, checkpoints)), numbers(90..92));
    assert_eq!(follow.take_incidents(), []);
}

#[test]
fn a_copy_made_before_the_last_line_is_not_read_again() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    log.lines("audit.log", 0..40);
    fs::copy(log.path("audit.log"), log.path("audit.log.1")).unwrap();
    log.lines("audit.log", 40..45);
    assert_eq!(drain(&mut follow), numbers(0..45));
    File::create(log.path("audit.log")).unwrap();
    log.lines("audit.log", 45..46);
    assert_eq!(drain(&mut follow), numbers(45..46));
    assert!(drain(&mut follow).is_empty());
    assert!(drain(&mut log.follow(StartAt::Beginning, follow.checkpoints())).is_empty());
}

#[test]
fn a_file_truncated_between_scan_and_read_is_not_read_from_its_middle() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    log.lines("audit.log", 0..40);
    assert_eq!(drain(&mut follow), numbers(0..40));
    log.lines("audit.log", 40..42);
    follow.rescan();
    fs::copy(log.path("audit.log"), log.path("audit.log.1")).unwrap();
    File::create(log.path("audit.log")).unwrap();
    log.lines("audit.log", 42..142);
    let mut buffer = Vec::new();
    assert_eq!(follow.next(&mut buffer), ReadStep::Idle);
    assert_eq!(drain(&mut follow), numbers(40..142));
    // Truncated after its fingerprint was taken and before anything was read.
    File::create(log.path("audit.log")).unwrap();
    drain(&mut follow);
    log.lines("audit.log", 142..200);
    fs::copy(log.path("audit.log"), log.path("audit.log.0")).unwrap();
    follow.rescan();
    File::create(log.path("audit.log")).unwrap();
    log.lines("audit.log", 200..300);
    let mut read = Vec::new();
    assert_eq!(follow.next(&mut buffer), ReadStep::Idle);
    read.extend(drain(&mut follow));
    assert_eq!(read, numbers(142..300));
    // Truncated to less than its fingerprint.
    log.append("audit.log", "{");
    drain(&mut follow);
    assert_eq!(follow.take_incidents(), []);
}

#[test]
fn a_new_file_truncated_before_it_is_read_is_read_from_its_copy() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    log.lines("audit.log", 0..5);
    assert_eq!(drain(&mut follow), numbers(0..5));
    log.rename("audit.log", "audit-2026-11-23T00-00-00.000.log");
    log.lines("audit.log", 5..60);
    fs::copy(log.path("audit.log"), log.path("audit-2026-11-23T00-00-01.000.log")).unwrap();
    follow.rescan();
    File::create(log.path("audit.log")).unwrap();
    log.lines("audit.log", 60..200);
    let mut read = drain(&mut follow);
    read.extend(drain(&mut follow));
    assert_eq!(read, numbers(5..200));
    assert_eq!(follow.take_incidents(), []);
}

#[test]
fn open_files_are_limited_and_late_writes_are_read() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    let name = |round: usize| format!("audit-2026-11-23T00-{:02}-{:02}.000.log", round / 60, round % 60);
    for round in 0..200 {
        log.lines("audit.log", round..round + 1);
        assert_eq!(drain(&mut follow), [round]);
        log.rename("audit.log", &name(round));
    }
    log.lines("audit.log", 200..201);
    assert_eq!(drain(&mut follow), [200]);
    drain(&mut follow);
    assert!(follow.tracked.len() <= MAX_OPEN_FILES, "{}", follow.tracked.len());
    log.lines(&name(3), 201..202);
    assert_eq!(drain(&mut follow), [201]);
    assert!(drain(&mut follow).is_empty());
    log.lines(&name(4), 202..203);
    assert_eq!(drain(&mut log.follow(StartAt::Beginning, follow.checkpoints())), [202]);
}

#[test]
fn many_copies_do_not_grow_the_checkpoints() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    for round in 0..250 {
        log.lines("audit.log", round * 10..round * 10 + 10);
        fs::copy(log.path("audit.log"), log.path(&format!("audit.log.{}", 250 - round))).unwrap();
        File::create(log.path("audit.log")).unwrap();
        assert_eq!(drain(&mut follow), numbers(round * 10..round * 10 + 10));
    }
    drain(&mut follow);
    assert!(follow.checkpoints().len() <= 2 * MAX_OPEN_FILES, "{}", follow.checkpoints().len());
}

#[test]
fn an_incomplete_compressed_file_is_read_when_it_is_complete() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    log.lines("audit.log", 0..1);
    assert_eq!(drain(&mut follow), [0]);
    let name = "audit-2026-11-23T00-00-00.000.log";
    log.lines(name, 1..20_000);
    log.compress(name, "packed");
    let packed = fs::read(log.path("packed")).unwrap();
    let mut read = Vec::new();
    for length in [0, 5, 100, packed.len() / 2, packed.len()] {
        fs::write(log.path(&format!("{name}.gz")), &packed[..length]).unwrap();
        read.extend(drain(&mut follow));
    }
    assert_eq!(read, numbers(1..20_000));
}

#[test]
fn the_rest_of_a_long_line_is_skipped_after_a_restart() {
    let log = Log::new();
    let mut follow = LogFollower::new(log.path("audit.log"), StartAt::Beginning, 1000, Vec::new());
    log.append("audit.log", &format!("{{{}", "y".repeat(600_000)));
    follow.rescan();
    let mut buffer = Vec::new();
    assert_eq!(follow.next(&mut buffer), ReadStep::Head);
    let checkpoints = follow.checkpoints();
    log.append("audit.log", "y\n");
    log.lines("audit.log", 1..2);
    assert_eq!(drain(&mut log.follow(StartAt::Beginning, checkpoints)), [1]);
}

/// A line in the format of the Container Runtime Interface.
fn cri(tag: &str, text: &str) -> String {
    format!("2026-11-23T04:00:00.000000000Z stdout {tag} {text}\n")
}

/// Reads everything and returns its text.
fn text(follow: &mut LogFollower) -> String {
    follow.rescan();
    let (mut all, mut buffer) = (Vec::new(), Vec::new());
    while follow.next(&mut buffer) != ReadStep::Idle {
        all.append(&mut buffer);
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn a_split_line_is_read_as_a_whole_however_it_is_written() {
    let log = Log::new();
    let (first, last) =
        (cri("P", r#"{"kind":"Event","requestObject":[{"value":"#), cri("F", r#"{"kind":"Event"}}]}"#));
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    log.append("audit.log", &cri("F", "{}"));
    log.append("audit.log", &first);
    assert_eq!(text(&mut follow), cri("F", "{}"));
    // A restart in between reads it from its start.
    let mut follow = log.follow(StartAt::Beginning, follow.checkpoints());
    assert_eq!(text(&mut follow), "");
    assert!(follow.lag() > 0);
    log.append("audit.log", &last);
    assert_eq!(text(&mut follow), [&first[..], &last].concat());
    assert!(text(&mut log.follow(StartAt::Beginning, follow.checkpoints())).is_empty());
    // Rotated between the pieces, with a restart.
    log.append("audit.log", &first);
    assert_eq!(text(&mut follow), "");
    log.rename("audit.log", "audit.log.20261123-040000");
    log.append("audit.log", &last);
    let checkpoints = follow.checkpoints();
    assert_eq!(text(&mut follow), [&first[..], &last].concat());
    drop(checkpoints);
    assert_eq!(follow.take_incidents(), []);
}

#[test]
fn a_split_line_that_is_too_long_is_truncated_and_its_rest_is_no_record() {
    let log = Log::new();
    let mut follow = LogFollower::new(log.path("audit.log"), StartAt::Beginning, 1000, Vec::new());
    let first = cri("P", &format!("{{\"a\":[\"{}", "x".repeat(900)));
    let middle = cri("P", &format!("{}\",", "x".repeat(100)));
    let forged = cri("F", r#"{"kind":"Event"}]}"#);
    log.append("audit.log", &first);
    assert_eq!(text(&mut follow), "");
    log.append("audit.log", &middle);
    assert_eq!(text(&mut follow), [&first[..], &middle].concat());
    log.append("audit.log", &forged);
    log.append("audit.log", &cri("F", "{}"));
    assert_eq!(text(&mut follow), cri("F", "{}"));
    assert_eq!(follow.take_incidents(), [Incident::Incomplete(log.path("audit.log"), forged.len() as u64)]);
}

#[test]
fn the_rest_of_a_line_that_was_given_up_is_no_record_after_a_restart_either() {
    let log = Log::new();
    let piece = |tag: &str, text: &str| format!("2026-11-23T04:00:00Z stdout {tag} {text}\n");
    let follow = |checkpoints| LogFollower::new(log.path("audit.log"), StartAt::Beginning, 1024, checkpoints);
    let read = |follow: &mut LogFollower| {
        let (mut text, mut buffer) = (String::new(), Vec::new());
        follow.rescan();
        while follow.next(&mut buffer) != ReadStep::Idle {
            text.push_str(std::str::from_utf8(&buffer).unwrap());
            buffer.clear();
        }
        text
    };
    // Both end where an object may follow, as in a list that a client sent.
    let element = format!("\"{}\",", "x".repeat(900));
    let long = piece("P", &format!("{{\"a\":[{element}")) + &piece("P", &element);
    log.append("audit.log", &piece("F", "{}"));
    log.append("audit.log", &long);
    let mut first = follow(Vec::new());
    assert!(read(&mut first).ends_with(&long), "it is longer than the limit");
    let checkpoints = first.checkpoints();
    let forged = piece("F", "{\"kind\":\"Event\"}]}");
    log.append("audit.log", &(forged.clone() + &piece("F", "{\"b\":1}")));
    assert_eq!(read(&mut follow(checkpoints)), piece("F", "{\"b\":1}"));
}
