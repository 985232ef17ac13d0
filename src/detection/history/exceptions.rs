//! Writes a baseline as a rule file: exceptions that are appended to the rules that reported the recurring reads.
//!
//! Every value has two pairs of quotes. The outer ones are YAML's. The inner ones belong to the rule language: without them, a name that
//! equals the name of a list would be replaced by the content of the list. All other text from events is in comments, without characters
//! that end a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::baseline::{Criteria, MAX_DAYS, Proposal, Proposals, ReadTarget, Recurrence, Refusals};
use super::{BoundedSet, Times};
use crate::detection::audit::time;
use crate::detection::rules::ast::RuleSet;
use crate::text::escape::push_json_string;

/// Maximum length of a text in a comment, in characters.
const MAX_COMMENT_CHARS: usize = 100;

/// In nanoseconds.
const WEEK: i64 = 7 * 86_400_000_000_000;

/// Describes the origin of the file in its header.
#[derive(Clone, Debug)]
pub struct Header {
    /// Number and time span of the events or reads that were counted.
    pub log: Times,
    /// What was counted, in the plural.
    pub what: &'static str,
    pub criteria: Criteria,
}

pub fn write(proposals: &Proposals, rules: &RuleSet, header: &Header) -> String {
    let mut out = String::new();
    write_header(&mut out, proposals, header);
    for (&rule, recurrences) in &proposals.rules {
        let Some(rule) = rules.rules.get(rule) else { continue };
        out.push_str("\n- rule: ");
        out.push_str(&quoted(&rule.name));
        out.push_str("\n  exceptions:\n");
        let mut forms: BTreeMap<Form, Vec<(&Proposal, &Recurrence)>> = BTreeMap::new();
        for (proposal, recurrence) in recurrences {
            forms.entry(Form::of(proposal)).or_default().push((proposal, recurrence));
        }
        for (form, rows) in forms {
            let fields = form.fields();
            let _ = writeln!(out, "    - name: {}\n      fields: [{}]", form.name(), fields.join(", "));
            let _ = writeln!(out, "      comps: [{}in]", "=, ".repeat(fields.len() - 1));
            out.push_str("      values:\n");
            for (proposal, recurrence) in rows {
                write_row(&mut out, proposal, recurrence);
            }
        }
        out.push_str("  override: {exceptions: append}\n");
    }
    if proposals.rules.is_empty() {
        out.push_str("\n# No recurring read may become an exception.\n[]\n");
    }
    out
}

/// The fields that an exception compares: those for the identity and those for the object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Secret { impersonates: bool },
    Namespace { impersonates: bool },
    Cluster { impersonates: bool },
}

impl Form {
    fn of(proposal: &Proposal) -> Self {
        let impersonates = proposal.reader.impersonated.is_some();
        match proposal.what {
            ReadTarget::Secret { .. } => Form::Secret { impersonates },
            ReadTarget::Namespace(_) => Form::Namespace { impersonates },
            ReadTarget::Cluster => Form::Cluster { impersonates },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Form::Secret { impersonates: false } => "baseline_secret",
            Form::Secret { impersonates: true } => "baseline_secret_as",
            Form::Namespace { impersonates: false } => "baseline_namespace",
            Form::Namespace { impersonates: true } => "baseline_namespace_as",
            Form::Cluster { impersonates: false } => "baseline_cluster",
            Form::Cluster { impersonates: true } => "baseline_cluster_as",
        }
    }

    fn fields(self) -> Vec<&'static str> {
        let (Form::Secret { impersonates }
        | Form::Namespace { impersonates }
        | Form::Cluster { impersonates }) = self;
        // The actor is only equal to the user's name if no other user is impersonated.
        let mut fields =
            if impersonates { vec!["ka.user.name", "ka.impuser.name"] } else { vec!["audit.actor"] };
        fields.extend(["ka.verb", "registry.scope"]);
        match self {
            Form::Secret { .. } => fields.extend(["ka.target.namespace", "ka.target.name"]),
            Form::Namespace { .. } => fields.push("ka.target.namespace"),
            Form::Cluster { .. } => {}
        }
        // Without this field, a rule that also matches denied requests would not report them.
        fields.push("registry.exposure");
        fields
    }
}

fn write_row(out: &mut String, proposal: &Proposal, recurrence: &Recurrence) {
    let Times { count, first, last } = recurrence.times;
    let days = recurrence.days.len();
    let _ = writeln!(
        out,
        "        # {count} {} on {days} {}{}, {} to {}",
        if count == 1 { "read" } else { "reads" },
        if days == MAX_DAYS { "or more " } else { "" },
        if days == 1 { "day" } else { "days" },
        date(first),
        date(last)
    );
    let _ = writeln!(
        out,
        "        # from {}; agent {}",
        samples(&recurrence.clients),
        samples(&recurrence.agents)
    );
    let mut values = vec![proposal.reader.user.as_str()];
    values.extend(proposal.reader.impersonated.as_deref());
    values.push(&proposal.verb);
    match &proposal.what {
        ReadTarget::Secret { namespace, name } => values.extend(["secret", namespace, name]),
        ReadTarget::Namespace(namespace) => values.extend(["namespace", namespace]),
        ReadTarget::Cluster => values.push("cluster"),
    }
    let exposures: &[&str] = if proposal.is_handed_over { &["payload", "presumed"] } else { &["metadata"] };
    let _ = writeln!(out, "        - [{}, [{}]]", row(&values), row(exposures));
}

fn row(values: &[&str]) -> String {
    let values: Vec<String> = values.iter().map(|value| quoted(&format!("\"{value}\""))).collect();
    values.join(", ")
}

fn write_header(out: &mut String, proposals: &Proposals, header: &Header) {
    let Header { log, what, criteria } = header;
    let _ = write!(
        out,
        "\
# Recurring reads of registry credentials, as rule exceptions for review.
#
# Source: {} {what}, {} to {}.
# Proposed: reads that a rule reported at least {} times, on at least {} (UTC).
# Delete what should still be reported, commit the rest, and load the file after the same rules:
#
#   pullwatch scan --rules rules.d --rules THIS-FILE audit.log
#
# An exception fits one identity, one verb, and one secret, whole namespace or whole cluster (registry.scope), and
# nothing else. It fits names (metadata) only if only names were read, and never denied requests. Impersonated reads
# are excepted by both names. User agents and addresses are comments: a client can send any user agent, and addresses
# change. An attacker who was active before the log began looks like a recurring reader, so review every row. The inner
# quotes keep a name from being read as the name of a list.
#
# Never proposed: denied requests; anonymous reads; reads that a rule of priority error or higher reported; reads by people
# (user names that do not start with system:); reads by service accounts with interactive clients, since an exception would
# fit their stolen tokens; patches and deletions; names that cannot be repeated exactly; one name requested in all namespaces.
# What is routine by its profile needs no exception; `pullwatch readers trust` trusts a service account with more certainty.
#
",
        log.count,
        date(log.first),
        date(log.last),
        criteria.min_count,
        if criteria.min_days == 1 { "1 day".to_owned() } else { format!("{} different days", criteria.min_days) }
    );
    let span = log.last.unwrap_or_default().saturating_sub(log.first.unwrap_or_default());
    if span < WEEK {
        out.push_str("# This log spans less than a week. A longer log gives more reliable exceptions.\n#\n");
    }
    let Refusals { denied, anonymous, high_priority, person, by_hand, other_verb, name, too_many, rare } =
        proposals.refusals;
    let rows: usize = proposals.rules.values().map(BTreeMap::len).sum();
    let _ = writeln!(out, "# Proposed: {rows}. Not proposed, counted as reads:");
    for (count, why) in [
        (rare, "too rare (counted for each rule that reported them)"),
        (denied, "denied"),
        (anonymous, "anonymous"),
        (high_priority, "reported with priority error or higher"),
        (person, "by a person"),
        (by_hand, "by a service account with an interactive client"),
        (other_verb, "patch or deletion"),
        (name, "a name that cannot be repeated exactly, or one name in all namespaces"),
        (too_many, "beyond the limit of tracked reads"),
    ] {
        if count > 0 {
            let _ = writeln!(out, "#   {count} {why}");
        }
    }
    if [rare, denied, anonymous, high_priority, person, by_hand, other_verb, name, too_many] == [0; 9] {
        out.push_str("#   none\n");
    }
}

fn date(time: Option<i64>) -> String {
    time.map_or_else(|| "(unknown)".to_owned(), time::utc_seconds)
}

fn samples(set: &BoundedSet) -> String {
    let mut texts: Vec<String> = set.texts.iter().map(|text| comment(text)).collect();
    if set.has_more {
        texts.push("others".to_owned());
    }
    texts.join(", ")
}

/// Escapes a text of an event for a comment: no line ends, no cursor movement, nothing invisible.
fn comment(text: &str) -> String {
    let mut out = String::new();
    for (at, letter) in text.chars().enumerate() {
        if at == MAX_COMMENT_CHARS {
            out.push('…');
            break;
        }
        if letter == ' ' || letter == '…' || letter.is_ascii_graphic() || letter.is_alphanumeric() {
            out.push(letter);
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(letter));
        }
    }
    out
}

/// A YAML scalar with exactly this text. A JSON string is a double-quoted YAML scalar.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'\'';
    if text.bytes().all(is_plain) {
        return format!("'{text}'");
    }
    let mut out = Vec::new();
    push_json_string(text.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
