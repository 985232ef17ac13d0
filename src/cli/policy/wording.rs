//! The sentences of a policy check.

use std::collections::BTreeMap;

use crate::detection::policy::coverage::{Cause, Gap, Unavailable};
use crate::detection::policy::requests::Request;
use crate::detection::policy::{Coverage, Level, Verdict};

/// Maximum number of resources named in one sentence.
const MAX_NAMED: usize = 6;

/// All verbs, in conventional order.
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// `get, list secrets; create pods/exec, pods/attach`
pub fn requests(requests: &[Request]) -> String {
    let mut by_target: Vec<(String, Vec<&str>)> = Vec::new();
    for request in requests {
        let target = request.target();
        match by_target.iter_mut().find(|(known, _)| *known == target) {
            Some((_, verbs)) => verbs.push(&request.verb),
            None => by_target.push((target, vec![&request.verb])),
        }
    }
    let mut by_verbs: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    let total = by_target.len();
    for (target, mut verbs) in by_target.into_iter().take(MAX_NAMED) {
        verbs.sort_by_key(|verb| VERBS.iter().position(|known| known == verb));
        verbs.dedup();
        match by_verbs.iter_mut().find(|(known, _)| *known == verbs) {
            Some((_, targets)) => targets.push(target),
            None => by_verbs.push((verbs, vec![target])),
        }
    }
    let mut text = by_verbs
        .into_iter()
        .map(|(verbs, targets)| {
            let verbs = if verbs == VERBS { "any verb on".to_owned() } else { verbs.join(", ") };
            format!("{verbs} {}", targets.join(", "))
        })
        .collect::<Vec<_>>()
        .join("; ");
    if total > MAX_NAMED {
        text.push_str(&["; and ", &(total - MAX_NAMED).to_string(), " more"].concat());
    }
    text
}

/// Refers to the policy rule that decides, as `line 7`.
pub fn decider(line: Option<usize>) -> String {
    line.map_or_else(|| "no rule of the policy".to_owned(), |line| format!("line {line}"))
}

/// Describes requests that a rule cannot see, and the remedy.
pub fn gap(gap: &Gap) -> String {
    let mut what = requests(&gap.requests);
    if !gap.only.is_empty() {
        what = format!("{what}, not {}", gap.only);
    }
    let is_payload = |level: Level| gap.requests.iter().any(|request| request.payload(level).is_some());
    match (gap.cause, gap.line) {
        (Cause::NotLogged(level), line) => {
            let why = line.map_or_else(
                || "no rule of the policy matches, so nothing is logged".to_owned(),
                |line| format!("line {line} sets level None"),
            );
            match line {
                _ if is_payload(level) => {
                    format!(
                        "{what}: {why}; this rule requires {level}. Not recommended: it would write credentials to disk"
                    )
                }
                Some(_) => format!("{what}: {why}; add a rule with level {level} before it"),
                None => format!("{what}: {why}; add a rule with level {level}"),
            }
        }
        (Cause::Level(logged, needed), line) if is_payload(needed) => format!(
            "{what}: {} logs at level {logged}; this rule requires {needed}. Not recommended: it would write credentials to disk",
            decider(line)
        ),
        (Cause::Level(logged, needed), line) => {
            format!("{what}: {} logs at level {logged}; this rule requires {needed}", decider(line))
        }
        (Cause::Stage(stage), line) => {
            format!("{what}: {} omits stage {stage}, which this rule requires; do not omit it", decider(line))
        }
        (Cause::OnlyAtEnd, line) => {
            format!(
                "{what}: detected only when the request ends, because {} omits stage ResponseStarted; do not omit it",
                decider(line)
            )
        }
    }
}

/// Describes fields of a rule that are not logged.
pub fn unknown(unknown: &Unavailable) -> String {
    let (fields, what) = (unknown.fields.join(", "), requests(&unknown.requests));
    let (line, part, level) = (capital(&decider(unknown.line)), unknown.part.name(), unknown.part.level());
    if unknown.requests.iter().any(|request| request.payload(level).is_some()) {
        return format!(
            "fields presumed or unavailable for `{what}`: {fields}. {line} does not log the {part}, and therefore no credentials"
        );
    }
    format!("fields unavailable for `{what}`: {fields}. {line} does not log the {part}; level {level} does")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

/// Merges gaps that only differ in the users that they apply to.
fn merged(gaps: &[Gap]) -> Vec<Gap> {
    let mut merged: Vec<(Gap, usize)> = Vec::new();
    for gap in gaps {
        let is_alike = |(known, _): &&mut (Gap, usize)| {
            !gap.only.is_empty()
                && !known.only.is_empty()
                && (known.cause, known.line) == (gap.cause, gap.line)
                && known.requests == gap.requests
        };
        match merged.iter_mut().find(is_alike) {
            Some((known, count)) => {
                *count += 1;
                if *count <= MAX_NAMED {
                    known.only = [known.only.as_str(), &gap.only].join("; ");
                }
            }
            None => merged.push((gap.clone(), 1)),
        }
    }
    let finish = |(mut gap, count): (Gap, usize)| {
        if count > MAX_NAMED {
            gap.only = format!("{}; and {} more", gap.only, count - MAX_NAMED);
        }
        gap
    };
    merged.into_iter().map(finish).collect()
}

/// Returns the reasons for a rule's verdict, one per line.
pub fn reasons(coverage: &Coverage) -> Vec<String> {
    match coverage.verdict {
        Verdict::Never => vec!["its condition is false for every request under any policy".to_owned()],
        Verdict::Withheld if coverage.reported_by.is_empty() => {
            let mut reasons = vec!["disabled by design: can only fire if credentials are logged".to_owned()];
            reasons.extend(coverage.gaps.iter().map(gap));
            reasons
        }
        Verdict::Withheld => {
            let others = coverage.reported_by.join(", ");
            vec![format!(
                "disabled by design: can only fire if credentials are logged; reported as presumed by: {others}"
            )]
        }
        Verdict::Sees | Verdict::Partly | Verdict::Blind => {
            merged(&coverage.gaps).iter().map(gap).chain(coverage.unavailable.iter().map(unknown)).collect()
        }
    }
}

/// Formats a size: `102400 bytes`, `3.5 MiB`.
pub fn bytes(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes < MIB {
        return format!("{bytes} bytes");
    }
    let tenths = u128::from(bytes) * 10 / u128::from(MIB);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} MiB"),
        (whole, tenth) => format!("{whole}.{tenth} MiB"),
    }
}

/// Returns the number of rules by verdict.
pub fn by_verdict(coverage: &[Coverage]) -> BTreeMap<Verdict, usize> {
    let mut counts = BTreeMap::new();
    for one in coverage {
        *counts.entry(one.verdict).or_insert(0) += 1;
    }
    counts
}
