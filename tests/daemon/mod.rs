//! A running daemon on a log, for tests of its HTTP server.

// Not every test uses all helpers.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::common::{pullwatch, sample, wait_for};

/// The token of a daemon that was started with one.
pub const TOKEN: &str = "correct-horse-battery-staple";

/// A running daemon and the address of its server.
pub struct Daemon {
    child: Child,
    pub address: String,
    /// Lines of its log.
    pub log: Arc<Mutex<Vec<String>>>,
    token: Option<&'static str>,
    pub folder: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Follows the sample log. Options: `token`, `everywhere` (listens on all addresses).
    pub fn start(options: &[&str]) -> Daemon {
        Self::on_log(&sample("request-response.log.gz"), options)
    }

    /// Follows a log with this content.
    pub fn on_log(log: &[u8], options: &[&str]) -> Daemon {
        Self::prepared(log, options, |_| ())
    }

    /// As `on_log`; `prepare` gets the state directory before the daemon starts.
    pub fn prepared(log: &[u8], options: &[&str], prepare: impl FnOnce(&Path)) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        prepare(&folder.path().join("state"));
        std::fs::write(folder.path().join("audit.log"), log).unwrap();
        let mut config = "sources: [{type: file, paths: [audit.log]}]\nsinks: []\n".to_owned();
        let token = options.contains(&"token").then_some(TOKEN);
        if let Some(token) = token {
            std::fs::write(folder.path().join("token"), token).unwrap();
            config.push_str("server: {token_file: token}\n");
        }
        // The environment may not open the server to others without a token; the file may.
        let is_open = options.contains(&"everywhere");
        if is_open && token.is_none() {
            config.push_str("server: {listen: '0.0.0.0:0'}\n");
        }
        let listen = match (is_open, token) {
            (true, None) => "",
            (true, Some(_)) => "0.0.0.0:0",
            (false, _) => "127.0.0.1:0",
        };
        std::fs::write(folder.path().join("pullwatch.yaml"), config).unwrap();
        let mut child = pullwatch()
            .current_dir(folder.path())
            .args(["run", "--config", "pullwatch.yaml", "--state-dir", "state"])
            .env("PULLWATCH_LISTEN", listen)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let serving = lines.find(|line| line.contains("serving metrics")).unwrap();
        let serving: Value = serde_json::from_str(&serving).unwrap();
        let address = serving["address"].as_str().unwrap().to_owned();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        std::thread::spawn({
            let log = log.clone();
            move || lines.for_each(|line| log.lock().unwrap().push(line))
        });
        Daemon { child, address, log, token, folder }
    }

    /// Appends to the log.
    pub fn append(&self, bytes: &[u8]) {
        let path = self.folder.path().join("audit.log");
        std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    /// Replaces the configuration and reloads it.
    pub fn reconfigure(&self, config: &str) {
        std::fs::write(self.folder.path().join("pullwatch.yaml"), config).unwrap();
        let status = std::process::Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        self.request("GET", path, self.token, "")
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.request("POST", path, self.token, body)
    }

    /// As `post`; the answer need not be JSON.
    pub fn post_raw(&self, path: &str, body: &str) -> (u16, String) {
        self.send("POST", path, self.token, body)
    }

    pub fn request(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
        let (code, body) = self.send(method, path, token, body);
        (code, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }

    fn send(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let port = self.address.rsplit(':').next().unwrap();
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        let authorization =
            token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{authorization}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // The server may refuse a body before it is sent.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// Waits until the log was evaluated and its alerts are stored; returns the number of alerts.
    pub fn wait_for_alerts(&self) -> usize {
        let count = || self.get("/api/v1/alerts?limit=1000").1["alerts"].as_array().unwrap().len();
        let mut last = 0;
        wait_for("all alerts", || {
            std::thread::sleep(std::time::Duration::from_millis(200));
            let size = std::fs::metadata(self.folder.path().join("audit.log")).unwrap().len();
            // In this order: a part of the log is counted when it is evaluated, and the lag is set when its alerts are stored.
            let is_read = self.metric("pullwatch_source_bytes_total") == Some(size);
            let is_stored = self.metric("pullwatch_source_lag_bytes") == Some(0);
            let now = count();
            let is_done = is_read && is_stored && now > 0 && now == last;
            last = now;
            is_done
        });
        last
    }

    /// The value of the first time series of a metric.
    fn metric(&self, name: &str) -> Option<u64> {
        let (_, text) = self.send("GET", "/metrics", self.token, "");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('{'))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}
