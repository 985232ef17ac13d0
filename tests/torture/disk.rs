//! A disk that is full: what the sources have waits there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::place::{Place, kill, stop};
use super::times;

/// A file system of its own, with little room.
struct Disk(PathBuf);

impl Disk {
    /// Nothing where this user may not mount one.
    fn new(path: &Path) -> Option<Disk> {
        fs::create_dir(path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3M", "tmpfs"]).arg(path).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Disk(path.to_owned()))
    }

    /// Takes all the room that is left, but for what a start needs.
    fn fill(&self) {
        let mut size = 3 << 20;
        while size > 4096 {
            let file = self.0.join(format!("filler-{size}"));
            if fs::write(&file, vec![0; size]).is_err() {
                let _ = fs::remove_file(file);
            }
            size /= 2;
        }
    }

    fn clear(&self) {
        for entry in fs::read_dir(&self.0).unwrap().map(Result::unwrap) {
            if entry.file_name().to_string_lossy().starts_with("filler") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn while_the_disk_is_full_the_source_waits_and_then_goes_on() {
    let mut place = Place::new(
        "[{paths: [@/audit.log], poll: 100ms}]",
        "[{type: file, path: '@/alerts.jsonl', retry: {max: 200ms}}]",
    );
    let Some(disk) = Disk::new(&place.path("disk")) else {
        eprintln!("not run: mounting a small file system takes more rights");
        return;
    };
    place.state = place.path("disk/state");
    let mut written = 20;
    place.events(0..written);
    let mut child = place.start();
    place.until("a start", || place.alerts() == 2 * written);
    for round in 0..times(3, 30) {
        disk.fill();
        // More than what is left holds.
        place.events(written..written + 300);
        written += 300;
        place.until("the disk is full", || place.get("/metrics").contains("\npullwatch_store_full 1"));
        let ready = place.get("/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("the disk is full"), "{ready}");
        if round % 2 == 0 {
            kill(child);
            child = place.start();
            // It may end, with a clear word, or wait; a service manager starts it again.
            std::thread::sleep(Duration::from_millis(300));
            if child.try_wait().unwrap().is_some() {
                let log = fs::read_to_string(place.path("log")).unwrap();
                assert!(log.contains("full"), "{log}");
                disk.clear();
                child = place.start();
            }
        }
        disk.clear();
        place.until("it goes on", || place.alerts() == 2 * written);
        place.until("it says so", || place.get("/readyz").starts_with("HTTP/1.1 200"));
        // Less is kept, so that there is room for the next round.
        if written > 900 {
            break;
        }
    }
    place.settles_at(written);
    // The sink's place could not be saved either, so that some come twice.
    let delivered = || {
        let text = fs::read_to_string(place.path("alerts.jsonl")).unwrap();
        let alerts = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        alerts.map(|alert| alert["id"].to_string()).collect::<BTreeSet<_>>().len()
    };
    place.until("all is delivered", || delivered() == 2 * written);
    assert_eq!(stop(child), Some(0));
}
