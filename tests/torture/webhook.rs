//! SIGKILL at random moments, while an apiserver sends batches and sends them again.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::kills::SINK;
use super::place::{Dice, Place, free_port, kill, line, stop};
use super::receiver::{Mood, Receiver};
use super::times;

/// Sends a batch once; whether it was answered 200.
fn send(port: u16, body: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: hook\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

#[test]
fn batches_that_are_sent_again_are_stored_once() {
    let receiver = Receiver::start(&[Mood::Takes, Mood::Takes, Mood::Fails, Mood::TakesUnheard]);
    let sinks = format!("[{{type: http, url: '{}', {SINK}}}]", receiver.url);
    let port = free_port();
    let place = Place::new(&format!("[{{type: webhook, listen: 127.0.0.1:{port}}}]"), &sinks);
    let (is_over, events_a_sender) = (AtomicBool::new(false), 1_000_000);
    // Each sender has numbers of its own.
    let sent: Vec<usize> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..3)
            .map(|sender| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut dice = Dice(sender as u64);
                    let mut done = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let count = 1 + dice.below(50);
                        let first = sender * events_a_sender + done;
                        let events: Vec<String> = (first..first + count)
                            .map(|number| {
                                // As the apiserver sends them: without kind and version.
                                line(number).trim_end().replace(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "")
                            })
                            .collect();
                        let body = format!(
                            r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#,
                            events.join(",")
                        );
                        while !send(port, &body).unwrap_or(false) {
                            std::thread::sleep(Duration::from_millis(10 + dice.below(30) as u64));
                        }
                        done += count;
                    }
                    done
                })
            })
            .collect();
        let mut dice = Dice(17);
        for _ in 0..times(15, 250) {
            let child = place.start();
            std::thread::sleep(Duration::from_millis(30 + dice.below(300) as u64));
            kill(child);
        }
        let child = place.start();
        is_over.store(true, Ordering::Relaxed);
        let sent = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        assert_eq!(stop(child), Some(0));
        sent
    });
    let stored = place.stored();
    assert!(stored.values().all(|count| *count == 1));
    for (sender, done) in sent.iter().enumerate() {
        for number in sender * events_a_sender..sender * events_a_sender + done {
            for rule in ["Registry Secret Access", "The Same Again"] {
                assert!(stored.contains_key(&(number, rule.to_owned())), "{number} {rule}");
            }
        }
    }
    let all: usize = sent.iter().sum();
    assert!(all > 0 && stored.len() == 2 * all, "{} stored of {all} events", stored.len());
    receiver.recovers();
    let child = place.start();
    place.until("the receiver has everything", || receiver.count() == 2 * all);
    assert_eq!(stop(child), Some(0));
    println!("{all} events");
}
