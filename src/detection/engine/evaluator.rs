//! Evaluation of rules, one event at a time.
//!
//! Takes a [`Plan`] and an event, returns the indices of the rules that match. The most decisive members ([`HEAD`](super::plan::HEAD)) are
//! evaluated first: for each combination of their values the [`Evaluator`] caches the residual conditions of all rules, which are empty for
//! most events. Only events with a residual rule are read further. No event and no value outlives its buffer.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::alert_context::AlertContext;
use super::extract::{InputContext, View};
use super::plan::{
    Basis, ComparisonId, ComparisonPlan, ConditionPlan, OperandId, OperandPlan, Plan, RightPlan,
};
use super::prefilter::Guards;
use super::value::{Redacted, Value};
use super::{compare, transform};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::json::Raw;
use crate::detection::audit::redact::{Redactor, ShowList};
use crate::detection::audit::time;
use crate::detection::registry::{self, ClusterState, Exposure, ExposureKind, OrderDependency, RequestInfo};
use crate::detection::rules::fields::{ClientNodeField, Correlation, ExposureField, ReaderField, Registry};
use crate::text::escape::MAX_SHOWN_LEN;
use crate::text::timespan;

/// The rules that an event with a certain head can still match.
#[derive(Debug)]
pub struct ResidualRules {
    rules: Box<[Residual]>,
    /// Whether events with this head depend on the order of the input.
    pub order_dependency: OrderDependency,
    /// Whether only the first matching rule counts.
    first: bool,
}

impl ResidualRules {
    /// Appends the indices (in the plan) of the matching rules to `matches`.
    pub fn evaluate(&self, eval: &mut EvalContext<'_, '_, '_>, guards: &Guards, matches: &mut Vec<usize>) {
        let mut guarded = guards.over(eval.event.available_text());
        for residual in &self.rules {
            if !guarded.admits(residual.rule) {
                continue;
            }
            if eval.holds(&residual.condition) {
                matches.push(residual.rule);
                if self.first {
                    return;
                }
            }
        }
    }
}

/// The condition of a rule after partial evaluation with the head of an event.
#[derive(Debug)]
struct Residual {
    /// Index of the rule in the plan.
    rule: usize,
    condition: ConditionPlan,
}

/// Maximum number of cached heads. A cluster has a few hundred; more are made up by an attacker, and clear the cache.
const MAX_HEADS: usize = 2048;

/// Longer heads are not cached, in bytes.
const MAX_HEAD_LEN: usize = 512;

/// Values of operands and results of comparisons for the current event. They borrow from its text; one cache serves all
/// events of a buffer.
#[derive(Debug)]
pub struct EvalCache<'e> {
    /// Number of the current event. Entries with a lower number belong to an earlier event and are stale.
    number: u64,
    results: Vec<(u64, bool)>,
    values: Vec<(u64, Value<'e>)>,
    /// Redacted values of fields, for rules that exempt nothing from redaction.
    redacted: Vec<(u64, Value<'e>)>,
    exposure: (u64, Rc<Exposure>),
    request: (u64, Rc<RequestInfo<'e>>),
}

impl EvalCache<'_> {
    /// Creates a cache for the operands and comparisons of a plan.
    pub fn new(plan: &Plan) -> Self {
        let stale = || (0..plan.operands.len()).map(|_| (0, Value::Missing)).collect();
        EvalCache {
            number: 1,
            results: vec![(0, false); plan.comparisons.len()],
            values: stale(),
            redacted: stale(),
            exposure: (0, Rc::default()),
            request: (0, Rc::default()),
        }
    }

    /// Creates a cache for an event whose objects are no longer available, with its known exposure.
    pub fn with_exposure(plan: &Plan, exposure: Rc<Exposure>) -> Self {
        let mut cache = EvalCache::new(plan);
        cache.exposure = (cache.number, exposure);
        cache
    }

    /// Invalidates the entries of the current event.
    #[inline]
    pub fn next_event(&mut self) {
        self.number += 1;
    }
}

/// Everything that the evaluation of one event needs.
pub struct EvalContext<'p, 's, 'e> {
    pub plan: &'p Plan,
    pub cache: &'s mut EvalCache<'e>,
    pub event: &'s mut Event<'e>,
    pub input: InputContext<'p>,
    /// State learned from earlier events; `None` for an event that does not depend on it.
    pub cluster_state: Option<&'s mut ClusterState>,
    /// Summary of the window, if the alert is that of a correlation; `None` for a rule.
    pub window: Option<Rc<WindowSummary>>,
}

/// Summary of the window of a correlation, for its alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowSummary {
    /// Number of matches.
    pub count: u64,
    /// Number of distinct values of the condition's field.
    pub value_count: u64,
    /// A bounded sample of these values.
    pub values: Vec<String>,
    /// Time of the first match, in nanoseconds since 1970.
    pub first: i64,
    /// Time of the last match, in nanoseconds since 1970.
    pub last: i64,
    /// Names of the rules that matched.
    pub rules: Vec<String>,
    /// Ids of the latest alerts, bounded.
    pub ids: Vec<String>,
    /// Length of the window, in nanoseconds.
    pub timespan: i64,
}

impl WindowSummary {
    fn value(&self, part: Correlation) -> Value<'static> {
        let number = |number: u64| Value::Number(i64::try_from(number).unwrap_or(i64::MAX));
        let text = |text: String| Value::Text(Cow::Owned(text.into_bytes()));
        let list = |texts: &[String]| {
            Value::list(texts.iter().map(|text| Cow::Owned(text.clone().into_bytes())).collect())
        };
        match part {
            Correlation::Count => number(self.count),
            Correlation::ValueCount => number(self.value_count),
            Correlation::Values => list(&self.values),
            Correlation::First => text(time::utc_seconds(self.first)),
            Correlation::Last => text(time::utc_seconds(self.last)),
            Correlation::Rules => list(&self.rules),
            Correlation::Timespan => text(timespan::format(self.timespan)),
        }
    }
}

impl<'e> EvalContext<'_, '_, 'e> {
    /// Evaluates a condition.
    #[inline]
    pub fn holds(&mut self, node: &ConditionPlan) -> bool {
        match node {
            ConditionPlan::Constant(value) => *value,
            ConditionPlan::Comparison(comparison) => self.passes(*comparison),
            ConditionPlan::Not(inner) => !self.holds(inner),
            ConditionPlan::All(nodes) => nodes.iter().all(|node| self.holds(node)),
            ConditionPlan::Any(nodes) => nodes.iter().any(|node| self.holds(node)),
        }
    }

    /// Evaluates a comparison.
    pub fn passes(&mut self, comparison: ComparisonId) -> bool {
        let (number, result) = self.cache.results[comparison];
        if number == self.cache.number {
            return result;
        }
        let plan = self.plan;
        let left = plan.comparisons[comparison].left;
        self.load(left);
        let result = match &plan.comparisons[comparison].right {
            RightPlan::Constant(compare) => compare.passes(&self.cache.values[left].1),
            RightPlan::Operand(operator, right) => {
                self.load(*right);
                compare::values(*operator, &self.cache.values[left].1, &self.cache.values[*right].1)
            }
        };
        self.cache.results[comparison] = (self.cache.number, result);
        result
    }

    /// Returns the value of an operand as conditions see it.
    pub fn value(&mut self, operand: OperandId) -> &Value<'e> {
        self.load(operand);
        &self.cache.values[operand].1
    }

    /// Reads the value of an operand into the cache.
    fn load(&mut self, operand: OperandId) {
        if self.cache.values[operand].0 == self.cache.number {
            return;
        }
        let plan = self.plan;
        let value = match &plan.operands[operand] {
            OperandPlan::Field(reader) => reader.read(self.event, &self.input, View::Full),
            OperandPlan::Exposure(part) => exposed(*part, &self.exposure()),
            OperandPlan::Registry(part) => self.registry(*part),
            OperandPlan::Reader(part) => self.reader(*part),
            OperandPlan::ClientNode(part) => self.client_node(*part),
            // Only outputs of correlations have these fields, never a condition.
            OperandPlan::Correlation(_) => Value::Missing,
            OperandPlan::Text(text) => Value::Text(text.to_vec().into()),
            OperandPlan::Call(transformer, arguments, option) => {
                // The arguments of a call have smaller ids, so the recursion ends.
                for &argument in arguments {
                    self.load(argument);
                }
                let values: Vec<&Value<'e>> =
                    arguments.iter().map(|&argument| &self.cache.values[argument].1).collect();
                transform::apply(*transformer, &values, option.as_deref())
            }
        };
        self.cache.values[operand] = (self.cache.number, value);
    }

    /// Returns the redacted value of an operand, for an output that shows these paths.
    pub fn redacted(&mut self, operand: OperandId, show: &ShowList) -> Redacted<'e> {
        Redacted::trusted(self.redacted_value(operand, show))
    }

    /// Returns the event as compact JSON of at most about `limit` bytes, redacted except for the paths in the list.
    pub fn redacted_event(&mut self, show: &ShowList, limit: usize) -> Vec<u8> {
        let redactor = Redactor::new(&self.plan.redaction_key, show);
        redactor.json(redactor.event(), Raw::assume(self.event.bytes()), limit)
    }

    fn redacted_value(&mut self, operand: OperandId, show: &ShowList) -> Value<'e> {
        let plan = self.plan;
        match &plan.operands[operand] {
            // Cached, or useful for the next matching rule.
            OperandPlan::Field(reader) if reader.is_never_redacted() && self.is_short(operand) => {
                self.cache.values[operand].1.clone()
            }
            OperandPlan::Field(reader) => {
                let (number, known) = &self.cache.redacted[operand];
                if *number == self.cache.number && show.is_empty() {
                    return known.clone();
                }
                let redactor = Redactor::new(&plan.redaction_key, show);
                let value = reader.read(self.event, &self.input, View::Redacted(redactor));
                if show.is_empty() {
                    self.cache.redacted[operand] = (self.cache.number, value.clone());
                }
                value
            }
            // Names, some of which a client can choose.
            OperandPlan::Exposure(_)
            | OperandPlan::Registry(_)
            | OperandPlan::Reader(_)
            | OperandPlan::ClientNode(_) => {
                let redactor = Redactor::new(&plan.redaction_key, show);
                self.value(operand).clone().map_texts(|text| redactor.name(text))
            }
            OperandPlan::Correlation(part) => {
                self.window.as_ref().map_or(Value::Missing, |window| window.value(*part))
            }
            OperandPlan::Text(text) => Value::Text(text.to_vec().into()),
            OperandPlan::Call(transformer, arguments, option) => {
                let values: Vec<Value<'e>> =
                    arguments.iter().map(|&argument| self.redacted_value(argument, show)).collect();
                let values: Vec<&Value<'e>> = values.iter().collect();
                transform::apply(*transformer, &values, option.as_deref())
            }
        }
    }

    /// Returns the registry credentials that the event exposed, determined once per event.
    pub fn exposure(&mut self) -> Rc<Exposure> {
        if self.cache.exposure.0 != self.cache.number {
            let request = self.request();
            let exposure = match self.cluster_state.as_deref_mut() {
                Some(cluster_state) => {
                    registry::observe(self.event, &request, &self.plan.names, cluster_state)
                }
                None => Exposure::of(self.event, &request, &self.plan.names, None),
            };
            self.cache.exposure = (self.cache.number, Rc::new(exposure));
        }
        self.cache.exposure.1.clone()
    }

    /// Returns what all alerts of the event share.
    pub fn alert_context(&mut self) -> AlertContext<'e> {
        let exposure = self.exposure();
        let context = AlertContext::new(self.event, exposure, &self.plan.redaction_key, self.plan.limits);
        // Only members that a rule has read already: reading it records that a long-running request was seen.
        let referenced = self.plan.operands.iter().enumerate().find_map(|(operand, plan)| {
            let (number, value) = &self.cache.values[operand];
            let is_referenced = matches!(plan, OperandPlan::Registry(Registry::Referenced));
            (is_referenced && *number == self.cache.number).then_some(value)
        });
        match referenced {
            Some(value) => context.with_referenced(value.texts()),
            None => context,
        }
    }

    /// The request of the event, which is parsed once.
    pub fn request(&mut self) -> Rc<RequestInfo<'e>> {
        if self.cache.request.0 != self.cache.number {
            self.cache.request = (self.cache.number, Rc::new(RequestInfo::of(self.event)));
        }
        self.cache.request.1.clone()
    }

    fn registry(&mut self, part: Registry) -> Value<'static> {
        let list = |texts: Vec<String>| {
            Value::list(texts.into_iter().map(|text| Cow::Owned(text.into_bytes())).collect())
        };
        let word = |word: &'static str| Value::Text(word.as_bytes().into());
        let text = |text: Option<String>| {
            text.map_or(Value::Missing, |text| Value::Text(Cow::Owned(text.into_bytes())))
        };
        let names = &self.plan.names;
        let request = self.request();
        let cluster_state = self.cluster_state.as_deref_mut();
        match part {
            Registry::ByType => {
                word(if registry::selects_credential_types(self.event) { "true" } else { "false" })
            }
            Registry::OwnDeletion => {
                let is_own = registry::is_of_own_deletion(self.event, &request, cluster_state);
                word(if is_own { "true" } else { "false" })
            }
            Registry::Target => text(registry::named_secret(&request)),
            Registry::Copied => list(registry::copied_configuration_keys(self.event, &request)),
            Registry::Copies => list(registry::copies(self.event, &request, cluster_state)),
            Registry::ImageHosts => list(registry::image_hosts(self.event)),
            Registry::Referenced => {
                list(registry::referenced_credentials(self.event, &request, names, cluster_state))
            }
            Registry::Named => {
                list(registry::named_by_custom_resource(self.event, &request, names, cluster_state))
            }
            Registry::Granted => list(registry::granted_verbs(self.event, &request, cluster_state)),
            Registry::Privileges => list(registry::privileges(self.event, &request, cluster_state)),
            Registry::Role => text(registry::bound_role(self.event, &request)),
            Registry::RoleKnown => registry::is_role_known(self.event, &request, cluster_state)
                .map_or(Value::Missing, |is_known| word(if is_known { "true" } else { "false" })),
            Registry::CertificateUser => text(registry::certificate_user(self.event, &request)),
            Registry::Subjects => list(registry::subjects(self.event, &request, cluster_state)),
            Registry::AggregatedInto => {
                let roles = registry::aggregated_into(self.event, &request);
                list(roles.into_iter().map(str::to_owned).collect())
            }
            Registry::PullSecrets => list(registry::pull_secrets(self.event)),
            Registry::HostPaths => list(registry::mounted_host_paths(self.event)),
            Registry::HostPrivileges => list(registry::host_privileges(self.event, &request, cluster_state)),
            Registry::Replicated => list(registry::replicated(self.event, &request)),
            Registry::Emptied => {
                word(if registry::is_emptied(self.event, &request) { "true" } else { "false" })
            }
            Registry::CloudIdentities => list(registry::cloud_identities(self.event, &request)),
            Registry::KubeletPath => text(registry::kubelet_path(self.event, &request, cluster_state)),
            Registry::DryRun => word(request.dry_run()),
            Registry::Evicted => list(cluster_state.map(|state| state.evicted_now()).unwrap_or_default()),
            Registry::PodSecurity => registry::pod_security_change(self.event, &request, cluster_state)
                .map_or(Value::Missing, word),
        }
    }

    /// How the read of the event compares with the profile of its identity; missing for all other events.
    fn reader(&mut self, part: ReaderField) -> Value<'static> {
        // Determined together with the exposure, before any rule is evaluated.
        self.exposure();
        let Some(assessment) = self.cluster_state.as_deref().and_then(ClusterState::reader) else {
            return Value::Missing;
        };
        // Of a request that failed, only the client is compared.
        let is_client = matches!(part, ReaderField::NewClient | ReaderField::Program | ReaderField::Network);
        if assessment.has_failed && !is_client {
            return Value::Missing;
        }
        let word = |word: &'static str| Value::Text(word.as_bytes().into());
        let boolean = |holds: bool| word(if holds { "true" } else { "false" });
        let text = |text: &Option<String>| {
            text.as_ref().map_or(Value::Missing, |text| Value::Text(Cow::Owned(text.clone().into_bytes())))
        };
        let list = |texts: Vec<String>| {
            Value::list(texts.into_iter().map(|text| Cow::Owned(text.into_bytes())).collect())
        };
        match part {
            ReaderField::Status => word(assessment.status.name()),
            ReaderField::IsNew => boolean(assessment.is_new),
            ReaderField::NewVerb => text(&assessment.new_verb),
            ReaderField::NewScope => text(&assessment.new_scope),
            ReaderField::NewProgram => text(&assessment.new_program),
            ReaderField::NewClient => text(&assessment.new_client),
            ReaderField::NewCredential => list(assessment.new_credentials.clone()),
            ReaderField::Deviation => list(assessment.deviations()),
            ReaderField::Repeats => Value::Number(assessment.repeats.into()),
            ReaderField::DaysSeen => Value::Number(assessment.days_seen.into()),
            ReaderField::Trusted => boolean(assessment.is_trusted()),
            ReaderField::Program => text(&assessment.program),
            ReaderField::Scope => Value::Text(Cow::Owned(assessment.scope.clone().into_bytes())),
            ReaderField::Network => text(&assessment.network),
            ReaderField::Controller => assessment.controller.map_or(Value::Missing, word),
            ReaderField::UsedOnNode => assessment.used_on_node.map_or(Value::Missing, boolean),
        }
    }

    /// The node that the client runs on.
    fn client_node(&mut self, part: ClientNodeField) -> Value<'static> {
        // Determined together with the exposure, before any rule is evaluated.
        self.exposure();
        let Some(client) = self.cluster_state.as_deref().map(ClusterState::client_node) else {
            return Value::Missing;
        };
        match (part, &client.name, client.is_own) {
            (ClientNodeField::Name, Some(name), _) => Value::Text(Cow::Owned(name.clone().into_bytes())),
            (ClientNodeField::IsOwn, _, Some(true)) => Value::Text(b"true".into()),
            (ClientNodeField::IsOwn, _, Some(false)) => Value::Text(b"false".into()),
            _ => Value::Missing,
        }
    }

    fn is_short(&mut self, operand: OperandId) -> bool {
        self.value(operand).texts().iter().all(|text| text.len() <= MAX_SHOWN_LEN)
    }

    /// Partially evaluates a condition: replaces the comparisons that the known members decide by their results.
    fn reduce(&mut self, node: &ConditionPlan, known: Known) -> ConditionPlan {
        match node {
            ConditionPlan::Constant(value) => ConditionPlan::Constant(*value),
            ConditionPlan::Comparison(comparison) => self
                .decide(*comparison, known)
                .map_or(ConditionPlan::Comparison(*comparison), ConditionPlan::Constant),
            ConditionPlan::Not(inner) => match self.reduce(inner, known) {
                ConditionPlan::Constant(value) => ConditionPlan::Constant(!value),
                residual => ConditionPlan::Not(Box::new(residual)),
            },
            ConditionPlan::All(nodes) => self.reduce_all(nodes, known, false, ConditionPlan::All),
            ConditionPlan::Any(nodes) => self.reduce_all(nodes, known, true, ConditionPlan::Any),
        }
    }

    /// The result of a comparison that the known members decide. Only these are read, so that the anomalies found later in an event do not
    /// depend on the events before it.
    fn decide(&mut self, comparison: ComparisonId, known: Known) -> Option<bool> {
        let ComparisonPlan { right, basis, .. } = &self.plan.comparisons[comparison];
        match (basis, right) {
            (Basis::Stage, _) => Some(self.passes(comparison)),
            (Basis::Head, _) if known == Known::Head => Some(self.passes(comparison)),
            (Basis::Exposure, RightPlan::Constant(compare)) if !registry::is_answered(self.event) => {
                Some(compare.passes(&exposed(ExposureField::Kind, &Exposure::default())))
            }
            _ => None,
        }
    }

    /// Partially evaluates a conjunction or disjunction. One operand with the value `decisive` decides it.
    fn reduce_all(
        &mut self,
        nodes: &[ConditionPlan],
        known: Known,
        decisive: bool,
        join: impl Fn(Box<[ConditionPlan]>) -> ConditionPlan,
    ) -> ConditionPlan {
        let mut residuals = Vec::new();
        for node in nodes {
            match self.reduce(node, known) {
                ConditionPlan::Constant(value) if value == decisive => {
                    return ConditionPlan::Constant(decisive);
                }
                ConditionPlan::Constant(_) => {}
                residual => residuals.push(residual),
            }
        }
        match residuals.len() {
            0 => ConditionPlan::Constant(!decisive),
            1 => residuals.swap_remove(0),
            _ => join(residuals.into()),
        }
    }
}

/// The members of an event that are known during partial evaluation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Head,
    Stage,
}

/// Returns whether no rule can match an event of this stage, and no learned state changes with it, whatever else it contains. The event
/// has to be without [anomalies](Event::anomalies).
pub fn ignores_stage(plan: &Plan, input: InputContext<'_>, stage: &str) -> bool {
    let text = format!(r#"{{"stage":"{stage}"}}"#);
    let mut event = Event::new(text.as_bytes());
    let mut cache = EvalCache::new(plan);
    let mut eval =
        EvalContext { plan, cache: &mut cache, event: &mut event, input, cluster_state: None, window: None };
    !registry::is_answered(eval.event)
        && plan
            .rules
            .iter()
            .all(|rule| eval.reduce(&rule.condition, Known::Stage) == ConditionPlan::Constant(false))
}

/// Returns one property of an exposure as a value.
fn exposed(part: ExposureField, exposure: &Exposure) -> Value<'static> {
    let list = |texts: &mut dyn Iterator<Item = &String>| {
        Value::list(texts.map(|text| Cow::Owned(text.clone().into_bytes())).collect())
    };
    match part {
        ExposureField::Kind => Value::Text(exposure.kind.name().as_bytes().into()),
        ExposureField::Scope if exposure.kind == ExposureKind::None && exposure.count == 0 => Value::Missing,
        ExposureField::Scope => Value::Text(exposure.scope.name().as_bytes().into()),
        ExposureField::Secrets => list(&mut exposure.secrets.iter()),
        ExposureField::Count => Value::Number(i64::try_from(exposure.count).unwrap_or(i64::MAX)),
        ExposureField::Hosts => list(&mut exposure.logins.hosts.iter()),
        ExposureField::Usernames => list(&mut exposure.logins.usernames.iter()),
        ExposureField::Evidence => match exposure.evidence {
            Some(evidence) => Value::Text(evidence.name().as_bytes().into()),
            None => Value::Missing,
        },
        ExposureField::Truncated if exposure.is_truncated => Value::Text(b"true".into()),
        ExposureField::Truncated => Value::Text(b"false".into()),
    }
}

/// Evaluates the rules of a plan.
#[derive(Debug)]
pub struct Evaluator {
    /// Whether only the first matching rule counts.
    first: bool,
    /// By head; the value is an index into `residuals`.
    heads: HashMap<Box<[u8]>, usize, RandomState>,
    residuals: Vec<ResidualRules>,
    head: Vec<u8>,
}

impl Evaluator {
    /// Creates an evaluator with an empty cache. With `first`, only the first matching rule in load order counts.
    pub fn new(first: bool) -> Self {
        Evaluator { first, heads: HashMap::default(), residuals: Vec::new(), head: Vec::new() }
    }

    /// Returns the rules that an event with this head can still match.
    pub fn residual_rules(&mut self, eval: &mut EvalContext<'_, '_, '_>) -> &ResidualRules {
        self.head.clear();
        self.head.push(eval.event.anomalies());
        let object = {
            let parts = [eval.event.get(Member::Stage), eval.event.get(Member::Verb)];
            let object = eval.event.object();
            [parts[0], parts[1], object.resource, object.subresource]
        };
        for part in object {
            // Each value as it is spelled, prefixed with its length, so that different heads never collide.
            let bytes = part.map_or(&b""[..], |raw| raw.bytes());
            self.head.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            self.head.extend_from_slice(bytes);
        }
        let known = self.heads.get(&*self.head).copied();
        let at = known.unwrap_or_else(|| self.add(eval));
        &self.residuals[at]
    }

    /// Evaluates the head of an event that is not cached.
    #[cold]
    fn add(&mut self, eval: &mut EvalContext<'_, '_, '_>) -> usize {
        if self.residuals.len() >= MAX_HEADS {
            self.heads.clear();
            self.residuals.clear();
        }
        let at = self.residuals.len();
        self.residuals.push(self.partial_evaluation(eval));
        if self.head.len() <= MAX_HEAD_LEN {
            self.heads.insert(self.head.as_slice().into(), at);
        }
        at
    }

    fn partial_evaluation(&self, eval: &mut EvalContext<'_, '_, '_>) -> ResidualRules {
        let plan = eval.plan;
        let mut rules = Vec::new();
        for (rule, planned) in plan.rules.iter().enumerate() {
            match eval.reduce(&planned.condition, Known::Head) {
                ConditionPlan::Constant(false) => {}
                condition => rules.push(Residual { rule, condition }),
            }
        }
        let order_dependency =
            if plan.needs_cluster_state { OrderDependency::of(eval.event) } else { OrderDependency::None };
        ResidualRules { rules: rules.into(), order_dependency, first: self.first }
    }
}
