//! Replicas that exchange matches say what one would have said that reads everything.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use pullwatch::internals::detection::detector::repartition::{Outgoing, ReplayEnd, Settings};
use pullwatch::internals::detection::detector::{Detector, Options, Session};
use pullwatch::internals::detection::rules::{self, SourceFile, ast::RuleSet};

const RULES: &str = "
- {rule: Secret Read, desc: d, condition: 'ka.target.resource = secrets and ka.stage = ResponseComplete and ka.verb in (get, list)', output: r, priority: INFO}
- {rule: Anything Created, desc: d, condition: ka.verb = create and ka.stage = ResponseComplete, output: c, priority: INFO}
- correlation: Many
  type: event_count
  rules: [Secret Read]
  group-by: [ka.user.name]
  timespan: 30s
  condition: {gte: 4}
  output: '%ka.user.name %correlation.count %registry.secrets'
  priority: ERROR
- correlation: Different
  type: value_count
  rules: [Secret Read, Anything Created]
  group-by: [ka.user.name, ka.target.namespace]
  timespan: 1m
  condition: {field: ka.target.name, gte: 3}
  output: '%ka.user.name %correlation.values'
  priority: ERROR
- correlation: Then
  type: temporal_ordered
  rules: [Anything Created, Secret Read]
  group-by: [ka.useragent]
  timespan: 20s
  output: '%ka.useragent %correlation.rules'
  priority: ERROR
- correlation: Few
  type: event_count
  rules: [Anything Created]
  group-by: [ka.user.name]
  timespan: 10s
  condition: {lte: 2}
  output: '%ka.user.name %correlation.count'
  priority: ERROR
- correlation: Both
  type: temporal
  rules: [Many, Different]
  group-by: [ka.useragent]
  timespan: 5m
  output: '%ka.useragent'
  priority: ERROR
";

const PARTITIONS: usize = 4;
/// An hour, in nanoseconds: no replica is further behind here.
const LATENESS: i64 = 3_600_000_000_000;

fn load() -> RuleSet {
    let file = SourceFile { name: "r.yaml".into(), text: RULES.to_owned() };
    let loaded = rules::load(std::slice::from_ref(&file), &rules::Options::default());
    assert!(loaded.diagnostics.is_empty(), "{}", rules::render(&loaded.diagnostics, &[file], false));
    loaded.rules
}

fn log() -> Vec<u8> {
    let file = std::fs::File::open("samples/audit/metadata.log.gz").unwrap();
    let mut log = Vec::new();
    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut log).unwrap();
    log
}

/// Alerts of correlations: name, id and what they say.
type Alerts = BTreeSet<(String, String, String)>;

fn collect(into: &mut Vec<(String, String, String)>) -> impl FnMut(&pullwatch::Alert<'_>) {
    move |alert| {
        if alert.priority() == pullwatch::internals::detection::alert::Priority::Error {
            let mut json = Vec::new();
            alert.write_json(&mut json);
            into.push((alert.rule_name().to_owned(), alert.id(), String::from_utf8(json).unwrap()));
        }
    }
}

/// What one session says that reads everything.
fn alone(rules: &RuleSet, log: &[u8]) -> Alerts {
    let options = Options { is_in_time_order: false, ..Options::default() };
    let detector = Detector::new(rules, options);
    let mut session = detector.session();
    let mut alerts = Vec::new();
    session.chunk(log, &mut collect(&mut alerts));
    session.finish(&mut collect(&mut alerts));
    let all: Alerts = alerts.iter().cloned().collect();
    assert_eq!(all.len(), alerts.len());
    all
}

/// The queue, and how far the group is.
#[derive(Default)]
struct Queue {
    partitions: BTreeMap<i32, Vec<Vec<u8>>>,
    committed: BTreeMap<i32, i64>,
    owner: BTreeMap<i32, usize>,
}

impl Queue {
    fn put(&mut self, messages: Vec<Outgoing>) {
        for message in messages {
            let sum: usize = message.key.bytes().map(usize::from).sum();
            let partition = i32::try_from(sum % PARTITIONS).unwrap();
            self.partitions.entry(partition).or_default().push(message.value);
        }
    }

    /// A replica takes a partition over, and learns what was before.
    fn hand_over(
        &mut self,
        partition: i32,
        from: &mut Session<'_>,
        to: &mut Session<'_>,
        new: usize,
        is_final: bool,
    ) {
        from.repartition().unwrap().revoke(partition);
        let offset = self.committed.get(&partition).copied().unwrap_or(0);
        let repartition = to.repartition().unwrap();
        repartition.assign(partition, offset);
        for (at, message) in (0..).zip(self.partitions.entry(partition).or_default().iter()) {
            repartition.replay(partition, at, message, ReplayEnd { offset, is_final });
        }
        self.owner.insert(partition, new);
    }
}

/// Numbers that look random, always the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }
}

/// What replicas say together. With `kills`, one that loses a partition may have evaluated more than it committed.
fn together(rules: &RuleSet, log: &[u8], seed: u64, kills: bool) -> (Vec<(String, String, String)>, usize) {
    const NOW: i64 = 4_000_000_000_000_000_000;
    let repartition = Some(Settings { partitions: PARTITIONS, allowed_lateness: LATENESS });
    let detector = Detector::new(rules, Options { repartition, ..Options::default() });
    let mut replicas: Vec<_> = (0..3).map(|_| detector.session()).collect();
    let mut queue = Queue::default();
    let mut dice = Dice(seed);
    let (mut alerts, mut hand_overs) = (Vec::new(), 0);
    for replica in &mut replicas {
        replica.set_now(NOW);
    }
    for (partition, owner) in (0..4).zip([0, 1, 2, 0]) {
        queue.owner.insert(partition, owner);
        replicas[owner].repartition().unwrap().assign(partition, 0);
    }
    let mut drain = |queue: &mut Queue, replicas: &mut Vec<Session<'_>>, partition: i32, commits: bool| {
        let owner = queue.owner[&partition];
        let from = queue.committed.get(&partition).copied().unwrap_or(0);
        let start = usize::try_from(from).unwrap();
        let messages = queue.partitions.entry(partition).or_default()[start..].to_vec();
        let next = from + i64::try_from(messages.len()).unwrap();
        for (offset, message) in (from..).zip(&messages) {
            assert!(replicas[owner].repartition().unwrap().is_ready(partition, offset));
            replicas[owner].on_remote_match(partition, offset, message, &mut collect(&mut alerts));
            let out = replicas[owner].repartition().unwrap().take_outbox();
            queue.put(out);
        }
        if commits {
            queue.committed.insert(partition, next);
        }
    };
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let reader = dice.below(3);
        replicas[reader].chunk(line, &mut |_| {});
        let out = replicas[reader].repartition().unwrap().take_outbox();
        queue.put(out);
        if dice.below(20) == 0 {
            let partition = i32::try_from(dice.below(PARTITIONS)).unwrap();
            // A replica that is killed had evaluated matches that only the queue knows of.
            let is_killed = kills && dice.below(4) == 0;
            drain(&mut queue, &mut replicas, partition, !is_killed);
            if is_killed || dice.below(4) == 0 {
                let old = queue.owner[&partition];
                let new = (old + 1 + dice.below(2)) % 3;
                let [from, to] = replicas.get_disjoint_mut([old, new]).unwrap();
                queue.hand_over(partition, from, to, new, false);
                hand_overs += 1;
            }
        }
    }
    // Chained correlations feed others.
    for _ in 0..3 {
        (0..4).for_each(|partition| drain(&mut queue, &mut replicas, partition, true));
    }
    for replica in &mut replicas {
        // Long after the last match: what is open is over.
        replica.set_now(NOW + 2 * LATENESS);
        replica.advance(NOW + 2 * LATENESS, &mut collect(&mut alerts));
    }
    (alerts, hand_overs)
}

#[test]
fn replicas_together_emit_what_one_emits_alone() {
    let (rules, log) = (load(), log());
    let expected = alone(&rules, &log);
    let kinds: BTreeSet<&str> = expected.iter().map(|(rule, _, _)| rule.as_str()).collect();
    assert_eq!(kinds.len(), 5, "each correlation has something to say: {kinds:?}");
    for seed in 0..5 {
        let (alerts, hand_overs) = together(&rules, &log, seed, false);
        assert!(hand_overs > 10, "{hand_overs}");
        let ids = |alerts: &mut dyn Iterator<Item = &(String, String, String)>| -> Vec<(String, String)> {
            let mut ids: Vec<_> = alerts.map(|(rule, id, _)| (rule.clone(), id.clone())).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&mut alerts.iter()), ids(&mut expected.iter()), "seed {seed}");
        // Which others a window holds that alerts of windows feed goes by which came first; all else is the same.
        let mut plain = expected.clone();
        plain.retain(|(rule, _, _)| rule != "Both");
        let mut single_events: Alerts = alerts.into_iter().collect();
        single_events.retain(|(rule, _, _)| rule != "Both");
        assert_eq!(single_events, plain, "seed {seed}");
    }
}

#[test]
fn kill_repeats_alerts_and_loses_none() {
    let (rules, log) = (load(), log());
    let expected = alone(&rules, &log);
    for seed in 0..5 {
        let (alerts, _) = together(&rules, &log, seed, true);
        let fired: BTreeSet<_> = alerts.iter().map(|(rule, id, _)| (rule, id)).collect();
        let wanted: BTreeSet<_> = expected.iter().map(|(rule, id, _)| (rule, id)).collect();
        assert_eq!(fired, wanted, "seed {seed}");
    }
}

#[test]
fn malformed_and_foreign_messages_are_counted() {
    let rules = load();
    let repartition = Some(Settings { partitions: 1, allowed_lateness: 0 });
    let detector = Detector::new(&rules, Options { repartition, ..Options::default() });
    let mut session = detector.session();
    session.set_now(1);
    session.repartition().unwrap().assign(0, 0);
    let mut writer = detector.session();
    writer.chunk(&log(), &mut |_| {});
    let sent = writer.repartition().unwrap().take_outbox();
    let other = String::from_utf8(sent[0].value.clone()).unwrap().replacen("\"of\":\"", "\"of\":\"AA", 1);
    let strange = {
        let start = other.find("\"of\":\"").unwrap() + 6;
        format!("{}{}{}", &other[..start], "A".repeat(22), &other[start + 24..])
    };
    let mut messages: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"{}".to_vec(),
        b"{\"kind\":\"Event\"}".to_vec(),
        vec![b'['; 100_000],
        other.into_bytes(),
    ];
    // Each one cut in the middle, too.
    messages.extend(sent.iter().take(20).map(|one| one.value[..one.value.len() / 2].to_vec()));
    let nonsense = messages.len() as u64;
    messages.push(strange.into_bytes());
    let mut alerts = 0;
    for (offset, message) in (0..).zip(&messages) {
        session.on_remote_match(0, offset, message, &mut |_| alerts += 1);
    }
    let counts = session.take_stats();
    assert_eq!(counts.malformed.values().sum::<u64>(), nonsense, "{counts:?}");
    assert_eq!(
        session.evicted().get(pullwatch::internals::detection::detector::evicted::FOREIGN_RULE_SET),
        Some(&1)
    );
    assert_eq!(alerts, 0);
}
