//! A receiver of alerts over HTTP that fails in every way.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::common::wait_for;
use crate::rig::{Ledger, Random};

/// What it does about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// 200.
    Take,
    /// 500.
    Fail,
    /// Nothing, for longer than a sink waits.
    Hang,
    /// Some of the body is read, and the connection is closed.
    CutBody,
    /// All is read, and the connection is closed in the middle of the status.
    CutAnswer,
    /// The connection is reset before anything is read.
    Reset,
    /// 200, after a while.
    Slow,
    /// 400 where an alert's event has a number that 7 divides.
    RefuseSevens,
}

pub const FAILURES: [Mood; 5] = [Mood::Fail, Mood::Hang, Mood::CutBody, Mood::CutAnswer, Mood::Reset];

/// How often each alert was taken, by id.
type Taken = Arc<Mutex<HashMap<String, usize>>>;

/// A receiver on a port of its own.
#[derive(Clone)]
pub struct Receiver {
    pub port: u16,
    taken: Taken,
    /// Now it takes all.
    is_sane: Arc<AtomicBool>,
    pub requests: Arc<AtomicU64>,
}

impl Receiver {
    /// In so many of a hundred requests it has one of these moods, else it takes what comes.
    pub fn start(moods: &'static [Mood], percent: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Receiver {
            port: listener.local_addr().unwrap().port(),
            taken: Arc::default(),
            is_sane: Arc::default(),
            requests: Arc::default(),
        };
        let ours = receiver.clone();
        std::thread::spawn(move || {
            let random = Arc::new(Mutex::new(Random(11)));
            for stream in listener.incoming() {
                let (ours, random) = (ours.clone(), random.clone());
                // A client that breaks off is its own business.
                std::thread::spawn(move || ours.serve(stream.unwrap(), moods, percent, &random));
            }
        });
        receiver
    }

    /// A sink that sends here.
    pub fn sink(&self, name: &str, rest: &str) -> String {
        self.sink_with_timeout(name, "500ms", rest)
    }

    /// A sink that waits for each answer as long as a loaded machine may need: a delivery that times out is sent again, although the
    /// receiver may have it.
    pub fn patient_sink(&self, name: &str, rest: &str) -> String {
        self.sink_with_timeout(name, "60s", rest)
    }

    fn sink_with_timeout(&self, name: &str, timeout: &str, rest: &str) -> String {
        format!(
            "{{type: http, name: {name}, url: \"http://127.0.0.1:{}/\", body: lines, timeout: {timeout}, \
             connect_timeout: {timeout}, retry: {{initial: 20ms, max: 200ms}}{rest}}}",
            self.port
        )
    }

    pub fn come_to_senses(&self) {
        self.is_sane.store(true, Ordering::SeqCst);
    }

    fn serve(
        &self,
        stream: TcpStream,
        moods: &[Mood],
        percent: u64,
        random: &Mutex<Random>,
    ) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        loop {
            let mood = {
                let mut random = random.lock().unwrap();
                let is_moody = random.below(100) < percent && !self.is_sane.load(Ordering::SeqCst);
                if is_moody { moods[random.count(moods.len())] } else { Mood::Take }
            };
            if mood == Mood::Reset {
                // What was sent and not read makes the kernel reset it.
                std::thread::sleep(Duration::from_millis(5));
                return Ok(());
            }
            let Some(length) = length(&mut reader)? else { return Ok(()) };
            self.requests.fetch_add(1, Ordering::SeqCst);
            if mood == Mood::CutBody {
                let mut some = vec![0; length / 2];
                return reader.read_exact(&mut some);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let code = match mood {
                Mood::Hang => {
                    std::thread::sleep(Duration::from_millis(1500));
                    return Ok(());
                }
                Mood::CutAnswer => return stream.write_all(b"HTTP/1.1 2"),
                Mood::Fail => 500,
                Mood::RefuseSevens
                    if alerts(&body).any(|alert| crate::rig::key(&alert).0.is_multiple_of(7)) =>
                {
                    400
                }
                Mood::Slow => {
                    std::thread::sleep(Duration::from_millis(300));
                    200
                }
                _ => 200,
            };
            if code == 200 {
                let mut taken = self.taken.lock().unwrap();
                for alert in alerts(&body) {
                    *taken.entry(alert["id"].as_str().unwrap().to_owned()).or_default() += 1;
                }
            }
            stream.write_all(format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
        }
    }

    /// How many different alerts it has.
    pub fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    /// How many it has more than once.
    pub fn repeated(&self) -> usize {
        self.taken.lock().unwrap().values().filter(|count| **count > 1).count()
    }

    /// Waits until it has each alert of the store, and sees that it has no others.
    pub fn assert_has(&self, ledger: &Ledger) {
        wait_for("each alert at the receiver", || self.count() >= ledger.ids.len());
        let taken = self.taken.lock().unwrap();
        let missing: Vec<_> = ledger.ids.iter().filter(|(id, _)| !taken.contains_key(*id)).take(3).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(taken.len(), ledger.ids.len(), "it has alerts that no store has");
    }
}

fn alerts(body: &[u8]) -> impl Iterator<Item = Value> {
    body.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
}

/// Reads a request's head; gives its body's length, or nothing at the end of the connection.
fn length(reader: &mut impl std::io::BufRead) -> std::io::Result<Option<usize>> {
    let mut length = 0;
    for line in reader.by_ref().lines() {
        let line = line?.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            return Ok(Some(length));
        }
    }
    Ok(None)
}
