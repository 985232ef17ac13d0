//! The result of checking an audit policy against rules.

use crate::detection::policy::findings::{self, LargestEvents, Tag, TechniqueGap, Written};
use crate::detection::policy::{Coverage, Policy, Verdict, coverage};
use crate::detection::rules::ast::RuleSet;

/// The apiserver's limits of an event's size, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Larger events are dropped.
    pub largest: u64,
    /// The objects of larger events are removed.
    pub truncated: u64,
}

#[derive(Debug)]
pub struct Findings {
    /// Name of the policy file.
    pub name: String,
    /// Number of rules in the policy.
    pub policy_rules: usize,
    /// Verdict for each detection rule.
    pub coverage: Vec<Coverage>,
    /// Techniques that rules are tagged with.
    pub tags: Vec<Tag>,
    /// Techniques that are not fully visible under the policy.
    pub hidden: Vec<TechniqueGap>,
    /// Requests whose credentials the policy writes to disk.
    pub written: Vec<Written>,
    /// Maximum sizes of events.
    pub sizes: Vec<LargestEvents>,
    pub limits: Limits,
}

impl Findings {
    pub fn new(name: String, policy: &Policy, rules: &RuleSet, limits: Limits) -> Self {
        let coverage = coverage(policy, rules);
        Findings {
            name,
            policy_rules: policy.rules.len(),
            tags: findings::tags(&coverage),
            coverage,
            hidden: findings::hidden(policy),
            written: findings::written(policy),
            sizes: findings::sizes(policy),
            limits,
        }
    }

    /// Number of rules with this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.coverage.iter().filter(|coverage| coverage.verdict == verdict).count()
    }
}
