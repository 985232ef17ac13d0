//! A policy that serves a rule set: each request at the lowest level at which the rules know what they ask for, and never
//! a credential on disk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::coverage::Needs;
use super::model::{Level, Policy, Stage};
use super::requests::{self, OTHER, Request, UNKNOWN_GROUP};
use super::scenarios::Scenario;
use crate::detection::rules::ast::RuleSet;
use crate::text::escape::is_disruptive;

/// What is asked all day and tells nothing, unless a rule asks for it.
const NOISE: &[(&str, &str)] =
    &[("", "events"), ("events.k8s.io", "events"), ("coordination.k8s.io", "leases")];
const NOISE_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/openapi/v2"];

/// Comments are wrapped here.
const WIDTH: usize = 110;

/// A rule about more kinds of objects than this is about all of them.
const MAX_TARGETS: usize = 25;

/// More rules than this are not named for one entry.
const MAX_NAMED_RULES: usize = 12;

/// What one kind of request needs, and for which rules.
#[derive(Default)]
struct Need {
    level: Option<Level>,
    rules: BTreeSet<Arc<str>>,
}

/// What is needed of requests, by group, resource with subresource, and verb.
type Wanted = BTreeMap<Request, Need>;

/// Groups and resources.
type Kinds = BTreeSet<(String, String)>;

/// Writes a policy for the rules that are on.
pub fn recommend(rules: &RuleSet) -> String {
    let catalogue = requests::all();
    let nothing = Policy::default();
    let mut wanted = Wanted::new();
    let mut general: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut received = false;
    for rule in rules.rules.iter().filter(|rule| rule.enabled) {
        let needs = Needs::new(rule);
        let requests = needs.requests(&nothing, &catalogue);
        let targets: BTreeSet<String> = requests.iter().map(Request::target).collect();
        let is_general = targets.len() > MAX_TARGETS;
        if is_general {
            general.insert(rule.name.clone());
        }
        for request in requests {
            let any = Scenario::any();
            received |= needs.stages(&request, &any, Level::RequestResponse) == [Stage::RequestReceived];
            let level = level(&needs, &request, &any);
            let need = wanted.entry(request).or_default();
            need.level = need.level.max(Some(level));
            if !is_general || level > Level::Metadata {
                need.rules.insert(rule.name.clone());
            }
        }
    }
    write(&wanted, &general, received, &catalogue)
}

/// The lowest level that does, without credentials on disk: whoever reads the log must not become a reader of them.
fn level(needs: &Needs<'_>, request: &Request, any: &Scenario) -> Level {
    if request.carries_payload() { Level::Metadata } else { needs.level(request, any) }
}

fn write(wanted: &Wanted, general: &BTreeSet<Arc<str>>, received: bool, catalogue: &[Request]) -> String {
    let mut out = String::new();
    comment(
        &mut out,
        "",
        "An audit policy that lets the loaded rules see what they ask for, and writes no credential to disk. Made by `pullwatch policy check --recommend`.",
    );
    out.push_str("#\n");
    comment(
        &mut out,
        "",
        "Give it to the kube-apiserver with --audit-policy-file. The first rule that matches a request decides, so the order counts.",
    );
    out.push_str("apiVersion: audit.k8s.io/v1\nkind: Policy\n");
    if !received {
        comment(
            &mut out,
            "",
            "No loaded rule asks for RequestReceived. ResponseStarted stays: it is when a watch is seen.",
        );
        out.push_str("omitStages: [RequestReceived]\n");
    }
    out.push_str("rules:\n");
    noise(&mut out, wanted);

    let serving = |requests: &mut dyn Iterator<Item = &Request>| -> BTreeSet<Arc<str>> {
        requests.filter_map(|request| wanted.get(request)).flat_map(|need| need.rules.clone()).collect()
    };
    let kinds = |requests: &mut dyn Iterator<Item = &Request>| -> Kinds {
        requests.map(|request| (request.group.clone(), request.target())).collect()
    };

    let carries = || catalogue.iter().filter(|request| request.carries_payload());
    let payloads = kinds(&mut carries());
    let is_payload = |request: &Request| payloads.contains(&(request.group.clone(), request.target()));
    comment(
        &mut out,
        "  ",
        "Credentials: who, when, which, from where, with what result. Never the content.",
    );
    let mut of_payloads = wanted.keys().filter(|request| is_payload(request));
    served(&mut out, &serving(&mut of_payloads));
    out.push_str("  - level: Metadata\n");
    write_resources(&mut out, &payloads);

    // The level and the verbs of each kind, then all kinds that have them in common.
    let mut by_kind: BTreeMap<(Level, String, String), BTreeSet<&str>> = BTreeMap::new();
    for (request, need) in wanted {
        let Some(level) = need.level.filter(|_| request.is_resource() && !is_payload(request)) else {
            continue;
        };
        if request.group == UNKNOWN_GROUP || need.rules.is_empty() {
            continue;
        }
        let verbs = by_kind.entry((level, request.group.clone(), request.target())).or_default();
        verbs.insert(&request.verb);
    }
    let mut entries: BTreeMap<(Reverse<Level>, Vec<&str>), Kinds> = BTreeMap::new();
    for ((level, group, target), verbs) in by_kind {
        let verbs: Vec<&str> = verbs.into_iter().collect();
        entries.entry((Reverse(level), verbs)).or_default().insert((group, target));
    }
    for ((Reverse(level), verbs), kinds) in &entries {
        out.push('\n');
        let what = match level {
            Level::RequestResponse => "What was sent and what was answered.",
            Level::Request => "What was sent; answers only repeat it.",
            _ => "Who, when, which.",
        };
        comment(&mut out, "  ", what);
        let mut of_entry = wanted.keys().filter(|request| {
            verbs.contains(&&*request.verb) && kinds.contains(&(request.group.clone(), request.target()))
        });
        served(&mut out, &serving(&mut of_entry));
        let verbs: Vec<String> = verbs.iter().map(|verb| scalar(verb)).collect();
        let _ = writeln!(out, "  - level: {level}\n    verbs: [{}]", verbs.join(", "));
        write_resources(&mut out, kinds);
    }

    let unknown: BTreeSet<String> = wanted
        .keys()
        .filter(|request| request.group == UNKNOWN_GROUP && request.resource != OTHER)
        .map(Request::target)
        .collect();
    out.push('\n');
    for target in unknown {
        comment(
            &mut out,
            "  ",
            &format!(
                "Rules ask for {target}, whose API group is not known here: add an entry of your own above."
            ),
        );
    }
    comment(&mut out, "  ", "All else: what no rule asks for today, an investigation asks for tomorrow.");
    served(&mut out, general);
    out.push_str("  - level: Metadata\n");
    out
}

/// Leaves out what is asked all day, as far as no rule asks for it.
fn noise(out: &mut String, wanted: &Wanted) {
    let is_wanted = |path: &str| wanted.keys().any(|request| request.path == path);
    let paths: Vec<&str> = NOISE_PATHS.iter().copied().filter(|path| !is_wanted(path)).collect();
    let kinds: Kinds = NOISE
        .iter()
        .filter(|(group, resource)| {
            !wanted.keys().any(|request| request.group == *group && request.resource == *resource)
        })
        .map(|(group, resource)| ((*group).to_owned(), (*resource).to_owned()))
        .collect();
    if paths.is_empty() && kinds.is_empty() {
        return;
    }
    comment(out, "  ", "What is asked all day and tells nothing. No loaded rule asks for it.");
    if !paths.is_empty() {
        let paths: Vec<String> = paths.iter().map(|path| format!("\"{path}*\"")).collect();
        let _ = writeln!(out, "  - level: None\n    nonResourceURLs: [{}]", paths.join(", "));
    }
    if !kinds.is_empty() {
        out.push_str("  - level: None\n");
        write_resources(out, &kinds);
    }
    out.push('\n');
}

fn served(out: &mut String, rules: &BTreeSet<Arc<str>>) {
    if rules.is_empty() {
        return;
    }
    let mut names: Vec<&str> = rules.iter().take(MAX_NAMED_RULES).map(|name| &**name).collect();
    let more = format!("{} more", rules.len().saturating_sub(MAX_NAMED_RULES));
    if rules.len() > MAX_NAMED_RULES {
        names.push(&more);
    }
    comment(out, "  ", &format!("For: {}.", names.join(", ")));
}

fn write_resources(out: &mut String, kinds: &Kinds) {
    out.push_str("    resources:\n");
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (group, target) in kinds {
        groups.entry(group).or_default().push(scalar(target));
    }
    for (group, targets) in groups {
        let _ = writeln!(
            out,
            "      - group: {}",
            if group.is_empty() { "\"\"".to_owned() } else { scalar(group) }
        );
        let mut line = String::from("        resources: [");
        let indent = line.len();
        for (index, target) in targets.iter().enumerate() {
            let end = if index + 1 == targets.len() { "]" } else { "," };
            if line.len() + target.len() + 2 > WIDTH && line.len() > indent {
                let _ = writeln!(out, "{}", line.trim_end());
                line = " ".repeat(indent);
            }
            let _ = write!(line, "{target}{end} ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// A text as YAML: plain where it is a plain word.
fn scalar(text: &str) -> String {
    let is_word = text.starts_with(|letter: char| letter.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"./-".contains(&byte))
        && !matches!(text, "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n");
    if is_word { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// A comment, wrapped. Names of rules may hold anything.
fn comment(out: &mut String, indent: &str, text: &str) {
    let mut line = format!("{indent}#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH && line.len() > indent.len() + 1 {
            let _ = writeln!(out, "{line}");
            line = format!("{indent}#");
        }
        line.push(' ');
        line.extend(word.chars().map(|letter| if is_disruptive(letter) { '\u{fffd}' } else { letter }));
    }
    let _ = writeln!(out, "{line}");
}
