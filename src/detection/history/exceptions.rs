//! A baseline as a rule file: exceptions that are appended to the rules that reported what recurs.
//!
//! Every value stands in two pairs of quotes. The outer ones are YAML's. The inner ones are the rule language's: without
//! them a name that is also the name of a list would stand for all that the list holds. Whatever else comes from events
//! stands in comments, with nothing in it that ends a line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::baseline::{Criteria, MAX_DAYS, Proposal, Proposals, ReadTarget, Recurrence, Refusals};
use super::{BoundedSet, Times};
use crate::detection::audit::time;
use crate::detection::audit::time::Clock;
use crate::detection::rules::ast::RuleSet;
use crate::text::escape::push_json_string;

/// A text in a comment is cut to so many characters.
const MAX_COMMENT_CHARS: usize = 100;

/// In nanoseconds.
const WEEK: i64 = 7 * 86_400_000_000_000;

/// ReadTarget the file says of how it came about.
#[derive(Clone, Debug)]
pub struct Header {
    /// When what was seen begins and ends, and how much it is.
    pub log: Times,
    /// ReadTarget that is, in the plural.
    pub what: &'static str,
    /// ReadTarget was often enough.
    pub criteria: Criteria,
}

/// Writes the file.
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
        out.push_str("\n# Nothing recurs that may become an exception.\n[]\n");
    }
    out
}

/// The fields of an exception: what says who, and what says what.
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
        // The actor is the user's name only where nobody is impersonated.
        let mut fields =
            if impersonates { vec!["ka.user.name", "ka.impuser.name"] } else { vec!["audit.actor"] };
        fields.extend(["ka.verb", "registry.scope"]);
        match self {
            Form::Secret { .. } => fields.extend(["ka.target.namespace", "ka.target.name"]),
            Form::Namespace { .. } => fields.push("ka.target.namespace"),
            Form::Cluster { .. } => {}
        }
        // Compared with a list. Without it a rule that fires on whatever was asked for would keep silent of denied reads.
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
# Reads of registry credentials that recur, as exceptions for a person to review.
#
# From {} {what}, {} to {} (UTC). Proposed is what a rule reported at least
# {} times, on at least {} (UTC). Delete what should still be reported, commit the rest, and load it behind
# the same rules:
#
#   pullwatch scan --rules rules.d --rules THIS-FILE audit.log
#
# An exception fits one identity, one verb and one secret, or one whole namespace or cluster (registry.scope), and nothing
# else; only names (metadata) where only names were read, and never what is denied. Whoever impersonates as somebody else (impersonation) is excepted by both names. User agents and addresses are comments:
# a client can send any user agent, and addresses change. An attacker who was there before the log began looks like a
# habit: every row is worth a look. The inner quotes keep a name from being taken for that of a list.
#
# Never proposed: what was denied; what nobody in particular read (system:anonymous); what a rule calls an error or worse;
# lists and watches of the whole cluster by people (whose user name does not start with system:); patches and deletions;
# names that cannot be repeated exactly; a name that is asked for in all namespaces at once.
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
        out.push_str(
            "# This log spans less than a week: take a longer one before you call something a habit.\n#\n",
        );
    }
    let Refusals { denied, anonymous, high_priority, human_reads_cluster, other_verb, name, too_many, rare } =
        proposals.refusals;
    let rows: usize = proposals.rules.values().map(BTreeMap::len).sum();
    let _ = writeln!(out, "# Proposed: {rows}. Not proposed, counted as reads:");
    for (count, why) in [
        (rare, "too rare, by each rule that reported it"),
        (denied, "denied"),
        (anonymous, "anonymous"),
        (high_priority, "an error or worse"),
        (human_reads_cluster, "a person who reads the whole cluster"),
        (other_verb, "a patch or a deletion"),
        (name, "a name that cannot be repeated exactly, or a name in all namespaces"),
        (too_many, "too many different ones to be told apart"),
    ] {
        if count > 0 {
            let _ = writeln!(out, "#   {count} {why}");
        }
    }
    if [rare, denied, anonymous, high_priority, human_reads_cluster, other_verb, name, too_many] == [0; 8] {
        out.push_str("#   none\n");
    }
}

fn date(time: Option<i64>) -> String {
    time.map_or_else(|| "(unknown)".to_owned(), |time| time::format(Clock::DateTimeSeconds, time))
}

fn samples(set: &BoundedSet) -> String {
    let mut texts: Vec<String> = set.texts.iter().map(|text| comment(text)).collect();
    if set.has_more {
        texts.push("others".to_owned());
    }
    texts.join(", ")
}

/// A text of an event inside a comment: nothing in it ends the line, moves a cursor or cannot be seen.
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

/// A YAML scalar with exactly this text. JSON's strings are YAML's double-quoted ones.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'\'';
    if text.bytes().all(is_plain) {
        return format!("'{text}'");
    }
    let mut out = Vec::new();
    push_json_string(text.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
