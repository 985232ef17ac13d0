//! An apiserver that sends batches, and again what it got no answer for, while the daemon is killed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{WAIT_TIMEOUT, event, free_port, wait_for};
use crate::receiver::{FAILURES, Receiver};
use crate::rig::{Ledger, Place, RULES, Random, kill, stop, times};

/// Sends one body. Returns the status, or nothing if the connection broke.
fn post(port: u16, body: &[u8]) -> Option<u16> {
    post_for_response(port, body).map(|(status, _)| status)
}

/// Sends one body. Returns status and body of the response.
pub fn post_for_response(port: u16, body: &[u8]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    let head = format!(
        "POST /?timeout=30s HTTP/1.1\r\nHost: pullwatch\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// One attempt and four more, each after twice the wait, as the apiserver's backend does (which starts with ten seconds).
fn deliver(port: u16, body: &[u8], random: &mut Random) -> bool {
    for attempt in 0..5 {
        match post(port, body) {
            Some(200) => return true,
            Some(400) => panic!("a sound batch was refused"),
            _ => std::thread::sleep(Duration::from_millis((30 << attempt) + random.below(30))),
        }
    }
    false
}

pub fn batch(events: std::ops::Range<usize>) -> Vec<u8> {
    const ENVELOPE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;
    let items: Vec<String> = events
        .map(|number| event(&number.to_string(), "get", "registry").replacen(ENVELOPE, "{", 1))
        .collect();
    format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#,
        items.join(",")
    )
    .into_bytes()
}

#[test]
fn acknowledged_batches_are_stored_once_and_others_at_most_once() {
    let place = Place::new();
    let (moody, sound) = (Receiver::start(&FAILURES, 25), Receiver::start(&[], 0));
    let port = free_port();
    let source = format!("{{type: webhook, name: hook, listen: \"127.0.0.1:{port}\"}}");
    place.configure(&source, &[moody.sink("moody", ""), sound.sink("sound", "")]);
    let kills = times("PULLWATCH_KILLS", 10);
    let (sent, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    // Each batch, and whether it was answered with 200.
    let batches = Arc::new(Mutex::new(Vec::new()));
    let senders: Vec<_> = (0..4)
        .map(|seed| {
            let (sent, is_over, batches) = (sent.clone(), is_over.clone(), batches.clone());
            std::thread::spawn(move || {
                let mut random = Random(seed);
                while !is_over.load(Ordering::SeqCst) {
                    // Most are small, some as large as the apiserver makes them.
                    let size = if random.below(12) == 0 { 400 } else { 1 + random.count(30) };
                    let first = sent.fetch_add(size, Ordering::SeqCst);
                    let taken = deliver(port, &batch(first..first + size), &mut random);
                    batches.lock().unwrap().push((first..first + size, taken));
                    random.sleep(60);
                }
            })
        })
        .collect();
    let mut random = Random(17);
    for _ in 0..kills {
        let child = place.start();
        random.sleep(900);
        kill(child);
        if random.below(3) == 0 {
            // Down for so long that some batches are given up.
            random.sleep(2500);
        }
    }
    let child = place.start();
    let taken = || batches.lock().unwrap().iter().filter(|(_, taken)| *taken).count();
    let before = taken();
    wait_for("a batch is taken", || taken() > before);
    is_over.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.join().unwrap();
    }
    // Batches that were given up may be stored nevertheless. One that comes after them is stored after them.
    let first = sent.fetch_add(1, Ordering::SeqCst);
    wait_for("the last batch is taken", || post(port, &batch(first..first + 1)) == Some(200));
    batches.lock().unwrap().push((first..first + 1, true));
    let mut ledger = Ledger::default();
    ledger.look(&place.state);
    let batches = batches.lock().unwrap();
    let mut stored = 0;
    for (events, taken) in batches.iter() {
        let counts = events.clone().flat_map(|event| RULES.map(|rule| (event, rule.to_owned())));
        let counts: Vec<usize> = counts.map(|key| ledger.counts.get(&key).copied().unwrap_or(0)).collect();
        // A large batch is stored in parts: one that was given up may be stored up to some event, each with all its alerts.
        let is_prefix =
            counts.chunks(RULES.len()).map(|alerts| alerts.iter().sum::<usize>()).is_sorted_by(|a, b| a >= b);
        assert!(
            counts.iter().all(|count| *count <= 1) && is_prefix && (!taken || !counts.contains(&0)),
            "{events:?} taken: {taken}, stored {counts:?}"
        );
        assert!(counts.chunks(RULES.len()).all(|alerts| alerts.iter().all(|count| *count == alerts[0])));
        stored += counts.iter().sum::<usize>();
    }
    assert_eq!(stored, ledger.ids.len());
    let taken = batches.iter().filter(|(_, taken)| *taken).count();
    assert!(taken > 0);
    wait_for("no backlog", || place.metric("pullwatch_sink_backlog_alerts{sink=\"sound\"}") == Some(0.0));
    moody.come_to_senses();
    moody.assert_has(&ledger);
    sound.assert_has(&ledger);
    assert_eq!(stop(child), Some(0));
    eprintln!(
        "{kills} kills, {} batches, {taken} answered with 200, {} alerts stored once; repeated at receivers: {} and {}",
        batches.len(),
        ledger.ids.len(),
        moody.repeated(),
        sound.repeated()
    );
}
