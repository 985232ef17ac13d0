//! The shipped rules, embedded in the binary, so that it needs no rule files.

use crate::detection::rules::SourceFile;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("rules.d/", $name), include_str!(concat!("../rules.d/", $name)))),*]
    };
}

/// Name and content of the files of `rules.d`, in load order.
const RULES: &[(&str, &str)] = shipped![
    "00-common.yaml",
    "10-reads.yaml",
    "20-access.yaml",
    "30-workloads.yaml",
    "40-credentials.yaml",
    "50-admission.yaml",
    "60-external-secrets.yaml",
    "70-audit-policy.yaml",
    "80-correlations.yaml",
];

/// Returns the files of `rules.d`, in load order.
pub fn files() -> Vec<SourceFile> {
    let file = |(name, text): &(&str, &str)| SourceFile { name: (*name).into(), text: (*text).to_owned() };
    RULES.iter().map(file).collect()
}
