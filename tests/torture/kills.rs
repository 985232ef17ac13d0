//! SIGKILL at random moments, while logs are written and rotated and a receiver fails.

use std::time::Duration;

use super::place::{Dice, Place, kill, rotate, stop};
use super::receiver::{Mood, Receiver};
use super::times;

pub const SINK: &str = "timeout: 500ms, retry: {initial: 5ms, max: 50ms}";

#[test]
fn killed_at_any_moment_it_loses_and_doubles_nothing() {
    let receiver = Receiver::start(&[
        Mood::Takes,
        Mood::Takes,
        Mood::Takes,
        Mood::Takes,
        Mood::Takes,
        Mood::Takes,
        Mood::Fails,
        Mood::CutsOff,
        Mood::TakesUnheard,
    ]);
    let sinks = format!("[{{type: http, url: '{}', {SINK}}}]", receiver.url);
    let place = Place::new("[{paths: [@/audit.log], poll: 100ms}]", &sinks);
    let mut dice = Dice(11);
    let (mut written, mut rotations) = (0, 0);
    for _ in 0..times(15, 250) {
        let child = place.start();
        for _ in 0..dice.below(6) {
            let count = dice.below(60);
            place.events(written..written + count);
            written += count;
            if dice.below(2) == 0 {
                rotate(&place.path("audit.log"), rotations, dice.below(3));
                rotations += 1;
            }
            std::thread::sleep(Duration::from_millis(dice.below(60) as u64));
        }
        kill(child);
    }
    let child = place.start();
    place.settles_at(written);
    receiver.recovers();
    place.until("the receiver has everything", || receiver.count() == 2 * written);
    assert_eq!(stop(child), Some(0));
    println!("{written} events, {rotations} rotations");
}

#[test]
fn receivers_that_fail_hold_up_nobody() {
    let good = Receiver::start(&[Mood::Takes]);
    let slow = Receiver::start(&[Mood::Hangs, Mood::Takes]);
    let dead = Receiver::start(&[Mood::Fails]);
    let sink = |receiver: &Receiver, name: &str| {
        format!("{{type: http, name: {name}, url: '{}', {SINK}}}", receiver.url)
    };
    let sinks = format!("[{}, {}, {}]", sink(&dead, "dead"), sink(&slow, "slow"), sink(&good, "good"));
    let place = Place::new("[{paths: [@/audit.log]}]", &sinks);
    let child = place.start();
    place.events(0..50);
    place.until("the good one has everything", || good.count() == 100);
    assert_eq!(dead.count(), 0);
    let delivered = r#"pullwatch_sink_deliveries_total{sink="good"} 100"#;
    place.until("it is counted", || place.get("/metrics").contains(delivered));
    let metrics = place.get("/metrics");
    assert!(!metrics.contains(r#"pullwatch_sink_failures_total{reason="server_error",sink="dead"} 0"#));
    // It ends in time with what is not delivered, and goes on with it.
    assert_eq!(stop(child), Some(0));
    dead.recovers();
    slow.recovers();
    let child = place.start();
    place.until("all have everything", || dead.count() == 100 && slow.count() == 100);
    assert_eq!(stop(child), Some(0));
    place.settles_at(50);
}
