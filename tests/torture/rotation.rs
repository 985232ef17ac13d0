//! Rotation under load.

use super::common::event;
use super::place::{Dice, Place, kill, line, rotate, stop};
use super::times;

#[test]
fn rotation_after_rotation_nothing_is_lost_and_nothing_doubled() {
    let place = Place::new("[{paths: [@/audit.log], poll: 100ms}]", "[]");
    let filler = event("0", "get", "x").replace("secrets", "configmaps") + "\n";
    let (rounds, largest) = (times(60, 1000), times(500_000, 5_000_000));
    let mut dice = Dice(5);
    let mut written = 0;
    let mut child = place.start();
    for round in 0..rounds {
        // As many small ones as large ones: between 1 KB and the largest, each power of two as likely.
        let power = 1000 << dice.below((largest / 1000).ilog2() as usize + 1);
        let mut left = 1 + largest.min(power + dice.below(power)) / filler.len();
        while left > 0 {
            let lines = left.min(1 + dice.below(400));
            left -= lines;
            // Like any log, each file begins in a way of its own.
            place.append(&(line(written) + &filler.repeat(lines - 1)));
            written += 1;
        }
        rotate(&place.path("audit.log"), round, dice.below(3));
        if round % 50 == 49 {
            kill(child);
            child = place.start();
        }
    }
    place.settles_at(written);
    assert_eq!(stop(child), Some(0));
    println!("{rounds} rotations, {written} events");
}
