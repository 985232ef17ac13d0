//! A detector that stops and starts anew says what one says that never stopped.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use pullwatch::internals::detection::detector::{Detector, Options, Session, evicted};
use pullwatch::internals::detection::rules::{self, SourceFile};
use pullwatch::internals::detection::state::{StateChange, kind};

/// Rules that say all that is known, and look at several matches in each way.
const RULES: &str = r"
- rule: All
  desc: d
  condition: ka.verb exists
  output: '%registry.exposure %registry.evidence %registry.secrets %registry.count'
  priority: INFO
- rule: Taken
  desc: d
  condition: registry.exposure exists and registry.exposure != none
  output: '%registry.secrets'
  priority: WARNING
  throttle: {per: [ka.user.name], every: 20s}
- rule: Gets
  desc: d
  condition: ka.verb = get
  output: get
  priority: INFO
- {rule: Copies, desc: d, condition: registry.copies exists, output: '%registry.copies', priority: INFO}
- correlation: Many
  type: event_count
  rules: [Gets]
  group-by: [ka.user.name]
  timespan: 10s
  condition: {gte: 4}
  output: '%correlation.count by %ka.user.name'
  priority: ERROR
- correlation: Different
  type: value_count
  rules: [Taken]
  group-by: [ka.user.name]
  timespan: 1m
  condition: {field: registry.secrets, gte: 2}
  output: '%correlation.values %correlation.value_count'
  priority: ERROR
- correlation: Both
  type: temporal_ordered
  rules: [Gets, Many]
  timespan: 30s
  output: x
  priority: ERROR
- correlation: Few
  type: event_count
  rules: [Gets]
  group-by: [ka.target.namespace]
  timespan: 10s
  condition: {lte: 2}
  output: '%correlation.count in %ka.target.namespace'
  priority: ERROR
";

fn detector(text: &str) -> Detector {
    let file = SourceFile { name: "r.yaml".into(), text: text.to_owned() };
    let loaded = rules::load(std::slice::from_ref(&file), &rules::Options::default());
    assert!(!loaded.rules.rules.is_empty(), "{}", rules::render(&loaded.diagnostics, &[file], false));
    Detector::new(&loaded.rules, Options { hostname: "h".into(), ..Options::default() })
}

type Store = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

fn store(store: &mut Store, changes: Vec<StateChange>) {
    for StateChange { kind, key, value } in changes {
        match value {
            Some(value) => store.insert((kind, key), value),
            None => store.remove(&(kind, key)),
        };
    }
}

fn restored<'d>(detector: &'d Detector, store: &Store) -> Session<'d> {
    let mut session = detector.session();
    session.track();
    for ((kind, key), value) in store {
        assert!(session.restore(kind, key, value), "{kind} {}", String::from_utf8_lossy(value));
    }
    session
}

/// The alerts of a session about some events.
fn evaluate(session: &mut Session<'_>, text: &str) -> Vec<String> {
    let mut alerts = Vec::new();
    session.chunk(text.as_bytes(), &mut |alert| {
        let mut json = Vec::new();
        alert.write_json(&mut json);
        alerts.push(String::from_utf8(json).unwrap());
    });
    alerts
}

fn event(number: usize, seconds: i64, what: u8, who: u8, which: u8) -> String {
    let mut time = Vec::new();
    pullwatch::internals::detection::audit::time::write_rfc3339(
        &mut time,
        (1_777_888_800 + seconds) * 1_000_000_000,
    );
    let time = String::from_utf8(time).unwrap();
    let namespace = ["p", "q"][usize::from(which % 2)];
    let name = ["x", "y", "regcred", "registry-tls"][usize::from(which / 2 % 4)];
    let (verb, stage, object, extra) = match what {
        0..=5 => {
            ("get", "ResponseComplete", format!(r#""resource":"secrets","name":"{name}""#), String::new())
        }
        6 | 7 => {
            let kind = ["kubernetes.io/dockerconfigjson", "Opaque"][usize::from(who % 2)];
            let body = format!(
                r#","responseObject":{{"kind":"Secret","metadata":{{"name":"{name}"}},"type":"{kind}"}}"#
            );
            let verb = ["create", "update", "get", "patch"][usize::from(which / 8 % 4)];
            (verb, "ResponseComplete", format!(r#""resource":"secrets","name":"{name}""#), body)
        }
        8 => {
            ("delete", "ResponseComplete", format!(r#""resource":"secrets","name":"{name}""#), String::new())
        }
        9 => ("list", "ResponseComplete", r#""resource":"secrets""#.to_owned(), String::new()),
        10 | 11 => {
            let stage = ["ResponseStarted", "ResponseComplete"][usize::from(which / 8 % 2)];
            (
                "watch",
                stage,
                r#""resource":"secrets""#.to_owned(),
                format!(r#","requestReceivedTimestamp":"{}""#, which / 16),
            )
        }
        12 => {
            let body = format!(
                r#","requestObject":{{"spec":{{"imagePullSecrets":[{{"name":"{name}"}}],"volumes":[{{"secret":{{"secretName":"{name}"}}}}]}}}}"#
            );
            ("create", "ResponseComplete", r#""resource":"pods","name":"pod""#.to_owned(), body)
        }
        13 => {
            let verb = ["create", "delete"][usize::from(which / 8 % 2)];
            (
                verb,
                "ResponseStarted",
                r#""resource":"pods","subresource":"exec","name":"pod""#.to_owned(),
                String::new(),
            )
        }
        14 => {
            let body = format!(
                r#","requestObject":{{"rules":[{{"apiGroups":[""],"resources":["secrets"],"verbs":["{}"]}}]}}"#,
                ["get", "list"][usize::from(which / 8 % 2)]
            );
            ("create", "ResponseComplete", r#""resource":"roles","name":"role""#.to_owned(), body)
        }
        15 => {
            let body = r#","requestObject":{"roleRef":{"kind":"Role","name":"role"},"subjects":[]}"#;
            (
                "create",
                "ResponseComplete",
                r#""resource":"rolebindings","name":"b""#.to_owned(),
                body.to_owned(),
            )
        }
        19 => {
            let verb = ["create", "get", "list", "delete"][usize::from(which / 8 % 4)];
            let body = if verb == "create" {
                r#","requestObject":{"data":{"a":"auths:\n  ghcr.io:\n    auth: eA==\n"}}"#
            } else {
                ""
            };
            (verb, "ResponseComplete", format!(r#""resource":"configmaps","name":"{name}""#), body.to_owned())
        }
        18 => {
            let account = r#""resource":"serviceaccounts","subresource":"token","name":"a""#;
            ("create", "ResponseComplete", account.to_owned(), String::new())
        }
        _ => {
            let level = ["privileged", "baseline", "restricted"][usize::from(which / 2 % 3)];
            let body = format!(
                r#","requestObject":{{"metadata":{{"labels":{{"pod-security.kubernetes.io/enforce":"{level}"}}}}}}"#
            );
            ("update", "ResponseComplete", format!(r#""resource":"namespaces","name":"{namespace}""#), body)
        }
    };
    // The kubelets of nodes.
    let user = match what {
        18 => format!(
            r#"{{"username":"system:node:u{who}","groups":["system:nodes"]}},"sourceIPs":["10.0.0.{which}"],"userAgent":"kubelet/v1""#
        ),
        _ => format!(r#"{{"username":"u{who}"}}"#),
    };
    // What lasts has two events.
    let id = if matches!(what, 10 | 11 | 13) { usize::from(which / 16) } else { 100 + number };
    format!(
        r#"{{"kind":"Event","level":"RequestResponse","auditID":"a{id}","stage":"{stage}","requestURI":"/api","verb":"{verb}","user":{user},"objectRef":{{{object},"namespace":"{namespace}"}},"responseStatus":{{"code":200}},"stageTimestamp":"{time}"{extra}}}"#
    ) + "\n"
}

/// Rules that show what pods, roles and namespaces taught come with the program.
fn all_rules() -> String {
    let mut text = String::new();
    for file in pullwatch::internals::shipped::files() {
        text.push_str(&file.text);
        text.push('\n');
    }
    text + RULES
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_stop_changes_nothing(events in proptest::collection::vec(
        (prop_oneof![8 => 0..3_i64, 2 => -4..0_i64, 1 => -30..60_i64], 0..20_u8, 0..3_u8, 0..64_u8, 0..6_u8),
        1..80,
    )) {
        thread_local! {
            static DETECTORS: [Detector; 2] = [detector(&all_rules()), detector(&all_rules())];
        }
        DETECTORS.with(|[detector, other]| {
            let mut straight = detector.session();
            let mut broken = detector.session();
            broken.track();
            let mut stored = Store::new();
            let mut seconds = 0;
            for (number, (step, what, who, which, action)) in events.into_iter().enumerate() {
                seconds += step;
                let event = event(number, seconds, what, who, which);
                prop_assert_eq!(evaluate(&mut straight, &event), evaluate(&mut broken, &event));
                if action > 1 {
                    store(&mut stored, broken.take_changes());
                }
                match action {
                    4 => broken = restored(detector, &stored),
                    5 => {
                        let mut next = other.session();
                        next.resume_from(broken);
                        broken = detector.session();
                        broken.resume_from(next);
                    }
                    _ => {}
                }
            }
            prop_assert!(straight.take_changes().is_empty());
            let times = |session: &Session<'_>| -> Vec<_> {
                let known = session.cluster_state().credentials_with_times();
                known.map(|(key, time)| (key.to_owned(), time)).collect()
            };
            prop_assert_eq!(times(&straight), times(&broken));
            let mut ends = [Vec::new(), Vec::new()];
            for (session, end) in [&mut straight, &mut broken].into_iter().zip(&mut ends) {
                session.finish(&mut |alert| {
                    let mut json = Vec::new();
                    alert.write_json(&mut json);
                    end.push(String::from_utf8(json).unwrap());
                });
            }
            prop_assert_eq!(&ends[0], &ends[1]);
            prop_assert_eq!(straight.take_stats().throttled, broken.take_stats().throttled);
            Ok(())
        })?;
    }

    #[test]
    fn any_bytes_are_restored_or_refused(
        entries in proptest::collection::vec(
            (0..10_usize, proptest::collection::vec(any::<u8>(), 0..50), proptest::collection::vec(any::<u8>(), 0..50)),
            0..20,
        ),
    ) {
        thread_local!(static DETECTOR: Detector = detector(RULES));
        DETECTOR.with(|detector| {
            let mut session = detector.session();
            session.track();
            let mut refused = 0;
            for (at, key, value) in entries {
                let kind = kind::ALL.get(at).copied().unwrap_or("another");
                refused += u64::from(!session.restore(kind, &key, &value));
            }
            assert_eq!(session.evicted().get(evicted::STATE).copied().unwrap_or(0), refused);
            evaluate(&mut session, &event(1, 0, 0, 0, 0));
        });
    }
}

/// Some of everything that is stored.
fn full(detector: &Detector) -> (Session<'_>, Store) {
    let mut session = detector.session();
    session.track();
    let mut stored = Store::new();
    for number in 0..200_usize {
        let at = u8::try_from(number).unwrap();
        let what = match at % 20 {
            18 => 19,
            19 => 18,
            _ => at % 18,
        };
        evaluate(&mut session, &event(number, i64::from(at / 8), what, at % 3, at.wrapping_mul(37) % 64));
        store(&mut stored, session.take_changes());
    }
    (session, stored)
}

#[test]
fn every_kind_is_stored_and_corrupt_entries_are_rejected() {
    let detector = detector(RULES);
    let (_, stored) = full(&detector);
    for kind in kind::ALL {
        assert!(stored.keys().any(|(own, _)| *own == kind), "{kind}");
    }
    let mut session = detector.session();
    session.track();
    let mut left = stored.clone();
    for ((kind, key), value) in &stored {
        assert!(!session.restore(kind, key, &value[1..]));
        assert!(!session.restore("later", key, value));
    }
    store(&mut left, session.take_changes());
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(session.evicted()[evicted::STATE], 2 * stored.len() as u64);
    // What is small is small.
    for ((kind, _), value) in &stored {
        let most = match *kind {
            kind::WINDOW => 64 * 42,
            // Of each value of a profile: name, days and count.
            kind::READER => 1024,
            // Of each address: text and times.
            kind::NODE => 32 * 128,
            _ => 200,
        };
        assert!(value.len() < most, "{kind} {}", String::from_utf8_lossy(value));
    }
}

#[test]
fn credentials_are_not_stored() {
    let loot = "jevt.value[/responseObject/data/.dockerconfigjson]";
    let rules = format!(
        "- {{rule: R, desc: d, condition: ka.verb = get and registry.exposure exists, output: x, priority: INFO, throttle: {{per: ['{loot}'], every: 1h}}}}\n\
         - {{correlation: C, type: value_count, rules: [R], group-by: ['{loot}'], timespan: 1h, \
           condition: {{field: '{loot}', lte: 9}}, output: '%correlation.values %{loot}', priority: ERROR}}\n\
         - {{correlation: D, type: value_count, rules: [R], timespan: 1h, \
           condition: {{field: '{loot}', gte: 9}}, output: '%correlation.values', priority: ERROR}}\n"
    );
    let detector = detector(&rules);
    let mut session = detector.session();
    session.track();
    let body = r#","responseObject":{"kind":"Secret","metadata":{"name":"x"},"data":{".dockerconfigjson":"TE9PVExPT1Q="},"type":"kubernetes.io/dockerconfigjson"},"user""#;
    evaluate(&mut session, &event(1, 0, 0, 0, 0).replacen(",\"user\"", body, 1));
    let changes = session.take_changes();
    let kinds: Vec<_> = changes.iter().map(|change| change.kind).collect();
    for kind in [kind::SECRET, kind::WINDOW, kind::THROTTLE] {
        assert!(kinds.contains(&kind), "{kind} {kinds:?}");
    }
    for change in changes {
        let text = [change.key, change.value.unwrap_or_default()].concat();
        assert!(!text.windows(8).any(|part| part == b"TE9PVExP" || part == b"LOOTLOOT"), "{}", change.kind);
    }
}

#[test]
fn reloaded_rules_keep_unchanged_state() {
    let old = detector(RULES);
    let new = detector(
        &RULES
            .replace("timespan: 10s\n  condition: {gte: 4}", "timespan: 20s\n  condition: {gte: 4}")
            .replace("rule: Taken", "rule: Taken Otherwise")
            .replace("[Taken]", "[Taken Otherwise]"),
    );
    let (session, mut stored) = full(&old);
    let counted = stored.clone();
    let mut next = new.session();
    next.resume_from(session);
    assert!(next.evicted()[evicted::STATE] > 0);
    let known = next.cluster_state().len();
    store(&mut stored, next.take_changes());
    // The windows of Few are the same, and those of all that changed are gone from the store too.
    let windows = |store: &Store| store.keys().filter(|(kind, _)| *kind == kind::WINDOW).count();
    assert!(windows(&stored) > 1 && windows(&stored) < windows(&counted));
    assert!(!stored.keys().any(|(kind, _)| *kind == kind::THROTTLE));
    assert_eq!(restored(&new, &stored).cluster_state().len(), known);
}

#[test]
fn one_event_from_the_future_does_not_make_others_late() {
    let detector = detector(RULES);
    let now = 1_777_888_800_000_000_000;
    let reads = |session: &mut Session<'_>| -> usize {
        let mut alerts = evaluate(session, &event(0, 400_000_000, 0, 0, 0));
        for number in 1..5 {
            alerts.extend(evaluate(session, &event(number, 1, 0, 0, 0)));
        }
        alerts.iter().filter(|alert| alert.contains("\"rule\":\"Many\"")).count()
    };
    assert_eq!(reads(&mut detector.session()), 0);
    let mut session = detector.session();
    session.set_now(now);
    assert_eq!(reads(&mut session), 1);
    evaluate(&mut session, &event(9, 400_000_000, 6, 0, 2));
    let known: Vec<_> = session.cluster_state().credentials_with_times().collect();
    assert_eq!(known, [("p/y", Some(now))]);
    // Neither does what was stored while nobody looked at the clock.
    let mut session = detector.session();
    session.track();
    evaluate(&mut session, &event(0, 400_000_000, 0, 0, 1));
    let mut stored = Store::new();
    store(&mut stored, session.take_changes());
    let mut session = restored(&detector, &stored);
    session.set_now(now);
    let mut alerts = evaluate(&mut session, &event(1, 0, 0, 0, 0));
    alerts.extend(evaluate(&mut session, &event(2, 1, 6, 0, 0)));
    assert!(!alerts.iter().any(|alert| alert.contains("\"rule\":\"Few\"")), "{alerts:?}");
}
