use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
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

/// Each is different from its beginning on, as events are.
fn line(number: usize) -> String {
    format!(r#"{{"kind":"Event","auditID":"{number:08}","rest":"{}"}}"#, "x".repeat(number % 50))
}

/// Reads all that is there, and gives the numbers of the lines.
fn drain(follow: &mut LogFollower) -> Vec<usize> {
    let mut numbers = Vec::new();
    let mut buffer = Vec::new();
    follow.rescan();
    while follow.next(&mut buffer) != Step::Idle {
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
fn what_is_appended_is_read_a_line_at_a_time() {
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
fn a_renamed_file_is_read_to_its_end_and_the_next_one_from_its_beginning() {
    let log = Log::new();
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    log.lines("audit.log", 0..3);
    assert_eq!(drain(&mut follow), numbers(0..3));
    log.lines("audit.log", 3..5);
    log.rename("audit.log", "audit-2026-11-23T04-37-59.162.log");
    log.lines("audit.log", 5..8);
    // Its writer has not noticed yet.
    log.lines("audit-2026-11-23T04-37-59.162.log", 8..9);
    assert_eq!(drain(&mut follow), [3, 4, 8, 5, 6, 7]);
    log.lines("audit-2026-11-23T04-37-59.162.log", 9..10);
    assert_eq!(drain(&mut follow), numbers(9..10));
    // Compressed it is the same.
    log.compress("audit-2026-11-23T04-37-59.162.log", "audit-2026-11-23T04-37-59.162.log.gz");
    assert!(drain(&mut follow).is_empty());
    log.lines("audit.log", 10..12);
    assert_eq!(drain(&mut follow), numbers(10..12));
    // Two rotations between two looks.
    log.lines("audit.log", 12..13);
    log.rename("audit.log", "audit-2026-11-23T04-38-00.000.log");
    log.lines("audit.log", 13..15);
    log.rename("audit.log", "audit-2026-11-23T04-38-01.000.log");
    log.lines("audit.log", 15..16);
    assert_eq!(drain(&mut follow), numbers(12..16));
}

#[test]
fn after_being_down_it_goes_on_where_it_was() {
    let log = Log::new();
    log.lines("audit-2026-11-22T00-00-00.000.log", 0..5);
    log.lines("audit.log", 5..10);
    let mut follow = log.follow(StartAt::Beginning, Vec::new());
    assert_eq!(drain(&mut follow), numbers(0..10));
    let checkpoints = follow.checkpoints();
    drop(follow);
    // Nothing happened.
    assert!(drain(&mut log.follow(StartAt::Beginning, checkpoints.clone())).is_empty());
    // It was rotated, compressed, and rotated again.
    log.lines("audit.log", 10..12);
    log.rename("audit.log", "audit-2026-11-23T01-00-00.000.log");
    log.compress("audit-2026-11-23T01-00-00.000.log", "audit-2026-11-23T01-00-00.000.log.gz");
    log.lines("audit-2026-11-23T02-00-00.000.log", 12..14);
    log.lines("audit.log", 14..15);
    let mut follow = log.follow(StartAt::End, checkpoints.clone());
    assert_eq!(drain(&mut follow), numbers(10..15));
    assert!(follow.take_incidents().is_empty());
    // Once more, from what it says now.
    let again = follow.checkpoints();
    assert!(drain(&mut log.follow(StartAt::Beginning, again)).is_empty());
    // What it knew is gone: the rest is read, and it is said.
    for name in ["audit-2026-11-22T00-00-00.000.log", "audit-2026-11-23T01-00-00.000.log.gz"] {
        fs::remove_file(log.path(name)).unwrap();
    }
    let mut follow = log.follow(StartAt::End, checkpoints);
    assert_eq!(drain(&mut follow), numbers(12..15));
    assert_eq!(follow.take_incidents(), [Incident::Gap(log.path("audit.log"))]);
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
    // It grew beyond where it was, so that only its beginning tells.
    fs::rename(log.path("audit.log.1"), log.path("audit.log.2")).unwrap();
    log.lines("audit.log", 47..48);
    fs::copy(log.path("audit.log"), log.path("audit.log.1")).unwrap();
    File::create(log.path("audit.log")).unwrap();
    log.lines("audit.log", 48..100);
    assert_eq!(drain(&mut follow), numbers(47..100));
    assert!(follow.take_incidents().is_empty());
    // Without a copy what was not read is lost, and it is said.
    log.lines("audit.log", 100..101);
    drain(&mut follow);
    File::create(log.path("audit.log")).unwrap();
    log.lines("audit.log", 101..102);
    assert_eq!(drain(&mut follow), numbers(101..102));
}

#[test]
fn a_file_truncated_and_written_anew_between_a_look_and_a_read_is_read_from_its_copy() {
    for read_before in [0, 30] {
        let log = Log::new();
        let mut follow = log.follow(StartAt::Beginning, Vec::new());
        log.lines("audit.log", 0..read_before);
        assert_eq!(drain(&mut follow), numbers(0..read_before));
        log.append("audit.log", "");
        follow.rescan();
        // All of it after the look.
        log.lines("audit.log", read_before..40);
        fs::copy(log.path("audit.log"), log.path("audit-2026-11-23T00-00-00.000.log")).unwrap();
        fs::write(log.path("audit.log"), "").unwrap();
        log.lines("audit.log", 40..100);
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        while follow.next(&mut buffer) != Step::Idle {
            let text = String::from_utf8(std::mem::take(&mut buffer)).unwrap();
            found.extend(text.lines().map(|line| line[27..35].parse::<usize>().unwrap()));
        }
        found.extend(drain(&mut follow));
        found.sort_unstable();
        assert_eq!(found, numbers(read_before..100), "{read_before}");
    }
}

#[test]
fn links_that_move_and_long_lines() {
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
    assert_eq!(follow.next(&mut buffer), Step::Records);
    buffer.clear();
    assert_eq!(follow.next(&mut buffer), Step::Head);
    assert_eq!(buffer.len(), 1000);
    log.append("audit.log", "y\n");
    log.lines("audit.log", 1..2);
    assert_eq!(drain(&mut follow), numbers(1..2));
}

#[test]
fn from_the_end_only_what_is_new() {
    let log = Log::new();
    log.lines("audit-2026-11-22T00-00-00.000.log", 0..5);
    log.lines("audit.log", 5..8);
    log.append("audit.log", &line(8)[..10]);
    let mut follow = log.follow(StartAt::End, Vec::new());
    assert!(drain(&mut follow).is_empty());
    log.append("audit.log", &format!("{}\n", &line(8)[10..]));
    assert_eq!(drain(&mut follow), numbers(8..9));
}

/// A long row of all that can happen, with a stop now and then.
#[test]
fn a_row_of_rotations_and_stops_loses_and_doubles_nothing() {
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
fn a_copy_that_is_being_made_is_not_read() {
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
            // The next run finds it so too.
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
fn a_copy_and_its_original_are_one_at_the_start() {
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
fn a_copy_made_before_the_last_was_read_is_not_read_again() {
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
fn a_file_that_is_cut_between_a_look_and_a_read_is_not_read_from_its_middle() {
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
    assert_eq!(follow.next(&mut buffer), Step::Idle);
    assert_eq!(drain(&mut follow), numbers(40..142));
    // Cut before anything of it was read, when its beginning had been seen.
    File::create(log.path("audit.log")).unwrap();
    drain(&mut follow);
    log.lines("audit.log", 142..200);
    fs::copy(log.path("audit.log"), log.path("audit.log.0")).unwrap();
    follow.rescan();
    File::create(log.path("audit.log")).unwrap();
    log.lines("audit.log", 200..300);
    let mut read = Vec::new();
    assert_eq!(follow.next(&mut buffer), Step::Idle);
    read.extend(drain(&mut follow));
    assert_eq!(read, numbers(142..300));
    // Cut while its beginning is longer than what is in it now, and than what was read.
    log.append("audit.log", "{");
    drain(&mut follow);
    assert_eq!(follow.take_incidents(), []);
}

#[test]
fn a_new_file_that_is_cut_before_it_is_read_is_found_in_its_copy() {
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
fn many_files_are_not_held_open_and_what_is_written_to_them_late_is_read() {
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
fn many_copies_do_not_make_marks_grow() {
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
fn a_compressed_file_that_is_not_whole_yet_is_read_on_when_it_is() {
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
fn the_rest_of_a_long_line_is_passed_over_by_the_next_run_too() {
    let log = Log::new();
    let mut follow = LogFollower::new(log.path("audit.log"), StartAt::Beginning, 1000, Vec::new());
    log.append("audit.log", &format!("{{{}", "y".repeat(600_000)));
    follow.rescan();
    let mut buffer = Vec::new();
    assert_eq!(follow.next(&mut buffer), Step::Head);
    let checkpoints = follow.checkpoints();
    log.append("audit.log", "y\n");
    log.lines("audit.log", 1..2);
    assert_eq!(drain(&mut log.follow(StartAt::Beginning, checkpoints)), [1]);
}
