//! Evaluates an audit log from standard input with the shipped rules, and prints one line of JSON per alert:
//! `cargo run --example embed --no-default-features < audit.log`

use std::error::Error;
use std::io::{Read as _, Write as _};

use pullwatch::{Engine, Priority, Rules, Settings};

fn main() -> Result<(), Box<dyn Error>> {
    let rules = Rules::shipped()?;
    let settings = Settings { minimum_priority: Priority::Warning, ..Settings::default() };
    let engine = Engine::new(&rules, settings);
    let mut session = engine.session();

    let mut log = Vec::new();
    std::io::stdin().lock().read_to_end(&mut log)?;
    let mut lines = Vec::new();
    let mut write = |alert: &pullwatch::Alert<'_>| {
        alert.write_json(&mut lines);
        lines.push(b'\n');
    };
    session.evaluate(&log, &mut write);
    session.finish(&mut write);
    std::io::stdout().lock().write_all(&lines)?;
    Ok(())
}
