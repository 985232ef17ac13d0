//! Brokers of a real Apache Kafka for tests, started by `broker.py` (see there).

// Not every test uses everything; in a test a panic is the right response.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Exit status of `broker.py` if Java or Maven is missing, or Maven cannot download.
const ABSENT: [i32; 2] = [77, 78];

/// Brokers that run until this is dropped.
pub struct Brokers {
    supervisor: Child,
    directory: tempfile::TempDir,
    /// Addresses without authentication.
    pub bootstrap: String,
    /// With `--sasl`: addresses that require a password.
    pub sasl: Option<String>,
    /// With `--sasl`: addresses that require a token.
    pub tokens: Option<String>,
    /// With `--tls`: TLS addresses.
    pub tls: Option<String>,
    /// With `--sasl`: a user.
    pub user: Option<String>,
    /// With `--sasl`: the file with the user's password.
    pub password_file: Option<PathBuf>,
}

fn broker_py() -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/broker.py"));
    command
}

impl Brokers {
    /// Starts brokers (`["--brokers", "3", "--sasl"]`) and waits until they answer. Returns `None` and prints why if that is not possible
    /// here; with `PULLWATCH_REQUIRE_KAFKA` in the environment that is a failure.
    pub fn start(arguments: &[&str]) -> Option<Brokers> {
        let directory = tempfile::tempdir().unwrap();
        let started = broker_py()
            .arg("start")
            .arg("--dir")
            .arg(directory.path().join("kafka"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let is_required = std::env::var_os("PULLWATCH_REQUIRE_KAFKA").is_some();
        let mut supervisor = match started {
            Ok(supervisor) => supervisor,
            Err(error) => {
                assert!(!is_required, "python3: {error}");
                eprintln!("not run on a real Kafka: python3 cannot be started: {error}");
                return None;
            }
        };
        let mut facts = std::collections::BTreeMap::new();
        let mut is_ready = false;
        for line in BufReader::new(supervisor.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((name, value)) = line.split_once(' ') {
                facts.insert(name.to_owned(), value.to_owned());
            }
            if line == "ready" {
                is_ready = true;
                break;
            }
        }
        if !is_ready {
            let code = supervisor.wait().unwrap().code();
            assert!(!is_required && code.is_some_and(|code| ABSENT.contains(&code)), "broker.py: {code:?}");
            eprintln!("not run on a real Kafka, see above");
            return None;
        }
        let mut fact = |name: &str| facts.remove(name);
        Some(Brokers {
            supervisor,
            directory,
            bootstrap: fact("bootstrap").unwrap(),
            sasl: fact("sasl"),
            tokens: fact("tokens"),
            tls: fact("tls"),
            user: fact("user"),
            password_file: fact("password_file").map(PathBuf::from),
        })
    }

    /// Runs a command of `broker.py` and returns its output.
    pub fn order(&self, arguments: &[&str]) -> String {
        self.order_with(arguments, b"")
    }

    /// The same with standard input, as for `produce TOPIC`.
    pub fn order_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let (verb, rest) = arguments.split_first().unwrap();
        let mut command = broker_py();
        command.arg(verb).arg("--dir").arg(self.directory.path().join("kafka")).args(rest);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "broker.py {}: {}", arguments.join(" "), output.status);
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        // Stops the brokers and removes their files. If that fails, they end with their supervisor.
        let stopped = broker_py()
            .args(["stop", "--dir"])
            .arg(self.directory.path().join("kafka"))
            .stdout(Stdio::null())
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            let _ = self.supervisor.kill();
        }
        let _ = self.supervisor.wait();
    }
}
