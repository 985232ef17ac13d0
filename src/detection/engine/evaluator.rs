//! Judging one event after the other.
//!
//! A [`Judge`] asks first for the members that decide most ([`HEAD`](super::plan::HEAD)). For each combination of their
//! values it remembers what is left of each rule once they are known: mostly nothing. Only where something is
//! left the event is read further.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::extract::{Context, View};
use super::plan::{CheckId, Node, OperandId, OperandPlan, Plan, With};
use super::value::{Shown, Value};
use super::{compare, transform};
use crate::detection::audit::event::{Event, Member};
use crate::detection::audit::time;
use crate::detection::audit::time::Clock;
use crate::detection::registry::{self, ClusterState, Exposure, ExposureKind, OrderDependency, RequestInfo};
use crate::detection::rules::fields::{Correlation, Registry};
use crate::text::escape::MAX_SHOWN_LEN;
use crate::text::timespan;

/// What is known of events with a certain head.
#[derive(Clone, Debug)]
pub struct Prospect {
    /// The rules that can match, and what is left of them.
    rests: Rc<[Rest]>,
    /// Whether such events have to be judged in their turn.
    pub order_dependency: OrderDependency,
}

/// What is left of a rule when the head of an event is known.
#[derive(Debug)]
struct Rest {
    /// Index of the rule in the plan.
    rule: usize,
    condition: Node,
}

/// How many combinations of heads are remembered. A cluster has some hundred; what goes beyond is an
/// attacker's invention, and starts the memory anew.
const MOST_HEADS: usize = 2048;

/// The longest head that is remembered, in bytes.
const LONGEST_HEAD: usize = 512;

/// The values and verdicts of the event at hand. They borrow from its text, so that one [`Sight`] serves all
/// events of one buffer.
#[derive(Debug)]
pub struct Sight<'e> {
    /// Values and verdicts of an earlier number are of an earlier event.
    number: u64,
    verdicts: Vec<(u64, bool)>,
    values: Vec<(u64, Value<'e>)>,
    exposure: (u64, Rc<Exposure>),
    request: (u64, Rc<RequestInfo>),
}

impl Sight<'_> {
    /// For events judged by this plan.
    pub fn new(plan: &Plan) -> Self {
        Sight {
            number: 1,
            verdicts: vec![(0, false); plan.checks.len()],
            values: (0..plan.operands.len()).map(|_| (0, Value::Missing)).collect(),
            exposure: (0, Rc::default()),
            request: (0, Rc::default()),
        }
    }

    /// For an event that is gone, of which it is known what it exposed.
    pub fn of_exposure(plan: &Plan, exposure: Rc<Exposure>) -> Self {
        let mut sight = Sight::new(plan);
        sight.exposure = (sight.number, exposure);
        sight
    }

    /// Forgets the event that was judged.
    #[inline]
    pub fn next(&mut self) {
        self.number += 1;
    }
}

/// Everything needed to judge one event.
pub struct Case<'p, 's, 'e> {
    /// The rules.
    pub plan: &'p Plan,
    /// What is known already.
    pub sight: &'s mut Sight<'e>,
    /// The event.
    pub event: &'s mut Event<'e>,
    /// What is known beside its text.
    pub context: Context<'p>,
    /// What earlier events taught. Nothing for an event that it has no bearing on.
    pub cluster_state: Option<&'s mut ClusterState>,
    /// What the correlation saw whose alert is made.
    pub window: Option<Rc<Window>>,
}

/// What a correlation saw, for its alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// How many matches.
    pub count: u64,
    /// How many different values.
    pub value_count: u64,
    /// Some of them.
    pub values: Vec<String>,
    /// Time of the first match, in nanoseconds since 1970.
    pub first: i64,
    /// Time of the last.
    pub last: i64,
    /// The rules that matched.
    pub rules: Vec<String>,
    /// The ids of the alerts, the first ones.
    pub ids: Vec<String>,
    /// How long a window is, in nanoseconds.
    pub timespan: i64,
}

impl Window {
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
            Correlation::First => text(time::format(Clock::DateTimeSeconds, self.first)),
            Correlation::Last => text(time::format(Clock::DateTimeSeconds, self.last)),
            Correlation::Rules => list(&self.rules),
            Correlation::Timespan => text(timespan::format(self.timespan)),
        }
    }
}

impl<'e> Case<'_, '_, 'e> {
    /// Whether a condition holds.
    #[inline]
    pub fn holds(&mut self, node: &Node) -> bool {
        match node {
            Node::Known(known) => *known,
            Node::Check(check) => self.passes(*check),
            Node::Not(inner) => !self.holds(inner),
            Node::All(nodes) => nodes.iter().all(|node| self.holds(node)),
            Node::Any(nodes) => nodes.iter().any(|node| self.holds(node)),
        }
    }

    /// Whether a comparison holds.
    pub fn passes(&mut self, check: CheckId) -> bool {
        let (number, verdict) = self.sight.verdicts[check];
        if number == self.sight.number {
            return verdict;
        }
        let plan = self.plan;
        let left = plan.checks[check].left;
        self.know(left);
        let verdict = match &plan.checks[check].with {
            With::Constant(compare) => compare.passes(&self.sight.values[left].1),
            With::Operand(operator, right) => {
                self.know(*right);
                compare::values(*operator, &self.sight.values[left].1, &self.sight.values[*right].1)
            }
        };
        self.sight.verdicts[check] = (self.sight.number, verdict);
        verdict
    }

    /// The value of an operand as conditions see it.
    pub fn value(&mut self, operand: OperandId) -> &Value<'e> {
        self.know(operand);
        &self.sight.values[operand].1
    }

    fn know(&mut self, operand: OperandId) {
        if self.sight.values[operand].0 == self.sight.number {
            return;
        }
        let plan = self.plan;
        let value = match &plan.operands[operand] {
            OperandPlan::Field(access) => access.read(self.event, &self.context, View::Real),
            OperandPlan::Registry(part) => self.registry(*part),
            // Not of the event: no condition can ask for it.
            OperandPlan::Correlation(_) => Value::Missing,
            OperandPlan::Text(text) => Value::Text(text.to_vec().into()),
            OperandPlan::Call(transformer, arguments, option) => {
                // A call's arguments were compiled before it, so this ends.
                for &argument in arguments {
                    self.know(argument);
                }
                let values: Vec<&Value<'e>> =
                    arguments.iter().map(|&argument| &self.sight.values[argument].1).collect();
                transform::apply(*transformer, &values, option.as_deref())
            }
        };
        self.sight.values[operand] = (self.sight.number, value);
    }

    /// The value of an operand as it may be shown.
    pub fn shown(&mut self, operand: OperandId) -> Shown<'e> {
        Shown::vouched(self.view_shown(operand))
    }

    fn view_shown(&mut self, operand: OperandId) -> Value<'e> {
        let plan = self.plan;
        match &plan.operands[operand] {
            // Known already, or of use to the next rule that fires.
            OperandPlan::Field(access) if access.is_plain() && self.is_short(operand) => {
                self.sight.values[operand].1.clone()
            }
            OperandPlan::Field(access) => access.read(self.event, &self.context, View::Shown),
            // It holds no secret, so that both views of it are the same.
            OperandPlan::Registry(_) => self.value(operand).clone(),
            OperandPlan::Correlation(part) => {
                self.window.as_ref().map_or(Value::Missing, |window| window.value(*part))
            }
            OperandPlan::Text(text) => Value::Text(text.to_vec().into()),
            OperandPlan::Call(transformer, arguments, option) => {
                let values: Vec<Value<'e>> =
                    arguments.iter().map(|&argument| self.view_shown(argument)).collect();
                let values: Vec<&Value<'e>> = values.iter().collect();
                transform::apply(*transformer, &values, option.as_deref())
            }
        }
    }

    /// What the event exposed of registry credentials, found once.
    pub fn exposure(&mut self) -> Rc<Exposure> {
        if self.sight.exposure.0 != self.sight.number {
            let request = self.request();
            let exposure = match self.cluster_state.as_deref_mut() {
                Some(cluster_state) => {
                    registry::observe(self.event, &request, &self.plan.names, cluster_state)
                }
                None => Exposure::of(self.event, &request, &self.plan.names, None),
            };
            self.sight.exposure = (self.sight.number, Rc::new(exposure));
        }
        self.sight.exposure.1.clone()
    }

    /// The request of the event, read once.
    pub fn request(&mut self) -> Rc<RequestInfo> {
        if self.sight.request.0 != self.sight.number {
            self.sight.request = (self.sight.number, Rc::new(RequestInfo::of(self.event)));
        }
        self.sight.request.1.clone()
    }

    fn registry(&mut self, part: Registry) -> Value<'static> {
        let list = |texts: Vec<String>| {
            Value::list(texts.into_iter().map(|text| Cow::Owned(text.into_bytes())).collect())
        };
        let word = |word: &'static str| Value::Text(word.as_bytes().into());
        let names = &self.plan.names;
        let request = self.request();
        let cluster_state = self.cluster_state.as_deref_mut();
        match part {
            Registry::ByType => {
                word(if registry::selects_credential_types(self.event) { "true" } else { "false" })
            }
            Registry::Copied => list(registry::copied_configuration_keys(self.event, &request)),
            Registry::ImageHosts => list(registry::image_hosts(self.event)),
            Registry::Referenced => {
                list(registry::referenced_credentials(self.event, &request, names, cluster_state))
            }
            Registry::Granted => list(registry::granted_verbs(self.event, &request, cluster_state)),
            Registry::PodSecurity => registry::pod_security_change(self.event, &request, cluster_state)
                .map_or(Value::Missing, word),
            _ => exposed(part, &self.exposure()),
        }
    }

    fn is_short(&mut self, operand: OperandId) -> bool {
        self.value(operand).texts().iter().all(|text| text.len() <= MAX_SHOWN_LEN)
    }

    /// What is left of a condition when the comparisons of the head are known.
    fn rest(&mut self, node: &Node) -> Node {
        match node {
            Node::Known(known) => Node::Known(*known),
            Node::Check(check) if self.plan.checks[*check].is_head => Node::Known(self.passes(*check)),
            Node::Check(check) => Node::Check(*check),
            Node::Not(inner) => match self.rest(inner) {
                Node::Known(known) => Node::Known(!known),
                rest => Node::Not(Box::new(rest)),
            },
            Node::All(nodes) => self.rest_of(nodes, false, Node::All),
            Node::Any(nodes) => self.rest_of(nodes, true, Node::Any),
        }
    }

    /// The rest of a conjunction or disjunction, which a child that is known to be `decisive` decides.
    fn rest_of(&mut self, nodes: &[Node], decisive: bool, join: impl Fn(Box<[Node]>) -> Node) -> Node {
        let mut rests = Vec::new();
        for node in nodes {
            match self.rest(node) {
                Node::Known(known) if known == decisive => return Node::Known(decisive),
                Node::Known(_) => {}
                rest => rests.push(rest),
            }
        }
        match rests.len() {
            0 => Node::Known(!decisive),
            1 => rests.swap_remove(0),
            _ => join(rests.into()),
        }
    }
}

/// A part of an exposure as a value.
fn exposed(part: Registry, exposure: &Exposure) -> Value<'static> {
    let list = |texts: &mut dyn Iterator<Item = &String>| {
        Value::list(texts.map(|text| Cow::Owned(text.clone().into_bytes())).collect())
    };
    match part {
        Registry::Exposure => Value::Text(exposure.kind.name().as_bytes().into()),
        Registry::Scope if exposure.kind == ExposureKind::None && exposure.count == 0 => Value::Missing,
        Registry::Scope => Value::Text(exposure.scope.name().as_bytes().into()),
        Registry::Secrets => list(&mut exposure.secrets.iter()),
        Registry::Count => Value::Number(i64::try_from(exposure.count).unwrap_or(i64::MAX)),
        Registry::Hosts => list(&mut exposure.logins.hosts.iter()),
        Registry::Usernames => list(&mut exposure.logins.usernames.iter()),
        Registry::Evidence => match exposure.evidence {
            Some(evidence) => Value::Text(evidence.name().as_bytes().into()),
            None => Value::Missing,
        },
        // Not parts of an exposure.
        Registry::ByType
        | Registry::Copied
        | Registry::Referenced
        | Registry::ImageHosts
        | Registry::Granted
        | Registry::PodSecurity => Value::Missing,
    }
}

/// Finds the rules that an event matches.
#[derive(Debug)]
pub struct Judge {
    /// Only the first rule that matches counts.
    first: bool,
    heads: HashMap<Box<[u8]>, Prospect, RandomState>,
    head: Vec<u8>,
}

impl Judge {
    /// A judge that knows nothing yet. With `first`, only the first rule in load order that matches counts.
    pub fn new(first: bool) -> Self {
        Judge { first, heads: HashMap::default(), head: Vec::new() }
    }

    /// Appends the indices (in the plan) of the rules that match to `matches`.
    pub fn judge(&self, case: &mut Case<'_, '_, '_>, prospect: &Prospect, matches: &mut Vec<usize>) {
        for rest in prospect.rests.iter() {
            if case.holds(&rest.condition) {
                matches.push(rest.rule);
                if self.first {
                    return;
                }
            }
        }
    }

    /// What the head of the event leaves possible.
    pub fn prospect(&mut self, case: &mut Case<'_, '_, '_>) -> Prospect {
        self.head.clear();
        let object = {
            let parts = [case.event.get(Member::Stage), case.event.get(Member::Verb)];
            let object = case.event.object();
            [parts[0], parts[1], object.resource, object.subresource]
        };
        for part in object {
            // The values as they are spelt, each behind its length, so that no two heads look the same.
            let bytes = part.map_or(&b""[..], |raw| raw.bytes());
            self.head.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            self.head.extend_from_slice(bytes);
        }
        if self.head.len() > LONGEST_HEAD {
            return Self::find(case);
        }
        if let Some(prospect) = self.heads.get(&*self.head) {
            return prospect.clone();
        }
        if self.heads.len() == MOST_HEADS {
            self.heads.clear();
        }
        let prospect = Self::find(case);
        self.heads.insert(self.head.as_slice().into(), prospect.clone());
        prospect
    }

    fn find(case: &mut Case<'_, '_, '_>) -> Prospect {
        let plan = case.plan;
        let mut rests = Vec::new();
        for (rule, planned) in plan.rules.iter().enumerate() {
            match case.rest(&planned.condition) {
                Node::Known(false) => {}
                condition => rests.push(Rest { rule, condition }),
            }
        }
        let order_dependency =
            if plan.needs_cluster_state { OrderDependency::of(case.event) } else { OrderDependency::None };
        Prospect { rests: rests.into(), order_dependency }
    }
}
