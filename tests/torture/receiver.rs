//! An HTTP server that takes alerts, and not always.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::place::Dice;

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Takes,
    Fails,
    Hangs,
    CutsOff,
    /// Says that it took it, and nobody hears it.
    TakesUnheard,
}

pub struct Receiver {
    pub url: String,
    /// Ids of alerts that it answered 200 for.
    taken: Arc<Mutex<BTreeSet<String>>>,
    moods: Arc<Mutex<Vec<Mood>>>,
}

impl Receiver {
    /// Each request meets one of these moods, at random.
    pub fn start(moods: &[Mood]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (taken, moods) = (Arc::default(), Arc::new(Mutex::new(moods.to_vec())));
        let receiver = Receiver { url, taken, moods };
        let (taken, moods) = (receiver.taken.clone(), receiver.moods.clone());
        let dice = Arc::new(Mutex::new(Dice(3)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (taken, moods, dice) = (taken.clone(), moods.clone(), dice.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.unwrap());
                    while let Some(body) = request(&mut reader) {
                        let mood = {
                            let moods = moods.lock().unwrap();
                            moods[dice.lock().unwrap().below(moods.len())]
                        };
                        if !answer(reader.get_mut(), mood, &body, &taken) {
                            return;
                        }
                    }
                });
            }
        });
        receiver
    }

    /// From now on it takes everything.
    pub fn recovers(&self) {
        *self.moods.lock().unwrap() = vec![Mood::Takes];
    }

    /// How many alerts it took, each counted once.
    pub fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }
}

/// The body of a request; nothing where the connection ended.
fn request(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

/// Answers; false where the connection is to end.
fn answer(stream: &mut TcpStream, mood: Mood, body: &[u8], taken: &Mutex<BTreeSet<String>>) -> bool {
    let says = |stream: &mut TcpStream, status: &str| {
        // In one piece: half an answer would wait for an acknowledgement.
        stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).is_ok()
    };
    match mood {
        Mood::Takes | Mood::TakesUnheard => {
            let alert: serde_json::Value = serde_json::from_slice(body).unwrap();
            taken.lock().unwrap().insert(alert["id"].as_str().unwrap().to_owned());
            mood == Mood::Takes && says(stream, "200 OK")
        }
        Mood::Fails => says(stream, "503 Service Unavailable"),
        Mood::Hangs => {
            // Longer than the sink waits.
            std::thread::sleep(Duration::from_secs(2));
            false
        }
        Mood::CutsOff => {
            let _ = stream.write_all(b"HTTP/1.1 200 O");
            false
        }
    }
}
