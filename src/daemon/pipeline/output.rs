//! The output of evaluation, before it is stored.

use crate::daemon::metrics::Exposed;
use crate::detection::alert::NewAlert;
use crate::detection::detector::Session;
use crate::detection::detector::repartition::Outgoing;
use crate::detection::engine::alert::Alert;
use crate::detection::registry::ExposureKind;
use crate::detection::state::StateChange;

/// Size of an output, in bytes, at which it is stored before more input is evaluated. Input is cheap for an attacker: 28 MB of events,
/// compressed to 0.6 MB, can yield more than 1 GB of alerts.
const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// Alerts, changes of learned state and messages for other replicas, in the order of the input.
#[derive(Default)]
pub(super) struct BatchOutput {
    pub(super) alerts: Vec<NewAlert>,
    /// Index of the rule and time of the event of each alert, for the metrics. May be shorter than `alerts`: alerts that an
    /// earlier process prepared have no entry.
    pub(super) alert_rules: Vec<(usize, i64)>,
    /// The exposure of each event, with the index in `alerts` of the first alert about the event.
    pub(super) exposed: Vec<(usize, Exposed)>,
    /// Hash of the event that the latest alert is about. There may be several alerts per event, whose exposure is recorded once.
    pub(super) last_event: Option<[u8; 32]>,
    pub(super) changes: Vec<StateChange>,
    /// Matches and window markers for the topic through which replicas exchange them.
    pub(super) outbox: Vec<Outgoing>,
    /// Total length of the texts in `alerts`, `changes` and `outbox`, in bytes.
    pub(super) bytes: usize,
}

impl BatchOutput {
    pub(super) fn push_alert(&mut self, alert: &Alert<'_>) {
        let mut json = Vec::with_capacity(1024);
        alert.write_json(&mut json);
        self.alert_rules.push((alert.rule(), alert.time()));
        self.note_exposure(alert);
        let alert = NewAlert {
            id: alert.id_bytes(),
            time: alert.time(),
            rule: alert.rule_name().to_owned(),
            priority: alert.priority(),
            actor: alert.actor().to_owned(),
            target: alert.target().to_owned(),
            json,
            message: alert.message().into_owned(),
        };
        self.bytes += size_of::<NewAlert>() + alert.json.capacity() + alert.message.len();
        self.bytes += alert.rule.len() + alert.actor.len() + alert.target.len();
        self.alerts.push(alert);
    }

    /// Records the exposure of an event, once for all its alerts. A correlation's alert repeats the exposure of its events.
    fn note_exposure(&mut self, alert: &Alert<'_>) {
        let exposure = alert.exposure();
        if alert.is_correlation() || exposure.kind == ExposureKind::None {
            return;
        }
        let event = *alert.event_hash();
        if self.last_event.replace(event) == Some(event) {
            return;
        }
        let exposed = Exposed {
            actor: alert.actor().to_owned(),
            kind: exposure.kind,
            verb: alert.verb().unwrap_or_default(),
            secrets: exposure.secrets.clone(),
        };
        self.bytes += exposed.size();
        self.exposed.push((self.alerts.len(), exposed));
    }

    pub(super) fn push_changes(&mut self, changes: impl IntoIterator<Item = StateChange>) {
        for change in changes {
            self.bytes += size_of::<StateChange>() + change.key.len();
            self.bytes += change.value.as_ref().map_or(0, Vec::len);
            self.changes.push(change);
        }
    }

    /// Takes the changes of learned state, and the messages for other replicas, from the session.
    pub(super) fn take_from(&mut self, session: &mut Session<'_>) {
        self.push_changes(session.take_changes());
        if let Some(repartition) = session.repartition() {
            for message in repartition.take_outbox() {
                self.bytes += size_of::<Outgoing>() + message.key.len() + message.value.len();
                self.outbox.push(message);
            }
        }
    }

    /// Takes only the alerts, to store them before the rest.
    pub(super) fn take_alerts(&mut self) -> BatchOutput {
        let alerts = BatchOutput {
            alerts: std::mem::take(&mut self.alerts),
            alert_rules: std::mem::take(&mut self.alert_rules),
            exposed: std::mem::take(&mut self.exposed),
            ..BatchOutput::default()
        };
        self.bytes = 0;
        alerts
    }

    /// Whether the output must be stored before more input is evaluated.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_OUTPUT_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.changes.is_empty() && self.outbox.is_empty()
    }
}
