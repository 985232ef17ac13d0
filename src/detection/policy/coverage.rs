//! Coverage: the requests that a rule could fire on, which of these requests a policy makes visible, and what is missing for the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::abstract_event::{self, HypotheticalEvent, Part};
use super::model::{Decision, Level, Policy, Stage};
use super::requests::{self, Request};
use super::rule_fields;
use super::scenarios::{Scenario, scenarios};
use super::tristate::Condition;
use crate::detection::rules::ast::{FieldRef, Rule, RuleSet};

/// Whether an audit policy logs enough for a rule to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It cannot fire.
    Blind,
    /// It only fires on some of its requests, or lacks fields that it reads.
    Partly,
    /// It could only fire if credentials were logged, which no policy should do. Other rules may report the same
    /// requests as presumed.
    Withheld,
    /// Everything that it needs is logged.
    Sees,
    /// It fires on no request, whatever the policy logs.
    Never,
}

impl Verdict {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Blind => "blind",
            Verdict::Partly => "partly",
            Verdict::Withheld => "withheld",
            Verdict::Sees => "sees",
            Verdict::Never => "never",
        }
    }
}

/// The reason why an event is not available to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// It is not logged; this level is needed.
    NotLogged(Level),
    /// It is logged at the first level; the second is needed.
    Level(Level, Level),
    /// The policy omits this stage.
    Stage(Stage),
    /// It is logged when the request ends, not when it starts.
    OnlyAtEnd,
}

/// Requests that a rule cannot see, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub cause: Cause,
    /// The deciding line of the policy; none if no rule of it matches.
    pub line: Option<usize>,
    /// The users, namespaces and names that this is limited to; empty if it applies to all.
    pub only: String,
    pub requests: Vec<Request>,
}

/// Fields that a rule reads and that its events lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// The part of the event that is not logged.
    pub part: Part,
    /// The deciding line of the policy; none if no rule of it matches.
    pub line: Option<usize>,
    pub fields: Vec<String>,
    pub requests: Vec<Request>,
}

/// What a policy makes visible to a rule.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// Name of the rule.
    pub rule: Arc<str>,
    /// Tags of the rule.
    pub tags: Vec<String>,
    /// How much of its requests it sees.
    pub verdict: Verdict,
    /// Requests that it fires on.
    pub fires: BTreeSet<Request>,
    /// Requests that it could fire on but cannot see.
    pub gaps: Vec<Gap>,
    /// Fields that its events lack.
    pub unavailable: Vec<Unavailable>,
    /// For a withheld rule, the rules that report the same requests as presumed; empty if some request is not reported at all.
    pub reported_by: Vec<Arc<str>>,
}

impl Coverage {
    /// Whether it fires on a request even though it reads the response, which is not logged.
    fn presumes(&self, request: &Request) -> bool {
        self.fires.contains(request)
            && self.unavailable.iter().any(|unavailable| {
                unavailable.part == Part::ResponseObject && unavailable.requests.contains(request)
            })
    }
}

/// A rule, compiled for evaluation over hypothetical events.
#[derive(Debug)]
pub struct Needs<'r> {
    pub rule: &'r Rule,
    /// The fields that the rule reads, each with whether its condition reads it, not just its output.
    pub fields: Vec<(&'r FieldRef, bool)>,
    literals: requests::Literals,
    condition: Condition,
}

impl<'r> Needs<'r> {
    pub fn new(rule: &'r Rule) -> Self {
        Needs {
            rule,
            fields: rule_fields::fields(rule),
            literals: rule_fields::literals(rule),
            condition: Condition::new(&rule.condition),
        }
    }

    /// Whether it can fire on an event.
    pub fn can_fire(&self, event: &HypotheticalEvent<'_>) -> bool {
        self.condition.evaluate(&|field| abstract_event::abstract_value(field, event)).can_hold()
    }

    /// The requests that it could fire on if everything were logged.
    pub fn requests(&self, policy: &Policy, catalog: &[Request]) -> Vec<Request> {
        let groups_of = |resource: &str| -> Vec<String> {
            let entries = policy.rules.iter().flat_map(|rule| &rule.resources);
            let mut groups: Vec<String> = entries
                .filter(|entry| entry.resources.iter().any(|one| one.split('/').next() == Some(resource)))
                .map(|entry| entry.group.clone())
                .collect();
            groups.sort_unstable();
            groups.dedup();
            groups
        };
        let named = requests::named(&self.literals, groups_of);
        let any = Scenario::any();
        let can_fire = |request: &&Request| !self.stages(request, &any, Level::RequestResponse).is_empty();
        catalog.iter().chain(&named).filter(can_fire).cloned().collect()
    }

    /// The scenarios of a request that the policy or the rule may distinguish.
    pub fn scenarios(&self, policy: &Policy, request: &Request) -> Vec<Scenario> {
        scenarios(policy, &self.literals, request)
    }

    /// The lowest level at which it can fire.
    fn lowest(&self, request: &Request, scenario: &Scenario) -> Level {
        [Level::Metadata, Level::Request]
            .into_iter()
            .find(|&level| !self.stages(request, scenario, level).is_empty())
            .unwrap_or(Level::RequestResponse)
    }

    /// The lowest level at which it can fire and has the fields of the client's object that it reads.
    pub fn level(&self, request: &Request, scenario: &Scenario) -> Level {
        let asks_for_body = self.stages(request, scenario, Level::Request).into_iter().any(|stage| {
            let event = HypotheticalEvent { request, scenario, stage, level: Level::Metadata };
            self.fields
                .iter()
                .any(|(field, _)| abstract_event::lacks(field, &event) == Some(Part::RequestObject))
        });
        let lowest = self.lowest(request, scenario);
        if asks_for_body { lowest.max(Level::Request) } else { lowest }
    }

    /// The stages at which it can fire if all of them are logged.
    pub fn stages(&self, request: &Request, scenario: &Scenario, level: Level) -> Vec<Stage> {
        request
            .stages()
            .filter(|&stage| self.can_fire(&HypotheticalEvent { request, scenario, stage, level }))
            .collect()
    }
}

/// Coverage of every enabled rule under a policy.
pub fn coverage(policy: &Policy, rules: &RuleSet) -> Vec<Coverage> {
    let catalog = requests::all();
    let enabled = rules.rules.iter().filter(|rule| rule.enabled);
    let mut all: Vec<Coverage> = enabled.map(|rule| of_rule(policy, &Needs::new(rule), &catalog)).collect();
    for index in 0..all.len() {
        if all[index].verdict == Verdict::Blind && is_withheld(&all[index]) {
            let lost: Vec<&Request> = all[index].gaps.iter().flat_map(|loss| &loss.requests).collect();
            let reported_by: Vec<Arc<str>> = all
                .iter()
                .filter(|other| lost.iter().any(|request| other.presumes(request)))
                .map(|other| other.rule.clone())
                .collect();
            let is_reported = lost.iter().all(|request| all.iter().any(|other| other.presumes(request)));
            all[index].verdict = Verdict::Withheld;
            all[index].reported_by = if is_reported { reported_by } else { Vec::new() };
        }
    }
    all
}

/// Whether the rule could only fire if credentials were logged.
fn is_withheld(coverage: &Coverage) -> bool {
    coverage.gaps.iter().all(|loss| {
        matches!(loss.cause, Cause::Level(_, needed) | Cause::NotLogged(needed)
            if loss.requests.iter().all(|request| request.payload(needed).is_some()))
    })
}

type Why = (Cause, Option<usize>, String);

/// Missing fields, and the requests that lack them.
type Missing = (BTreeSet<String>, BTreeSet<Request>);

/// Intermediate results about a rule.
#[derive(Default)]
struct Collected {
    gaps: BTreeMap<Why, BTreeSet<Request>>,
    unavailable: BTreeMap<(Part, Option<usize>), Missing>,
    fires: BTreeSet<Request>,
    could: bool,
}

fn of_rule(policy: &Policy, needs: &Needs<'_>, catalog: &[Request]) -> Coverage {
    let mut collected = Collected::default();
    for request in needs.requests(policy, catalog) {
        let ordinary = Scenario::ordinary(&request);
        let mut lost: Vec<(Cause, Option<usize>, Scenario)> = Vec::new();
        let mut scenarios = needs.scenarios(policy, &request);
        let is_possible =
            |scenario: &Scenario| !needs.stages(&request, scenario, Level::RequestResponse).is_empty();
        // A rule about users that the policy does not mention.
        if !scenarios.iter().any(is_possible) {
            scenarios.push(Scenario::any());
        }
        for scenario in scenarios {
            let wanted = needs.stages(&request, &scenario, Level::RequestResponse);
            if wanted.is_empty() {
                continue;
            }
            collected.could = true;
            let decision = policy.decide(&scenario.attributes(&request));
            if let Some((cause, line)) = loss(policy, needs, &request, &scenario, &wanted, &decision) {
                // A gap that applies to all users is not repeated for each.
                let is_said = lost.iter().any(|(known, at, wider)| {
                    (*known, *at) == (cause, line) && scenario.refines(wider, &ordinary)
                });
                if !is_said {
                    lost.push((cause, line, scenario.clone()));
                }
                if cause != Cause::OnlyAtEnd {
                    continue;
                }
            }
            collected.fires.insert(request.clone());
            let events = wanted.iter().map(|&stage| HypotheticalEvent {
                request: &request,
                scenario: &scenario,
                stage,
                level: decision.level,
            });
            let line = decision.rule.map(|rule| rule.line);
            for event in events.filter(|event| policy.omits(&decision, event.stage).is_none()) {
                for (field, _) in &needs.fields {
                    if let Some(part) = abstract_event::lacks(field, &event) {
                        let (fields, requests) = collected.unavailable.entry((part, line)).or_default();
                        fields.insert(field.to_string());
                        requests.insert(request.clone());
                    }
                }
            }
        }
        for (cause, line, scenario) in lost {
            let key = (cause, line, scenario.label(&request));
            collected.gaps.entry(key).or_default().insert(request.clone());
        }
    }
    finish(needs, collected)
}

/// The reason why a rule cannot fire on a request that it could fire on at the `wanted` stages.
fn loss(
    policy: &Policy,
    needs: &Needs<'_>,
    request: &Request,
    scenario: &Scenario,
    wanted: &[Stage],
    decision: &Decision<'_>,
) -> Option<(Cause, Option<usize>)> {
    let line = decision.rule.map(|rule| rule.line);
    if decision.level == Level::None {
        let best = needs.level(request, scenario);
        let level = if request.payload(best).is_some() { needs.lowest(request, scenario) } else { best };
        return Some((Cause::NotLogged(level), line));
    }
    let possible = needs.stages(request, scenario, decision.level);
    // A request that panics is not a way to see it, unless the rule is about panics.
    let waits = |stage: Stage| stage != Stage::Panic || wanted == [Stage::Panic];
    let omits = |stage: Stage| policy.omits(decision, stage);
    let omitted = possible.iter().find(|&&stage| waits(stage) && omits(stage).is_some());
    let first = possible.iter().find(|&&stage| waits(stage) && omits(stage).is_none());
    let is_started = |stage: &&Stage| **stage == Stage::ResponseStarted && omits(**stage).is_some();
    match (first, omitted) {
        (Some(&first), _) if first > Stage::ResponseStarted => {
            possible.iter().find(is_started).map(|&stage| (Cause::OnlyAtEnd, omits(stage)))
        }
        (Some(_), _) => None,
        (None, Some(&stage)) => Some((Cause::Stage(stage), omits(stage))),
        (None, None) if possible.is_empty() => {
            Some((Cause::Level(decision.level, needs.lowest(request, scenario)), line))
        }
        (None, None) => None,
    }
}

fn finish(needs: &Needs<'_>, collected: Collected) -> Coverage {
    let gaps: Vec<Gap> = collected
        .gaps
        .into_iter()
        .map(|((cause, line, only), requests)| Gap {
            cause,
            line,
            only,
            requests: requests.into_iter().collect(),
        })
        .collect();
    let unavailable: Vec<Unavailable> = collected
        .unavailable
        .into_iter()
        .map(|((part, line), (fields, requests))| Unavailable {
            part,
            line,
            fields: fields.into_iter().collect(),
            requests: requests.into_iter().collect(),
        })
        .collect();
    let verdict = match (collected.could, collected.fires.is_empty()) {
        (false, _) => Verdict::Never,
        (true, true) => Verdict::Blind,
        (true, false) if gaps.is_empty() && unavailable.is_empty() => Verdict::Sees,
        (true, false) => Verdict::Partly,
    };
    Coverage {
        rule: needs.rule.name.clone(),
        tags: needs.rule.tags.clone(),
        verdict,
        fires: collected.fires,
        gaps,
        unavailable,
        reported_by: Vec::new(),
    }
}
