//! Helpers shared by the tests of the binary.

// Not every test uses all helpers; a panic fails the test.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

mod port;
pub mod reads;
mod wait;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

pub use port::{free_port, listener};
pub use wait::{WAIT_TIMEOUT, wait_for, wait_until};

/// The binary under test.
pub fn pullwatch() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pullwatch"));
    command.env_remove("PULLWATCH_LOG").stdin(Stdio::null());
    command
}

/// Path of a file in the repository.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Reads and decompresses a sample log.
pub fn sample(name: &str) -> Vec<u8> {
    let file = std::fs::File::open(project("samples/audit").join(name)).unwrap();
    let mut log = Vec::new();
    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut log).unwrap();
    log
}

/// Runs `pullwatch scan --format json` with these arguments.
pub fn scan(arguments: &[&str]) -> Output {
    pullwatch().args(["scan", "--format", "json"]).args(arguments).output().unwrap()
}

/// Alerts printed by a scan.
pub fn alerts(output: &Output) -> Vec<Value> {
    output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Audit ids of the alerts printed by a scan, in order.
pub fn ids(output: &Output) -> Vec<String> {
    alerts(output).iter().map(|alert| alert["event"]["auditID"].as_str().unwrap().to_owned()).collect()
}

/// Runs a scan; returns its peak resident memory in bytes and the audit ids of its alerts.
#[cfg(target_os = "linux")]
pub fn peak_memory(scan: &mut Command) -> (u64, Vec<String>) {
    let child = scan.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watcher = std::thread::spawn(move || {
        let mut peak: u64 = 0;
        while let Ok(text) = std::fs::read_to_string(&status) {
            let Some(line) = text.lines().find(|line| line.starts_with("VmHWM:")) else { break };
            peak = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        peak * 1024
    });
    let output = child.wait_with_output().unwrap();
    (watcher.join().unwrap(), ids(&output))
}

/// Standard error of a finished command.
pub fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// An event as the apiserver writes it.
pub fn event(id: &str, verb: &str, name: &str) -> String {
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"{id}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/prod/secrets/{name}","verb":"{verb}","user":{{"username":"mallory","groups":["system:authenticated"]}},"sourceIPs":["192.0.2.7"],"userAgent":"curl/8","objectRef":{{"resource":"secrets","namespace":"prod","name":"{name}","apiVersion":"v1"}},"responseStatus":{{"metadata":{{}},"code":200}},"requestReceivedTimestamp":"2026-11-23T10:00:00.000000Z","stageTimestamp":"2026-11-23T10:00:00.000100Z","annotations":{{"authorization.k8s.io/decision":"allow"}}}}"#
    )
}

/// A rule that fires on every read of a secret whose name contains `registry`.
pub const RULE: &str = "- rule: Registry Secret Access
  desc: Detect access to ImagePullSecrets
  condition: kevt and ka.verb in (get,list,watch) and ka.target.resource = \"secrets\" and ka.target.name contains \"registry\"
  output: Registry secret accessed (id=%ka.auditid)
  priority: WARNING
";
