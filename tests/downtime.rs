//! `pullwatch config check --apiserver-flags`: how long pullwatch may be down.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{event, pullwatch};

/// Files of one check.
struct Check {
    folder: tempfile::TempDir,
}

impl Check {
    fn new() -> Self {
        Check { folder: tempfile::tempdir().unwrap() }
    }

    /// Returns the exit status, and what was written. `@` in the sources stands for the directory.
    fn run(&self, sources: &str, flags: &str) -> (i32, String) {
        let folder = self.folder.path();
        let config = format!("sources: {sources}\nsinks: [{{type: stdout}}]\n");
        fs::write(folder.join("pullwatch.yaml"), config.replace('@', folder.to_str().unwrap())).unwrap();
        fs::write(folder.join("flags"), flags.replace('@', folder.to_str().unwrap())).unwrap();
        let output = pullwatch()
            .args(["config", "check", "--apiserver-flags"])
            .args([folder.join("flags"), folder.join("pullwatch.yaml")])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    }
}

const FILE: &str = "[{paths: '@/audit.log'}]";
const HOOK: &str = "[{type: webhook, listen: '127.0.0.1:9418'}]";

/// A static pod as kubeadm writes it.
fn manifest(version: &str, flags: &str) -> String {
    let flags = flags.replace(' ', "\n    - ");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: kube-apiserver\nspec:\n  containers:\n  - command:\n    - kube-apiserver\n    \
         - --audit-policy-file=/etc/kubernetes/policy.yaml\n    - {flags}\n    image: registry.k8s.io/kube-apiserver:{version}\n    name: kube-apiserver\n"
    )
}

#[test]
fn the_bound_of_a_file_is_shown_as_bytes_and_as_time_at_the_rate_of_the_log() {
    let check = Check::new();
    // 1 MiB in 1000 seconds, then 1 MiB in 10 seconds.
    let write = |name: &str, from: u32, seconds: u32| {
        let line = |at: u32| {
            let time = format!("10:{:02}:{:02}", at / 60, at % 60);
            format!("{}\n", event("a", "get", "registry").replace("10:00:00", &time))
        };
        let (first, last) = (line(from), line(from + seconds));
        let padding = "x".repeat((1 << 20) - first.len() - last.len() - 1);
        fs::write(check.folder.path().join(name), format!("{first}{padding}\n{last}")).unwrap();
    };
    write("audit-2026-11-23T10-16-40.000.log", 0, 1000);
    write("audit.log", 1000, 10);
    let flags =
        "--audit-log-path=@/audit.log --audit-log-maxsize=50 --audit-log-maxbackup=10 --audit-log-maxage=7";
    let (code, text) = check.run(FILE, &manifest("v1.34.1", flags));
    assert_eq!(code, 0, "{text}");
    for expected in [
        "1 source, 1 sink: no errors\n",
        "until 500 MiB of log have been written: 10 rotated files of 50 MiB",
        // 2 MiB in 1010 seconds, and 1 MiB in 10 seconds.
        "at the average rate of the log, 2.0 KiB/s: 2d22h\n",
        "at the rate of its fastest file, 102.4 KiB/s: 1h23m\n",
        "a rotated file is deleted 7d after its rotation (--audit-log-maxage)",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn unset_flags_have_the_defaults_of_the_version() {
    let check = Check::new();
    let path = "--audit-log-path=@/audit.log";
    for (version, flags, expected) in [
        ("v1.34.1", "", &["the number of rotated files has no limit", "no limit: nothing is deleted"][..]),
        ("v1.36.0", "", &["until 10000 MiB of log", "100 rotated files of 100 MiB", "deleted 366d after"]),
        ("unknown", "", &["the apiserver's version is unknown", "100 rotated files of 100 MiB"]),
        ("v1.34.1", " --audit-log-maxbackup=2 --audit-log-maxsize=0", &["until 200 MiB of log"]),
        ("v1.36.0", " --audit-log-maxsize=0", &["turns rotation off", "no limit: nothing is rotated"]),
        (
            "v1.34.1",
            " --audit-log-maxage=3",
            &["the number of rotated files has no limit", "deleted 3d after"],
        ),
    ] {
        let (code, text) = check.run(FILE, &manifest(version, &format!("{path}{flags}")));
        assert_eq!(code, 0, "{text}");
        for expected in expected {
            assert!(text.contains(expected), "{version} {flags}: {expected}: {text}");
        }
    }
}

#[test]
fn the_bound_of_the_webhook_is_the_time_of_the_retries() {
    let check = Check::new();
    let path = "--audit-webhook-config-file=/hook.yaml";
    for (flags, code, expected) in [
        (
            "",
            0,
            &[
                "1m21s: the apiserver sends a batch 5 times within 1m21s to 1m37s",
                "above 4000 events a second",
            ][..],
        ),
        (" --audit-webhook-initial-backoff=1m", 0, &["8m7s: the apiserver"]),
        (" --audit-webhook-batch-initial-backoff=20s", 0, &["2m42s: the apiserver"]),
        (" --audit-webhook-initial-backoff=0s", 0, &["takes longer than all tries"]),
        (" --audit-webhook-initial-backoff=10", 1, &["invalid duration `10`"]),
        (
            " --audit-webhook-batch-buffer-size=500 --audit-webhook-batch-max-size=50",
            0,
            &["above 500 events", "buffer of 500 events"],
        ),
        (" --audit-webhook-mode=blocking", 0, &["each audited request waits up to 1m37s; use batch"]),
        (" --audit-webhook-mode=blocking-strict", 0, &["fails if its RequestReceived stage is audited"]),
        (" --audit-webhook-mode=async", 1, &["unknown mode `async`"]),
        (
            " --audit-webhook-batch-throttle-qps=fast",
            1,
            &["--audit-webhook-batch-throttle-qps: invalid number `fast`"],
        ),
    ] {
        let (found, text) = check.run(HOOK, &manifest("v1.34.1", &format!("{path}{flags}")));
        assert_eq!(found, code, "{flags}: {text}");
        for expected in expected {
            assert!(text.contains(expected), "{flags}: {expected}: {text}");
        }
    }
}

#[test]
fn wrong_flags_are_found() {
    let check = Check::new();
    for (sources, flags, code, expected) in [
        (FILE, "--audit-log-path=-", 0, "set a path"),
        (FILE, "--v=2", 0, "--audit-log-path is unset"),
        (HOOK, "--v=2", 0, "--audit-webhook-config-file is unset"),
        (FILE, "--audit-log-path=/other.log", 0, "do not match --audit-log-path /other.log"),
        (
            FILE,
            "--audit-log-path=@/audit.log --audit-log-maxsize=-1",
            1,
            "--audit-log-maxsize: invalid number `-1`",
        ),
        (FILE, "--audit-log-path=@/audit.log --audit-log-format=legacy", 1, "pullwatch reads `json`"),
        (
            FILE,
            "--audit-log-path=@/audit.log --audit-log-max-backup=3",
            1,
            "has no flag --audit-log-max-backup",
        ),
    ] {
        let (found, text) = check.run(sources, &manifest("v1.34.1", flags));
        assert!(found == code && text.contains(expected), "{flags}: {found} {text}");
    }
    let (_, text) = check.run(FILE, "--audit-log-path=@/audit.log");
    assert!(text.contains("--audit-policy-file is unset"), "{text}");
    let (code, text) = check.run(FILE, "kind: Deployment\n");
    assert!(code == 2 && text.contains("no flags of kube-apiserver in"), "{code} {text}");
}
