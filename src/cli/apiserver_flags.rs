//! The audit flags of kube-apiserver, in the files that users have.
//!
//! Takes the text of a static pod manifest, a kubeadm configuration, a K3s or RKE2 configuration, or a command line; returns the audit
//! flags with their values, and the apiserver's minor version if an image names it. Their meaning is up to `downtime`.

use std::collections::BTreeMap;

use crate::text::yaml::{self, Node, Value};

/// Flags that start with `--audit-`, without that prefix, of kube-apiserver 1.20 to 1.36. `log` and `webhook` also have flags for batches
/// and truncation.
const KNOWN: [&str; 10] = [
    "policy-file",
    "log-path",
    "log-maxage",
    "log-maxbackup",
    "log-maxsize",
    "log-format",
    "log-compress",
    "webhook-config-file",
    "webhook-initial-backoff",
    "webhook-batch-initial-backoff",
];

const KNOWN_OF_BOTH: [&str; 11] = [
    "mode",
    "version",
    "batch-buffer-size",
    "batch-max-size",
    "batch-max-wait",
    "batch-throttle-enable",
    "batch-throttle-qps",
    "batch-throttle-burst",
    "truncate-enabled",
    "truncate-max-batch-size",
    "truncate-max-event-size",
];

/// Audit flags of an apiserver.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ApiserverFlags {
    /// Values by name without `--`. The last one counts, as for the apiserver.
    values: BTreeMap<String, String>,
    /// The minor version: 34 of `kube-apiserver:v1.34.1`.
    pub minor: Option<u32>,
}

impl ApiserverFlags {
    /// Reads the flags. Returns `None` if the text contains no flag at all, so that a wrong file is not mistaken for default settings.
    pub fn read(text: &str) -> Option<Self> {
        let mut flags = ApiserverFlags::default();
        let documents = yaml::parse(text).map(|documents| documents.roots).unwrap_or_default();
        let mut found = false;
        for root in &documents {
            found |= root.mapping().is_some() && flags.add_document(root);
        }
        if documents.iter().all(|root| root.mapping().is_none()) {
            found = flags.add_words(text.split(|letter: char| letter.is_whitespace() || letter == '\0'));
        }
        found.then_some(flags)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Audit flags that no kube-apiserver has; it would not start.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        let is_known = |name: &str| {
            let Some(name) = name.strip_prefix("audit-") else { return true };
            let of_both = name.strip_prefix("log-").or_else(|| name.strip_prefix("webhook-"));
            KNOWN.contains(&name) || of_both.is_some_and(|name| KNOWN_OF_BOTH.contains(&name))
        };
        self.values.keys().map(String::as_str).filter(move |name| !is_known(name))
    }

    fn add_document(&mut self, root: &Node) -> bool {
        let mut found = false;
        // A pod.
        let containers = root.get("spec").and_then(|spec| spec.get("containers")?.sequence());
        for container in containers.unwrap_or_default() {
            let mut words = Vec::new();
            for key in ["command", "args"] {
                let list = container.get(key).and_then(|list| list.sequence()).unwrap_or_default();
                words.extend(list.iter().filter_map(|word| word.text()));
            }
            let is_apiserver = container.get("name").and_then(|name| name.text()) == Some("kube-apiserver")
                || words.iter().any(|word| word.contains("kube-apiserver"));
            if !is_apiserver {
                continue;
            }
            self.minor = container.get("image").and_then(|image| minor(image.text()?)).or(self.minor);
            // A shell's command line is a single argument.
            found |= self.add_words(words.iter().flat_map(|word| {
                if word.starts_with("--") { vec![*word] } else { word.split_whitespace().collect() }
            }));
        }
        // kubeadm: a list of names and values, or a map before v1beta4.
        if let Some(extra) = root.get("apiServer").and_then(|server| server.get("extraArgs")) {
            self.minor =
                root.get("kubernetesVersion").and_then(|version| minor(version.text()?)).or(self.minor);
            for one in extra.sequence().unwrap_or_default() {
                if let (Some(name), Some(value)) = (one.get("name"), one.get("value")) {
                    found |= self.add(name.text().unwrap_or_default(), value.text().unwrap_or_default());
                }
            }
            for one in extra.mapping().unwrap_or_default() {
                found |= self.add(&one.key, one.value.text().unwrap_or_default());
            }
        }
        // K3s and RKE2: one or several `name=value`.
        if let Some(arguments) = root.get("kube-apiserver-arg") {
            let many = match &arguments.value {
                Value::Sequence(many) => many.iter().filter_map(|one| one.text()).collect(),
                _ => arguments.text().into_iter().collect::<Vec<_>>(),
            };
            for one in many {
                let (name, value) = one.split_once('=').unwrap_or((one, "true"));
                found |= self.add(name, value);
            }
        }
        found
    }

    /// Adds flags of a command line: `--name=value` or `--name value`.
    fn add_words<'w>(&mut self, words: impl Iterator<Item = &'w str>) -> bool {
        let mut found = false;
        let quotes = ['"', '\'', ',', '\\'];
        let mut words =
            words.map(|word| word.trim_matches(quotes)).filter(|word| !word.is_empty()).peekable();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--") else { continue };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, value.trim_matches(quotes)),
                None => (flag, words.next_if(|next| !next.starts_with("--")).unwrap_or("true")),
            };
            found |= self.add(name, value);
        }
        found
    }

    fn add(&mut self, name: &str, value: &str) -> bool {
        // The apiserver accepts underscores in place of hyphens.
        let name = name.trim().trim_start_matches('-').replace('_', "-");
        if name.starts_with("audit-") {
            self.values.insert(name.clone(), value.trim().to_owned());
        }
        !name.is_empty()
    }
}

/// The minor version at the end of an image or a version: 34 of `registry.k8s.io/kube-apiserver:v1.34.1@sha256:…`.
fn minor(text: &str) -> Option<u32> {
    let version = text.split('@').next()?;
    let version = version.rsplit_once(':').map_or(version, |(_, tag)| tag);
    version.strip_prefix('v').unwrap_or(version).strip_prefix("1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(Option<String>, Option<u32>)> {
        ApiserverFlags::read(text).map(|flags| (flags.get("audit-log-path").map(str::to_owned), flags.minor))
    }

    #[test]
    fn reads_every_form() {
        let path = Some("/a b.log".to_owned());
        for (text, minor) in [
            (
                "spec:\n  containers:\n  - name: kube-apiserver\n    image: 'host:5000/kube-apiserver:v1.34.1@sha256:00'\n    \
                 command: [kube-apiserver, '--audit-log-path=/old', '--audit_log_path=/a b.log']\n",
                Some(34),
            ),
            (
                r#"{"spec":{"containers":[{"command":["konnectivity"],"image":"x:v1.2.3"},
                   {"args":["--audit-log-path=/a b.log"],"command":["/usr/bin/kube-apiserver"]}]}}"#,
                None,
            ),
            (
                "kubernetesVersion: v1.36.0\napiServer: {extraArgs: [{name: audit-log-path, value: /a b.log}]}\n",
                Some(36),
            ),
            ("apiServer: {extraArgs: {audit-log-path: /a b.log}}\n---\nkind: Other\n", None),
            ("kube-apiserver-arg: ['audit-log-path=/a b.log', 'v=2']\n", None),
        ] {
            assert_eq!(read(text), Some((path.clone(), minor)), "{text}");
        }
        for text in [
            "kube-apiserver\0--v=2\0--audit-log-path=/a.log\0--x\0",
            "--v=2\n--audit-log-path=/a.log\n",
            "ExecStart=/usr/bin/kube-apiserver \\\n  --audit-log-path '/a.log' \\\n  --v=2\n",
            "spec: {containers: [{command: [sh, -c, 'exec kube-apiserver --audit-log-path=/a.log --v=2 >>/log']}]}",
        ] {
            assert_eq!(read(text), Some((Some("/a.log".to_owned()), None)), "{text}");
        }
        for text in
            ["", "sources: []", "spec: {containers: [{name: etcd, command: [etcd, '--v=2']}]}", "text"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn finds_flags_that_do_not_exist() {
        let flags = ApiserverFlags::read(
            "--audit-log-max-backup=3 --audit-webhook-mode=batch --v=2 --audit-log-maxage 3",
        );
        assert_eq!(flags.unwrap().unknown().collect::<Vec<_>>(), ["audit-log-max-backup"]);
    }
}
