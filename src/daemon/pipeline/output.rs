//! What evaluating a batch yields, before it is stored.

use crate::detection::alert::NewAlert;
use crate::detection::detector::Session;
use crate::detection::detector::repartition::Outgoing;
use crate::detection::engine::alert::Alert;
use crate::detection::state::StateChange;

/// Alerts, changes of learned state and messages for other replicas, in the order of the input.
#[derive(Default)]
pub(super) struct BatchOutput {
    pub(super) alerts: Vec<NewAlert>,
    /// Index of the rule and time of the event of each alert, for the metrics. May be shorter than `alerts`: alerts that an
    /// earlier process prepared have no entry.
    pub(super) alert_rules: Vec<(usize, i64)>,
    pub(super) changes: Vec<StateChange>,
    /// Matches and window markers for the topic through which replicas exchange them.
    pub(super) outbox: Vec<Outgoing>,
}

impl BatchOutput {
    pub(super) fn push_alert(&mut self, alert: &Alert<'_>) {
        let mut json = Vec::with_capacity(1024);
        alert.write_json(&mut json);
        self.alert_rules.push((alert.rule(), alert.time()));
        self.alerts.push(NewAlert {
            id: alert.id_bytes(),
            time: alert.time(),
            rule: alert.rule_name().to_owned(),
            priority: alert.priority(),
            actor: alert.actor().to_owned(),
            target: alert.target().to_owned(),
            json,
            message: alert.message().into_owned(),
        });
    }

    /// Takes the changes of learned state, and the messages for other replicas, from the session.
    pub(super) fn take_from(&mut self, session: &mut Session<'_>) {
        self.changes.extend(session.take_changes());
        if let Some(repartition) = session.repartition() {
            self.outbox.extend(repartition.take_outbox());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.changes.is_empty() && self.outbox.is_empty()
    }
}
