//! Findings in words.

use std::collections::BTreeMap;

use crate::detection::policy::coverage::{Cause, Gap, Unavailable};
use crate::detection::policy::requests::Request;
use crate::detection::policy::{Coverage, Level, Verdict};

/// So many kinds of objects are named in one sentence.
const MOST_NAMED: usize = 6;

/// The verbs, in the order in which people think of them.
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
    for (target, mut verbs) in by_target.into_iter().take(MOST_NAMED) {
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
    if total > MOST_NAMED {
        text.push_str(&["; and ", &(total - MOST_NAMED).to_string(), " more"].concat());
    }
    text
}

/// `line 7`, or that there is none.
pub fn decider(line: Option<usize>) -> String {
    line.map_or_else(|| "no rule of the policy".to_owned(), |line| format!("line {line}"))
}

/// What a rule does not see, and what to do about it.
pub fn loss(loss: &Gap) -> String {
    let mut what = requests(&loss.requests);
    if !loss.only.is_empty() {
        what = format!("{what}, not {}", loss.only);
    }
    let is_payload = |level: Level| loss.requests.iter().any(|request| request.payload(level).is_some());
    match (loss.cause, loss.line) {
        (Cause::NotLogged(level), line) => {
            let why = line.map_or_else(
                || "no rule of the policy matches, so nothing is logged".to_owned(),
                |line| format!("line {line} logs nothing of it"),
            );
            match line {
                _ if is_payload(level) => {
                    format!("{what}: {why}. It takes {level}, credentials on disk: better leave it")
                }
                Some(_) => format!("{what}: {why}; put a rule with level {level} above"),
                None => format!("{what}: {why}; add one with level {level}"),
            }
        }
        (Cause::Level(logged, needed), line) if is_payload(needed) => format!(
            "{what}: {} logs {logged}, and it takes {needed}. That is credentials on disk: better leave it",
            decider(line)
        ),
        (Cause::Level(logged, needed), line) => {
            format!("{what}: {} logs {logged}; it takes {needed}", decider(line))
        }
        (Cause::Stage(stage), line) => {
            format!("{what}: {} omits {stage}, which it waits for; leave that stage in", decider(line))
        }
        (Cause::OnlyAtEnd, line) => {
            format!(
                "{what}: seen when it ends, as {} omits ResponseStarted; leave that stage in",
                decider(line)
            )
        }
    }
}

/// What a rule asks for and is not logged.
pub fn unknown(unknown: &Unavailable) -> String {
    let (fields, what) = (unknown.fields.join(", "), requests(&unknown.requests));
    let (line, part, level) = (capital(&decider(unknown.line)), unknown.part.name(), unknown.part.level());
    if unknown.requests.iter().any(|request| request.payload(level).is_some()) {
        return format!(
            "presumed or unknown of {what}: {fields}. {line} logs no {part}, and so no credential"
        );
    }
    format!("unknown of {what}: {fields}. {line} logs no {part}; it takes {level}")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

/// Losses that differ only in whom they are of, as one.
fn merged(gaps: &[Gap]) -> Vec<Gap> {
    let mut merged: Vec<(Gap, usize)> = Vec::new();
    for loss in gaps {
        let is_alike = |(known, _): &&mut (Gap, usize)| {
            !loss.only.is_empty()
                && !known.only.is_empty()
                && (known.cause, known.line) == (loss.cause, loss.line)
                && known.requests == loss.requests
        };
        match merged.iter_mut().find(is_alike) {
            Some((known, count)) => {
                *count += 1;
                if *count <= MOST_NAMED {
                    known.only = [known.only.as_str(), &loss.only].join("; ");
                }
            }
            None => merged.push((loss.clone(), 1)),
        }
    }
    let finish = |(mut loss, count): (Gap, usize)| {
        if count > MOST_NAMED {
            loss.only = format!("{}; and {} more", loss.only, count - MOST_NAMED);
        }
        loss
    };
    merged.into_iter().map(finish).collect()
}

/// All that is to be said of a rule, a line each.
pub fn reasons(coverage: &Coverage) -> Vec<String> {
    match coverage.verdict {
        Verdict::Never => vec!["its condition holds for no request, whatever the policy".to_owned()],
        Verdict::Withheld if coverage.reported_by.is_empty() => {
            let mut reasons = vec!["only credentials on disk would let it fire".to_owned()];
            reasons.extend(coverage.gaps.iter().map(loss));
            reasons
        }
        Verdict::Withheld => {
            let others = coverage.reported_by.join(", ");
            vec![format!("only credentials on disk would let it fire; reported, as presumed, by: {others}")]
        }
        Verdict::Sees | Verdict::Partly | Verdict::Blind => {
            merged(&coverage.gaps).iter().map(loss).chain(coverage.unavailable.iter().map(unknown)).collect()
        }
    }
}

/// Bytes for people: `102400 bytes`, `3.0 MiB`.
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

/// How many rules see how well, by verdict.
pub fn by_verdict(coverage: &[Coverage]) -> BTreeMap<Verdict, usize> {
    let mut counts = BTreeMap::new();
    for one in coverage {
        *counts.entry(one.verdict).or_insert(0) += 1;
    }
    counts
}
