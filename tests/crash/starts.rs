//! Starts that find something wrong.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;

use crate::receiver::Receiver;
use crate::rig::{Ledger, Place, kill, stop};
use crate::writer::Writer;

#[test]
fn a_damaged_store_is_set_aside_and_all_goes_on() {
    let place = Place::new();
    let receiver = Receiver::start(&[], 0);
    place.configure(&place.log(), &[receiver.sink("http", "")]);
    let mut writer = Writer::new(place.folder.path(), 41);
    writer.events(50);
    let child = place.start();
    let mut ledger = Ledger::default();
    ledger.wait(&place.state, 50);
    receiver.assert_has(&ledger);
    assert_eq!(stop(child), Some(0));
    let db = fs::OpenOptions::new().write(true).open(place.state.join("pullwatch.db")).unwrap();
    for page in 1..6 {
        db.write_at(&[0x5a; 3000], page * 4096).unwrap();
    }
    writer.events(10);
    let child = place.start();
    // The position is gone with it: everything is evaluated again, with the same alerts.
    let mut anew = Ledger::default();
    anew.wait(&place.state, 60);
    anew.assert_exact(0..60);
    receiver.assert_has(&anew);
    assert_eq!(stop(child), Some(0));
    let said = place.said();
    let error = said.lines().find(|line| line.contains("the store was damaged")).unwrap();
    assert!(error.contains("ERROR") && error.contains("pullwatch.db.corrupt-"), "{error}");
    let names = fs::read_dir(&place.state).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().any(|name| name.to_string_lossy().contains(".corrupt-")));
}

#[test]
fn a_second_one_is_refused_even_while_the_first_is_busy_and_not_after_a_kill() {
    let place = Place::new();
    place.configure(&place.log(), &["{type: stdout}".to_owned()]);
    let mut writer = Writer::new(place.folder.path(), 43);
    let first = place.start();
    let mut ledger = Ledger::default();
    writer.events(100);
    ledger.wait(&place.state, 100);
    writer.events(1000);
    let second = place.command().status().unwrap();
    assert_eq!(second.code(), Some(2));
    assert!(place.said().contains("is in use by another pullwatch: stop that one"), "{}", place.said());
    ledger.wait(&place.state, 1100);
    kill(first);
    assert_eq!(stop(place.start()), Some(0));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_told() {
    let place = Place::new();
    place.configure(&place.log(), &["{type: stdout}".to_owned()]);
    fs::create_dir(&place.state).unwrap();
    fs::set_permissions(&place.state, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = place.command();
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere.
        command.uid(65534).gid(65534);
    }
    let child = match command.status() {
        Ok(status) => status,
        // The binary lies where only root may look.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("not run: nobody may not start {}", env!("CARGO_BIN_EXE_pullwatch"));
            return;
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(child.code(), Some(2));
    let said = place.said();
    assert!(
        said.contains("make the directory and its files writable for the user that pullwatch runs as"),
        "{said}"
    );
}
