//! The store under kills, damage, full disks and hostile texts.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pullwatch::internals::daemon::store::{
    Ack, Batch, Committed, Cursor, Error, Filter, IdMatch, IdPrefix, Opened, Options, Retention, SinkStart,
    StateChange, Store, StoreReader, acknowledge,
};
use pullwatch::internals::detection::alert::Priority;
use pullwatch::internals::detection::alert::{AlertId, NewAlert};
use tempfile::TempDir;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(dir: &Path) -> Store {
    let deadline = Instant::now() + Duration::from_secs(600);
    let Opened { store, set_aside, migrated_from, .. } = loop {
        match Store::open(dir, &Options::default()) {
            // A process that another test starts has our lock from its fork to its exec.
            Err(Error::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => break opened.unwrap(),
        }
    };
    assert_eq!((set_aside, migrated_from), (None, None));
    store
}

fn id(number: u64) -> AlertId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    id
}

fn alert(number: u64) -> NewAlert {
    NewAlert {
        id: id(number),
        time: i64::try_from(number).unwrap() * SECOND,
        rule: format!("Rule {}", number % 3),
        priority: Priority::ALL[usize::try_from(number % 8).unwrap()],
        actor: format!("user-{number}"),
        target: "secrets prod/registry".to_owned(),
        json: format!(r#"{{"n":{number}}}"#).into_bytes(),
        message: "m".repeat(200),
    }
}

fn alerts(numbers: std::ops::Range<u64>) -> Vec<NewAlert> {
    numbers.map(alert).collect()
}

fn commit(store: &mut Store, numbers: std::ops::Range<u64>, now: i64) -> Committed {
    let alerts = alerts(numbers);
    store.commit(&Batch { alerts: &alerts, now, ..Batch::default() }).unwrap()
}

fn raw(dir: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.join("pullwatch.db")).unwrap()
}

#[test]
fn a_batch_is_stored_and_read_back() {
    let dir = dir();
    let mut store = open(dir.path());
    let change = |key: &[u8], value: Option<&[u8]>| StateChange {
        kind: "secret",
        key: key.to_vec(),
        value: value.map(<[u8]>::to_vec),
    };
    let first = alerts(0..3);
    let batch = Batch {
        source: Some(("file", b"at 1")),
        alerts: &first,
        changes: &[change(b"a", Some(b"1")), change(b"b", Some(b"2")), change(b"a", Some(b"3"))],
        seen: &[[7; 16], [7; 16]],
        now: 5,
    };
    assert_eq!(store.commit(&batch).unwrap(), Committed { is_new: vec![true; 3], ..Committed::default() });
    let second = alerts(2..5);
    let batch = Batch {
        source: Some(("file", b"at 2")),
        alerts: &second,
        changes: &[change(b"b", None), change(b"never", None)],
        ..batch
    };
    assert_eq!(
        store.commit(&batch).unwrap(),
        Committed { is_new: vec![false, true, true], ..Committed::default() }
    );
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.position("file").unwrap().unwrap(), b"at 2");
    assert_eq!(store.position("other").unwrap(), None);
    assert_eq!(store.positions().unwrap(), [("file".to_owned(), b"at 2".to_vec())]);
    assert_eq!(store.state("secret").unwrap(), [(b"a".to_vec(), b"3".to_vec())]);
    assert!(store.state("pod").unwrap().is_empty());
    assert!(store.was_seen(&[7; 16]).unwrap() && !store.was_seen(&[8; 16]).unwrap());
    let kept = StoreReader::open(dir.path()).unwrap().after(0, 10).unwrap();
    assert_eq!(kept.iter().map(|alert| alert.id).collect::<Vec<_>>(), (0..5).map(id).collect::<Vec<_>>());
    assert!(kept.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    assert_eq!((kept[0].stored, kept[4].priority), (5, Priority::Warning));
}

#[test]
fn only_one_process_can_open_a_store_for_writing() {
    let dir = dir();
    let store = open(dir.path());
    let error = Store::open(dir.path(), &Options::default()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }));
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    drop(store);
    open(dir.path());
}

#[test]
#[cfg(unix)]
fn files_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = dir();
    let state = dir.path().join("a/b");
    let mut store = open(&state);
    commit(&mut store, 0..1, 0);
    let mode = |path: &str| fs::metadata(state.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("."), 0o700);
    for file in ["pullwatch.db", "pullwatch.db-wal", "pullwatch.db-shm", "pullwatch.lock"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[test]
fn errors_name_the_unusable_path() {
    let dir = dir();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("below"), &Options::default()).unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }) && error.to_string().contains("--state-dir"), "{error}");
    let error = Store::open(&file, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
    let error = StoreReader::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }) && error.to_string().contains("pullwatch run"), "{error}");
    assert!(Cursor::open(dir.path(), "sink", SinkStart::Oldest).is_err());
    assert!(!dir.path().join("pullwatch.db").exists(), "looking makes nothing");
}

#[test]
#[cfg(unix)]
fn a_read_only_file_is_an_error_at_the_start() {
    use std::os::unix::fs::PermissionsExt as _;
    if rustix::process::geteuid().is_root() {
        // Root may write anything.
        return;
    }
    let dir = dir();
    drop(open(dir.path()));
    fs::set_permissions(dir.path().join("pullwatch.db"), fs::Permissions::from_mode(0o400)).unwrap();
    let error = Store::open(dir.path(), &Options::default()).unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    assert!(Cursor::open(dir.path(), "sink", SinkStart::Oldest).is_err());
}

/// Not a test: the process that is killed. It commits batches whose position, state and hashes count the alerts.
#[test]
#[ignore = "run by another test"]
fn child_that_commits() {
    let Some(dir) = std::env::var_os("STORE_TO_FILL") else { return };
    let mut store = Store::open(Path::new(&dir), &Options::default()).unwrap().store;
    let mut count = counted(&store);
    let mut size = 1;
    loop {
        size = size * 7 % 101;
        let batch = alerts(count..count + size);
        count += size;
        let seen: Vec<AlertId> = batch.iter().map(|alert| alert.id).collect();
        let changes: Vec<StateChange> = batch
            .iter()
            .map(|alert| StateChange { kind: "count", key: alert.id.to_vec(), value: Some(vec![1; 20]) })
            .collect();
        let position = count.to_be_bytes();
        let now = i64::try_from(count).unwrap();
        store
            .commit(&Batch {
                source: Some(("counter", &position)),
                alerts: &batch,
                changes: &changes,
                seen: &seen,
                now,
            })
            .unwrap();
    }
}

fn counted(store: &Store) -> u64 {
    store
        .position("counter")
        .unwrap()
        .map_or(0, |position| u64::from_be_bytes(position.as_slice().try_into().unwrap()))
}

#[test]
fn a_kill_leaves_all_of_a_batch_or_nothing() {
    let dir = dir();
    let mut last = 0;
    let mut grew = 0;
    for round in 0_u64..50 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_commits", "--ignored"])
            .env("STORE_TO_FILL", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Some are killed while they start and recover, most in the middle of a batch, however long the start takes here.
        let deadline = Instant::now() + Duration::from_secs(600);
        let has_written = || {
            StoreReader::open(dir.path())
                .and_then(|reader| reader.stats())
                .is_ok_and(|stats| stats.alerts > last)
        };
        while !round.is_multiple_of(5) && !has_written() {
            assert!(Instant::now() < deadline, "the child writes nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(round * 7_919 % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();

        let mut store = open(dir.path());
        let count = counted(&store);
        assert!(count >= last, "round {round}: {count} after {last}");
        grew += u32::from(count > last);
        last = count;
        let stats = StoreReader::open(dir.path()).unwrap().stats().unwrap();
        assert_eq!(stats.alerts, count, "round {round}");
        assert_eq!(store.state("count").unwrap().len() as u64, count, "round {round}");
        assert!(count == 0 || store.was_seen(&id(count - 1)).unwrap());
        assert!(!store.was_seen(&id(count)).unwrap());
        // What is kept can be added to.
        assert_eq!(store.commit(&Batch::default()).unwrap(), Committed::default());
    }
    assert!(grew >= 40, "the child was hardly ever killed while it wrote: {grew}");
    let verdict: String = raw(dir.path()).query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

#[test]
fn a_damaged_file_is_moved_aside() {
    // A file that is no database, one whose pages are overwritten, one that is cut off.
    let damages: [fn(&mut Vec<u8>); 3] =
        [|file| file[..100].fill(b'x'), |file| file[4096..].fill(0x5a), |file| file.truncate(4096 * 3)];
    for (number, damage) in damages.into_iter().enumerate() {
        let dir = dir();
        commit(&mut open(dir.path()), 0..500, 0);
        let path = dir.path().join("pullwatch.db");
        let mut file = fs::read(&path).unwrap();
        damage(&mut file);
        fs::write(&path, &file).unwrap();

        let Opened { mut store, set_aside, .. } = Store::open(dir.path(), &Options::default()).unwrap();
        let aside = set_aside.unwrap_or_else(|| panic!("damage {number} was not seen"));
        assert!(aside.file_name().unwrap().to_str().unwrap().starts_with("pullwatch.db.corrupt-20"));
        assert_eq!(fs::read(&aside).unwrap(), file, "damage {number}: the evidence is as it was");
        assert_eq!(commit(&mut store, 0..1, 0).new_alerts(), 1);
        drop(store);
        commit(&mut open(dir.path()), 1..2, 0);
    }
}

#[test]
fn the_log_of_a_damaged_file_is_moved_aside_with_it() {
    let dir = dir();
    commit(&mut open(dir.path()), 0..500, 0);
    let mut store = open(dir.path());
    commit(&mut store, 500..501, 0);
    // As a kill leaves it: with a log, which does not hold every page.
    let [mut file, log] =
        ["pullwatch.db", "pullwatch.db-wal"].map(|name| fs::read(dir.path().join(name)).unwrap());
    drop(store);
    let damaged = self::dir();
    file[4096..].fill(b'x');
    fs::write(damaged.path().join("pullwatch.db"), &file).unwrap();
    fs::write(damaged.path().join("pullwatch.db-wal"), &log).unwrap();
    let aside = Store::open(damaged.path(), &Options::default()).unwrap().set_aside.unwrap();
    let mut name = aside.into_os_string();
    assert!(fs::read(&name).unwrap() == file);
    name.push("-wal");
    assert!(fs::read(&name).unwrap() == log);
}

#[test]
fn versions_are_recognized() {
    // An empty database, as a start that was killed leaves one, or a person made it.
    let dir = dir();
    raw(dir.path()).execute_batch("PRAGMA user_version = 0; VACUUM").unwrap();
    let mut store = open(dir.path());
    commit(&mut store, 0..1, 0);
    drop(store);
    let vacuum: i64 = raw(dir.path()).query_row("PRAGMA auto_vacuum", (), |row| row.get(0)).unwrap();
    assert_eq!(vacuum, 2, "what is removed can be given back");

    // One of ours from before there was a version 1.
    let old = self::dir();
    raw(old.path()).execute_batch("PRAGMA application_id = 0x706c7774; CREATE TABLE left (x)").unwrap();
    assert!(matches!(StoreReader::open(old.path()), Err(Error::Older { found: 0, .. })));
    let opened = Store::open(old.path(), &Options::default()).unwrap();
    assert_eq!((opened.migrated_from, &opened.set_aside), (Some(0), &None));
    drop(opened);
    open(old.path());

    // A newer one, and one of another program, are left alone.
    raw(dir.path()).execute_batch("PRAGMA user_version = 99").unwrap();
    for error in [
        Store::open(dir.path(), &Options::default()).unwrap_err(),
        StoreReader::open(dir.path()).unwrap_err(),
        Cursor::open(dir.path(), "sink", SinkStart::Oldest).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
    }
    let foreign = self::dir();
    raw(foreign.path()).execute_batch("CREATE TABLE alerts (x)").unwrap();
    assert!(matches!(Store::open(foreign.path(), &Options::default()), Err(Error::Foreign { .. })));
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 2, "the database and our lock");
}

#[test]
fn a_full_disk_loses_nothing() {
    let dir = dir();
    let options = Options { max_pages: Some(200), ..Options::default() };
    let mut store = Store::open(dir.path(), &options).unwrap().store;
    let mut count = 0;
    let error = loop {
        let batch = alerts(count..count + 50);
        let position = (count + 50).to_be_bytes();
        let batch = Batch { source: Some(("counter", &position)), alerts: &batch, ..Batch::default() };
        match store.commit(&batch) {
            Ok(_) => count += 50,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full { .. }) && error.is_transient(), "{error}");
    assert!(count > 500);
    assert_eq!(counted(&store), count);
    assert_eq!(StoreReader::open(dir.path()).unwrap().stats().unwrap().alerts, count);
    // Again, and still nothing of it.
    let batch = alerts(count..count + 50);
    let batch = Batch { alerts: &batch, ..Batch::default() };
    assert!(matches!(store.commit(&batch), Err(Error::Full { .. })));
    // With room, the same batch goes in.
    let half = Retention { max_bytes: Some(400_000), ..Retention::default() };
    while store.retain(&half, 0).unwrap().has_more {}
    assert_eq!(store.commit(&batch).unwrap(), Committed { is_new: vec![true; 50], ..Committed::default() });
}

#[test]
fn a_lock_timeout_is_transient() {
    let dir = dir();
    let options = Options { busy: Duration::from_millis(20), ..Options::default() };
    let mut store = Store::open(dir.path(), &options).unwrap().store;
    let other = raw(dir.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let batch = alerts(0..5);
    let batch = Batch { alerts: &batch, ..Batch::default() };
    let error = store.commit(&batch).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }) && error.is_transient(), "{error}");
    // Looking needs no lock.
    assert_eq!(StoreReader::open(dir.path()).unwrap().stats().unwrap().alerts, 0);
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(store.commit(&batch).unwrap(), Committed { is_new: vec![true; 5], ..Committed::default() });
}

#[test]
fn retention_deletes_the_oldest_alerts_first() {
    let dir = dir();
    let mut store = open(dir.path());
    for day in 0..20 {
        commit(&mut store, day * 100..day * 100 + 100, i64::try_from(day).unwrap() * DAY);
    }
    let siem = Cursor::open(dir.path(), "siem", SinkStart::Oldest).unwrap();
    siem.save(600).unwrap();
    Cursor::open(dir.path(), "stdout", SinkStart::Newest).unwrap();
    acknowledge(dir.path(), &[id(3), id(1500)], &Ack { at: 1, by: "ada".into(), note: String::new() })
        .unwrap();
    let retain = |store: &mut Store, retention: &Retention| {
        let (mut deleted, mut undelivered, mut steps) = (0, Vec::new(), 0);
        loop {
            let step = store.retain(retention, 20 * DAY).unwrap();
            deleted += step.deleted;
            undelivered.extend(step.undelivered);
            steps += 1;
            if !step.has_more {
                return (deleted, undelivered, steps);
            }
        }
    };
    // By age: days 0 to 9 are more than ten days ago, and all sinks have delivered 600 of their alerts.
    let ten_days = Retention {
        max_age: Some(Duration::from_secs(10 * 86_400)),
        max_bytes: None,
        ..Retention::default()
    };
    let (deleted, undelivered, steps) = retain(&mut store, &ten_days);
    assert_eq!((deleted, undelivered), (600, vec![]));
    assert!(steps > 1, "in small steps");
    let reader = StoreReader::open(dir.path()).unwrap();
    let stats = reader.stats().unwrap();
    assert_eq!((stats.alerts, stats.unacknowledged, stats.oldest), (1400, 1399, Some(6 * DAY)));
    assert_eq!(stats.sinks[0].backlog, 1400);
    assert_eq!(retain(&mut store, &ten_days), (0, vec![], 1));
    siem.save(1000).unwrap();
    assert_eq!(retain(&mut store, &ten_days).0, 400, "delivered in the meantime");

    // By size: the file shrinks too, and what a sink had not delivered is counted for it.
    let size = |dir: &TempDir| {
        raw(dir.path()).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        fs::metadata(dir.path().join("pullwatch.db")).unwrap().len()
    };
    commit(&mut store, 10_000..20_000, 20 * DAY);
    let before = size(&dir);
    let small = Retention { max_age: None, max_bytes: Some(1 << 20), ..Retention::default() };
    let (deleted, undelivered, _) = retain(&mut store, &small);
    assert!(deleted > 5_000, "{deleted}");
    let lost = |sink: &str| -> u64 {
        undelivered.iter().filter(|(name, _)| name == sink).map(|(_, alerts)| alerts).sum()
    };
    assert_eq!((lost("siem"), lost("stdout")), (deleted, deleted - 1000));
    let after = size(&dir);
    assert!(after < before / 2 && after < (1 << 20) + 260 * 4096, "{before} {after}");
    // The latest stay, and sequence numbers are never reused.
    let kept = reader.after(0, 100_000).unwrap();
    assert_eq!(kept.last().unwrap().id, id(19_999));
    siem.save(i64::MAX).unwrap();
    store.keep_sinks(&["siem"]).unwrap();
    let none = Retention { max_age: Some(Duration::ZERO), max_bytes: Some(0), ..Retention::default() };
    while store.retain(&none, 30 * DAY).unwrap().has_more {}
    assert_eq!(reader.stats().unwrap().alerts, 0);
    commit(&mut store, 0..1, 0);
    assert!(reader.after(0, 1).unwrap()[0].seq > kept.last().unwrap().seq);
    // Whatever the maximum size, the latest hundred stay until they are too old.
    commit(&mut store, 0..500, 30 * DAY);
    let tiny = Retention { max_bytes: Some(0), max_age: None, ..Retention::default() };
    while store.retain(&tiny, 30 * DAY).unwrap().has_more {}
    assert_eq!(reader.stats().unwrap().alerts, 100);
}

#[test]
fn the_maximum_size_holds_after_every_commit() {
    let dir = dir();
    let max_bytes = 8 << 20;
    let options = Options { max_bytes: Some(max_bytes), ..Options::default() };
    let mut store = Store::open(dir.path(), &options).unwrap().store;
    // A sink that delivers nothing, and a reader, as sinks have them.
    let _cursor = Cursor::open(dir.path(), "siem", SinkStart::Oldest).unwrap();
    let reader = StoreReader::open(dir.path()).unwrap();
    let (mut largest, mut undelivered) = (0, 0);
    for batch in 0..60 {
        // Half a megabyte each, with state and digests.
        let alerts: Vec<NewAlert> = (batch * 250..batch * 250 + 250)
            .map(|number| NewAlert { json: vec![b'j'; 2000], ..alert(number) })
            .collect();
        let seen: Vec<AlertId> = alerts.iter().map(|alert| alert.id).collect();
        let changes: Vec<StateChange> = (0..50_u8)
            .map(|key| StateChange { kind: "x", key: vec![key], value: Some(vec![7; 500]) })
            .collect();
        let batch = Batch { alerts: &alerts, changes: &changes, seen: &seen, ..Batch::default() };
        let committed = store.commit(&batch).unwrap();
        assert_eq!(committed.new_alerts(), 250);
        undelivered += committed.undelivered.iter().map(|(_, alerts)| alerts).sum::<u64>();
        largest = largest.max(store.size().unwrap().bytes);
        assert_eq!(reader.after(store.latest_seq().unwrap() - 1, 10).unwrap().len(), 1);
    }
    assert!(largest <= max_bytes + max_bytes / 50, "{largest} of {max_bytes}");
    assert!(largest > max_bytes / 2, "{largest}: the limit was not reached");
    let kept = reader.stats().unwrap().alerts;
    assert_eq!(kept + undelivered, 60 * 250);
    assert!(kept > 1000, "{kept}");
}

#[test]
fn a_store_that_is_removed_or_replaced_is_noticed() {
    let dir = dir();
    let state = dir.path().join("state");
    let store = open(&state);
    store.check_path().unwrap();
    fs::rename(&state, dir.path().join("moved")).unwrap();
    assert!(matches!(store.check_path(), Err(Error::Removed { .. })));
    // Another store at the same path is not this one.
    drop(open(&state));
    assert!(matches!(store.check_path(), Err(Error::Removed { .. })));
    fs::remove_dir_all(&state).unwrap();
    fs::rename(dir.path().join("moved"), &state).unwrap();
    store.check_path().unwrap();
}

#[test]
fn an_empty_file_and_a_world_writable_directory_are_reported() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = dir();
    let report = |state: &Path| {
        let opened = Store::open(state, &Options::default()).unwrap();
        (opened.was_empty, opened.world_writable)
    };
    let state = dir.path().join("state");
    assert_eq!(report(&state), (false, None), "a new store is not empty");
    assert_eq!(report(&state), (false, None));
    fs::write(state.join("pullwatch.db"), "").unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(report(&state), (true, Some(0o777)));
    // With the sticky bit nobody else can replace the file.
    fs::set_permissions(&state, fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(report(&state), (false, None));
}

#[test]
fn event_digests_are_deleted_by_age_and_number() {
    let dir = dir();
    let mut store = open(dir.path());
    let hashes: Vec<AlertId> = (0..10_000).map(id).collect();
    for (i, hashes) in hashes.chunks(1000).enumerate() {
        let now = i64::try_from(i).unwrap() * SECOND;
        store.commit(&Batch { seen: hashes, now, ..Batch::default() }).unwrap();
    }
    let few = Retention { max_seen: 5_000, ..Retention::default() };
    while store.retain(&few, 10 * SECOND).unwrap().has_more {}
    let seen = |store: &Store| hashes.iter().filter(|hash| store.was_seen(hash).unwrap()).count();
    assert_eq!(seen(&store), 5_000);
    assert!(store.was_seen(&id(9_999)).unwrap());
    let young = Retention { seen_age: Duration::from_secs(2), ..Retention::default() };
    while store.retain(&young, 10 * SECOND).unwrap().has_more {}
    assert_eq!(seen(&store), 2_000);
}

#[test]
fn sinks_and_readers_work_while_the_daemon_writes() {
    let dir = dir();
    let mut store = open(dir.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sinks = ["a", "b"].map(|name| {
            let (path, done) = (dir.path(), &done);
            scope.spawn(move || {
                let reader = StoreReader::open(path).unwrap();
                let cursor = Cursor::open(path, name, SinkStart::Oldest).unwrap();
                let mut seen = Vec::new();
                loop {
                    // Asked first: what was there when it ended is read below.
                    let last = done.load(Ordering::Acquire);
                    let next = reader.after(cursor.load().unwrap(), 64).unwrap();
                    match next.last() {
                        Some(alert) => cursor.save(alert.seq).unwrap(),
                        None if last => return seen,
                        None => std::thread::yield_now(),
                    }
                    seen.extend(next.into_iter().map(|alert| alert.id));
                    assert_eq!(reader.stats().unwrap().alerts % 20, 0, "a batch is seen whole");
                }
            })
        });
        for batch in 0..100 {
            commit(&mut store, batch * 20..batch * 20 + 20, 0);
        }
        done.store(true, Ordering::Release);
        let all: Vec<AlertId> = (0..2000).map(id).collect();
        for sink in sinks {
            assert!(sink.join().unwrap() == all, "each alert once, in order");
        }
    });
    let stats = StoreReader::open(dir.path()).unwrap().stats().unwrap();
    assert!(stats.bytes > 0 && stats.sinks.iter().all(|sink| sink.backlog == 0));
    assert_eq!(store.keep_sinks(&["b"]).unwrap(), 1);
    assert_eq!(StoreReader::open(dir.path()).unwrap().stats().unwrap().sinks.len(), 1);
}

#[test]
fn sinks_start_as_configured_and_resume_at_their_cursor() {
    let dir = dir();
    let mut store = open(dir.path());
    commit(&mut store, 0..10, 0);
    let load = |name, start| Cursor::open(dir.path(), name, start).unwrap().load().unwrap();
    assert_eq!((load("new", SinkStart::Newest), load("all", SinkStart::Oldest)), (10, 0));
    commit(&mut store, 10..15, 0);
    assert_eq!((load("new", SinkStart::Newest), load("all", SinkStart::Newest)), (10, 0));
    Cursor::open(dir.path(), "all", SinkStart::Oldest).unwrap().save(12).unwrap();
    let stats = StoreReader::open(dir.path()).unwrap().stats().unwrap();
    let sinks: Vec<_> = stats.sinks.iter().map(|sink| (&*sink.name, sink.seq, sink.backlog)).collect();
    assert_eq!(sinks, [("all", 12, 3), ("new", 10, 5)]);
}

#[test]
fn alerts_are_listed_by_filter() {
    let dir = dir();
    let mut store = open(dir.path());
    commit(&mut store, 0..24, 0);
    let ack = Ack { at: 9, by: "ada".into(), note: "a drill".into() };
    assert_eq!(acknowledge(dir.path(), &[id(4), id(4), id(99)], &ack).unwrap(), [id(4)]);
    let again = Ack { by: "eve".into(), ..ack.clone() };
    assert_eq!(acknowledge(dir.path(), &[id(4)], &again).unwrap(), [] as [AlertId; 0], "the first stands");

    let reader = StoreReader::open(dir.path()).unwrap();
    let all = Filter::default();
    let found = |filter: &Filter| -> Vec<i64> {
        let found = reader.list(filter).unwrap();
        if filter.limit.is_none() {
            assert_eq!(reader.count(filter).unwrap(), found.len() as u64);
        }
        found.iter().map(|listed| listed.alert.time / SECOND).collect()
    };
    assert_eq!(found(&all), (0..24).rev().collect::<Vec<_>>());
    assert_eq!(found(&Filter { limit: Some(2), before_seq: Some(10), ..all.clone() }), [8, 7]);
    assert_eq!(found(&Filter { rule: Some("Rule 1".into()), limit: Some(3), ..all.clone() }), [22, 19, 16]);
    let critical = Some(Priority::Alert);
    assert_eq!(found(&Filter { min_priority: critical, ..all.clone() }), [17, 16, 9, 8, 1, 0]);
    assert_eq!(found(&Filter { actor: Some("user-2".into()), ..all.clone() }), [23, 22, 21, 20, 2]);
    let (since, until) = (Some(5 * SECOND), Some(7 * SECOND));
    assert_eq!(found(&Filter { since, until, ..all.clone() }), [6, 5]);
    assert_eq!(found(&Filter { since, ..all.clone() }).len(), 19);
    assert_eq!(found(&Filter { since: until, until: since, ..all.clone() }), [] as [i64; 0]);
    // Alerts that come late are where their times say.
    commit(&mut store, 3..5, 0);
    let late = NewAlert { id: [9; 16], ..alert(6) };
    store.commit(&Batch { alerts: &[late], ..Batch::default() }).unwrap();
    assert_eq!(found(&Filter { since, until, ..all.clone() }), [6, 6, 5]);
    assert_eq!(found(&Filter { acknowledged: Some(true), ..all.clone() }), [4]);
    assert_eq!(found(&Filter { acknowledged: Some(false), ..all.clone() }).len(), 24);

    let get = |prefix: &str| reader.get(&IdPrefix::parse(prefix).unwrap()).unwrap();
    assert!(matches!(get("0000000000000004"), IdMatch::One(one) if one.ack.as_ref() == Some(&ack)));
    assert!(matches!(get("000000000000000"), IdMatch::Several(ids) if ids.len() == 10));
    assert!(matches!(get("00000000000000F"), IdMatch::None));
    assert!(matches!(get("000000000000001"), IdMatch::Several(ids) if ids.len() == 8));
    for wrong in ["", "xy", "0x", "é", &"0".repeat(33)] {
        assert_eq!(IdPrefix::parse(wrong), None);
    }
}

#[test]
fn hostile_texts_are_read_back_unchanged() {
    let dir = dir();
    let mut store = open(dir.path());
    let texts = ["", "\0", "a\0b", "'; DROP TABLE alerts; --", "\"`[]%_", "\u{1b}[2J\u{202e}\n", "𝕏\u{fffd}"];
    for (number, text) in (0..).zip(texts) {
        let alert = NewAlert {
            id: id(number),
            time: i64::MIN,
            rule: text.to_owned(),
            priority: Priority::Notice,
            actor: text.to_owned(),
            target: text.to_owned(),
            json: [text.as_bytes(), b"\xff\xfe\0"].concat(),
            message: text.to_owned(),
        };
        let change =
            StateChange { kind: "x", key: text.as_bytes().to_vec(), value: Some(b"\xff\0".to_vec()) };
        let batch = Batch {
            source: Some((text, b"\0\xff")),
            alerts: std::slice::from_ref(&alert),
            changes: &[change],
            seen: &[],
            now: i64::MAX,
        };
        assert_eq!(store.commit(&batch).unwrap().new_alerts(), 1);
        let ack = Ack { at: i64::MIN, by: text.to_owned(), note: text.to_owned() };
        acknowledge(dir.path(), &[alert.id], &ack).unwrap();
        Cursor::open(dir.path(), text, SinkStart::Oldest).unwrap().save(i64::MAX).unwrap();

        let reader = StoreReader::open(dir.path()).unwrap();
        let filter =
            Filter { rule: Some(text.to_owned()), actor: Some(text.to_owned()), ..Filter::default() };
        let found = reader.list(&filter).unwrap();
        assert_eq!(found.len(), 1, "{text:?}");
        let (listed, stored) = (&found[0], &found[0].alert);
        assert_eq!((&stored.rule, &stored.actor), (&alert.rule, &alert.actor));
        assert_eq!((&stored.target, &stored.message), (&alert.target, &alert.message));
        assert_eq!((&stored.json, stored.time, stored.stored), (&alert.json, alert.time, i64::MAX));
        assert_eq!(listed.ack.as_ref(), Some(&ack));
        assert_eq!(store.position(text).unwrap().unwrap(), b"\0\xff");
    }
    assert_eq!(store.state("x").unwrap().len(), texts.len());
    assert_eq!(store.positions().unwrap().len(), texts.len());
    let stats = StoreReader::open(dir.path()).unwrap().stats().unwrap();
    assert_eq!(stats.sinks.len(), texts.len());
    // The extremes of time break nothing.
    store.retain(&Retention::default(), i64::MIN).unwrap();
    store.retain(&Retention { max_age: Some(Duration::MAX), ..Retention::default() }, i64::MIN).unwrap();
}

#[test]
fn values_written_by_others_are_checked_when_read() {
    let dir = dir();
    let mut store = open(dir.path());
    commit(&mut store, 0..2, 0);
    raw(dir.path())
        .execute_batch("UPDATE alerts SET rule = CAST(x'ff00fe' AS TEXT), priority = 77 WHERE seq = 1")
        .unwrap();
    let found = StoreReader::open(dir.path()).unwrap().after(0, 10).unwrap();
    assert_eq!((&*found[0].rule, found[0].priority), ("\u{fffd}\0\u{fffd}", Priority::Debug));
}

/// A commit waits for the disk, so that its time is that of the bytes it writes.
#[test]
fn a_commit_writes_a_few_times_its_alerts_and_no_more_when_the_store_is_large() {
    let dir = dir();
    let mut store = open(dir.path());
    let log = dir.path().join("pullwatch.db-wal");
    let mut written = Vec::new();
    for batch in 0..200 {
        raw(dir.path()).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
        let alerts = alerts(batch * 100..batch * 100 + 100);
        store.commit(&Batch { source: Some(("s", b"p")), alerts: &alerts, ..Batch::default() }).unwrap();
        written.push(fs::metadata(&log).unwrap().len());
    }
    let of_one = alert(0);
    let size = (of_one.message.len() + of_one.target.len() + of_one.rule.len() + 64) as u64;
    assert!(written.iter().all(|bytes| *bytes < 100 * size * 8), "{written:?}");
    let [small, large] = [&written[10..60], &written[150..]].map(|some| some.iter().sum::<u64>());
    assert!(large < small * 3 / 2, "{small} bytes for 50 commits to a small store, {large} to a large one");
}
