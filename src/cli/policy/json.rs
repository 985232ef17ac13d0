//! The findings of a policy check as JSON.

use serde_json::{Value, json};

use super::findings::Findings;
use super::wording;
use crate::detection::policy::coverage::Cause;
use crate::detection::policy::requests::Request;

fn requests(requests: &[Request]) -> Value {
    requests
        .iter()
        .map(|request| {
            let mut value = json!({"verb": request.verb});
            if request.is_resource() {
                value["group"] = request.group.as_str().into();
                value["resource"] = request.target().into();
            } else {
                value["path"] = request.path.as_str().into();
            }
            value
        })
        .collect()
}

/// Returns the cause, the required level or stage, and the level that the policy sets.
fn cause(cause: Cause) -> Value {
    match cause {
        Cause::NotLogged(level) => json!({"cause": "not logged", "needs": level.name()}),
        Cause::Level(level, needs) => {
            json!({"cause": "level", "level": level.name(), "needs": needs.name()})
        }
        Cause::Stage(stage) => json!({"cause": "stage", "needs": stage.name()}),
        Cause::OnlyAtEnd => json!({"cause": "late", "needs": "ResponseStarted"}),
    }
}

pub fn findings(findings: &Findings) -> Value {
    let rules: Value = findings
        .coverage
        .iter()
        .map(|coverage| {
            let gaps: Value = coverage
                .gaps
                .iter()
                .map(|loss| {
                    let mut value = cause(loss.cause);
                    value["line"] = loss.line.into();
                    value["only"] = (!loss.only.is_empty()).then(|| loss.only.clone()).into();
                    value["requests"] = requests(&loss.requests);
                    value
                })
                .collect();
            let unknown: Value = coverage
                .unavailable
                .iter()
                .map(|unknown| {
                    json!({
                        "member": unknown.part.name(),
                        "line": unknown.line,
                        "fields": unknown.fields,
                        "requests": requests(&unknown.requests),
                    })
                })
                .collect();
            json!({
                "rule": &*coverage.rule,
                "tags": coverage.tags,
                "verdict": coverage.verdict.name(),
                "reasons": wording::reasons(coverage),
                "not_seen": gaps,
                "unknown": unknown,
                "reported_by": coverage.reported_by.iter().map(|rule| &**rule).collect::<Vec<_>>(),
            })
        })
        .collect();
    let tags: Value = findings
        .tags
        .iter()
        .map(|tag| {
            let names = |rules: &[std::sync::Arc<str>]| -> Vec<String> {
                rules.iter().map(ToString::to_string).collect()
            };
            json!({"tag": tag.name, "seeing": names(&tag.seeing), "blind": names(&tag.blind)})
        })
        .collect();
    let hidden: Value = findings
        .hidden
        .iter()
        .map(|hidden| {
            json!({
                "technique": hidden.name,
                "tag": hidden.tag,
                "visibility": hidden.visibility.name(),
                "line": hidden.line,
                "requests": requests(&hidden.requests),
            })
        })
        .collect();
    let written: Value = findings
        .written
        .iter()
        .map(|written| {
            json!({
                "writes": written.payload.name(),
                "level": written.level.name(),
                "line": written.line,
                "only": (!written.only.is_empty()).then(|| written.only.clone()),
                "requests": requests(&written.requests),
            })
        })
        .collect();
    let sizes: Value = findings
        .sizes
        .iter()
        .map(|big| {
            let most = big.size.max_bytes();
            let exceeds = |limit: u64| most.is_none_or(|most| most > limit);
            json!({
                "line": big.line,
                "max_object_bytes": most,
                "may_be_dropped": exceeds(findings.limits.largest),
                "may_be_truncated": exceeds(findings.limits.truncated),
                "requests": requests(&big.requests),
            })
        })
        .collect();
    json!({
        "policy": findings.name,
        "limits": {
            "audit_log_maxsize": findings.limits.largest,
            "truncate_max_event_size": findings.limits.truncated,
        },
        "rules": rules,
        "tags": tags,
        "techniques": hidden,
        "credentials_on_disk": written,
        "event_sizes": sizes,
    })
}
