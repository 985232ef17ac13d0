//! Receivers and a daemon that sends to them.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::common::{self, event, free_port, project, pullwatch, wait_for};

/// A process that ends with its owner.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the path of a program, or `None` if it is not installed.
pub fn program(name: &str) -> Option<PathBuf> {
    let own = project("target/tools/bin").join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(own)
        .chain(std::env::split_paths(&path).map(|dir| dir.join(name)))
        .find(|path| path.is_file());
    if found.is_none() {
        let is_required = std::env::var_os("PULLWATCH_REQUIRE_RECEIVERS").is_some();
        assert!(!is_required, "{name} is not installed");
        eprintln!("skipped, {name} is not installed");
    }
    found
}

/// Starts a server and waits until a path answers.
pub fn serve(command: &mut Command, address: &str, path: &str) -> Process {
    let process = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for("a server answers", || try_get(address, path).is_some_and(|(status, _)| status == 200));
    process
}

/// Status and body of a `GET`; `None` if nothing answers.
pub fn try_get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The body of a `GET` as JSON.
pub fn get_json(address: &str, path: &str) -> Value {
    let (status, body) = try_get(address, path).unwrap();
    serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} {path}: {body}"))
}

/// A VictoriaLogs with a store of its own.
pub struct VictoriaLogs {
    pub address: String,
    _server: Process,
    _store: tempfile::TempDir,
}

impl VictoriaLogs {
    /// `None` if it is not installed. It keeps entries of any age: alerts have the time of their event.
    pub fn start() -> Option<Self> {
        let server = program("victoria-logs")?;
        let store = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(server);
        command.args([format!("-httpListenAddr={address}"), "-retentionPeriod=100y".to_owned()]);
        command.arg(format!("-storageDataPath={}", store.path().display()));
        let server = serve(&mut command, &address, "/health");
        Some(VictoriaLogs { address, _server: server, _store: store })
    }

    /// The entries that a query of LogsQL finds.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query
            .bytes()
            .map(|byte| match byte {
                byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        let (_, body) = try_get(&self.address, &format!("/select/logsql/query?query={encoded}")).unwrap();
        // Chunks of the transfer coding are lines of their own.
        body.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect()
    }
}

/// Records the bodies of requests.
#[derive(Clone)]
pub struct Hook {
    pub url: String,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    pub fn start() -> Hook {
        Self::answering("200 OK")
    }

    /// Answers every request with this status.
    pub fn answering(status: &'static str) -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hook =
            Hook { url: format!("http://{}/", listener.local_addr().unwrap()), bodies: Arc::default() };
        let bodies = hook.bodies.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    request.extend_from_slice(&buffer[..length]);
                    let text = String::from_utf8_lossy(&request);
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| {
                        line.to_lowercase()
                            .strip_prefix("content-length: ")
                            .map(|length| length.parse().unwrap())
                    });
                    if length.is_none_or(|length: usize| body.len() >= length) {
                        bodies.lock().unwrap().push(serde_json::from_str(body).unwrap_or_default());
                        break;
                    }
                }
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        hook
    }

    /// What was sent.
    pub fn bodies(&self) -> Vec<Value> {
        self.bodies.lock().unwrap().clone()
    }

    /// The alerts of all notifications.
    pub fn alerts(&self) -> Vec<Value> {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().flat_map(|body| body["alerts"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// Whether there was a notification of this status for this actor.
    pub fn has(&self, status: &str, actor: &str) -> bool {
        self.alerts().iter().any(|alert| alert["status"] == status && alert["labels"]["actor"] == actor)
    }
}

/// `pullwatch run` on a log.
pub struct Daemon {
    pub dir: tempfile::TempDir,
    process: Option<Process>,
    /// Address of its server.
    pub address: String,
}

impl Daemon {
    /// Writes the configuration: these sinks, and further keys.
    pub fn start(sinks: &str, more: &str) -> Daemon {
        Self::start_with(common::RULE, sinks, more)
    }

    /// With the rules that the binary contains.
    pub fn with_built_in_rules(sinks: &str, more: &str) -> Daemon {
        let mut daemon = Self::start_with(common::RULE, sinks, more);
        daemon.kill();
        let config = daemon.dir.path().join("pullwatch.yaml");
        let text = fs::read_to_string(&config).unwrap();
        let rules = format!("{}/rules.yaml", daemon.dir.path().display());
        fs::write(&config, text.replace(&rules, "builtin")).unwrap();
        daemon.restart();
        daemon
    }

    fn start_with(rules: &str, sinks: &str, more: &str) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let path = dir.path().display();
        fs::write(dir.path().join("rules.yaml"), rules).unwrap();
        fs::write(dir.path().join("audit.log"), "").unwrap();
        fs::write(
            dir.path().join("pullwatch.yaml"),
            format!(
                "state_dir: {path}/state\nrules: {path}/rules.yaml\nlabels: {{cluster: prod-eu}}\nserver: {{listen: '{address}'}}\nsources:\n- {{type: file, name: audit, paths: ['{path}/audit.log'], poll: 20ms}}\nsinks:\n{sinks}\n{more}\n"
            ),
        )
        .unwrap();
        let mut daemon = Daemon { dir, process: None, address };
        daemon.restart();
        daemon
    }

    /// Kills it, if it runs.
    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn restart(&mut self) {
        self.kill();
        let config = self.dir.path().join("pullwatch.yaml");
        self.process =
            Some(serve(pullwatch().args(["run", "--config"]).arg(config), &self.address, "/healthz"));
    }

    /// Appends a line to the log.
    pub fn log(&self, line: &str) {
        let path: &Path = &self.dir.path().join("audit.log");
        let mut log = OpenOptions::new().append(true).open(path).unwrap();
        log.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// An actor reads a secret.
    pub fn read(&self, id: &str, actor: &str, secret: &str) {
        self.log(&event(id, "get", secret).replace("mallory", actor));
    }
}
