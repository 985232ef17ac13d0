//! Tests of what becomes routine, and what does not.

use super::is_interactive_agent;
use super::profiles::Status;
use crate::detection::audit::event::Event;
use crate::detection::registry::{ClusterState, learn};
use crate::text::name_patterns::NamePatterns;

/// A read of secrets; the default is a list of one namespace by an operator.
#[derive(Clone)]
struct Step {
    user: &'static str,
    groups: &'static str,
    impersonated: &'static str,
    verb: &'static str,
    namespace: &'static str,
    name: &'static str,
    agent: &'static str,
    address: &'static str,
    pod: &'static str,
    query: &'static str,
    response: &'static str,
}

const OPERATOR: Step = Step {
    user: "system:serviceaccount:shop:operator",
    groups: "system:serviceaccounts",
    impersonated: "",
    verb: "list",
    namespace: "shop",
    name: "",
    agent: "shop-operator/v1.2 (linux/amd64)",
    address: "10.0.1.7",
    pod: "",
    query: "",
    response: "",
};

const ARGO: Step = Step {
    user: "system:serviceaccount:argocd:argocd-application-controller",
    namespace: "",
    agent: "argocd-application-controller/v2.9",
    ..OPERATOR
};

struct Cluster {
    state: ClusterState,
    names: NamePatterns,
    number: u64,
}

impl Cluster {
    fn new() -> Self {
        Cluster { state: ClusterState::default(), names: NamePatterns::new(["*pull*"]).unwrap(), number: 0 }
    }

    /// The status of a read at this time, such as `2026-11-01T10`.
    fn at(&mut self, hour: &str, step: &Step) -> Status {
        self.number += 1;
        let objects = match step.namespace {
            "" => String::new(),
            namespace => format!(r#","namespace":"{namespace}""#),
        };
        let name = if step.name.is_empty() { String::new() } else { format!(r#","name":"{}""#, step.name) };
        let impersonated = match step.impersonated {
            "" => String::new(),
            other => format!(r#","impersonatedUser":{{"username":"{other}"}}"#),
        };
        let pod = match step.pod {
            "" => String::new(),
            pod => format!(r#","extra":{{"authentication.kubernetes.io/pod-uid":["{pod}"]}}"#),
        };
        let response = match step.response {
            "" => String::new(),
            kind => format!(r#","responseObject":{{"kind":"{kind}","items":[]}}"#),
        };
        let time =
            if hour.is_empty() { String::new() } else { format!(r#","stageTimestamp":"{hour}:00:00Z""#) };
        let stage = if step.verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        let event = format!(
            r#"{{"kind":"Event","auditID":"{}","stage":"{stage}","requestURI":"/x?{}","verb":"{}","user":{{"username":"{}","groups":["{}"]{pod}}}{impersonated},"sourceIPs":["{}"],"userAgent":"{}","objectRef":{{"resource":"secrets"{objects}{name}}},"responseStatus":{{"code":200}}{response}{time}}}"#,
            self.number, step.query, step.verb, step.user, step.groups, step.address, step.agent,
        );
        learn(&mut Event::new(event.as_bytes()), &self.names, &mut self.state);
        self.state.reader().unwrap().status
    }

    fn deviations(&self) -> Vec<String> {
        self.state.reader().unwrap().deviations()
    }

    /// The same read on the first days of a month.
    fn days(&mut self, days: std::ops::RangeInclusive<u8>, step: &Step) -> Vec<Status> {
        days.map(|day| self.at(&format!("2026-11-{day:02}T10"), step)).collect()
    }
}

#[test]
fn the_same_on_three_distinct_days_is_routine() {
    let mut cluster = Cluster::new();
    let read = Step { verb: "get", name: "pull", ..OPERATOR };
    assert_eq!(cluster.days(1..=1, &read), [Status::New]);
    for _ in 0..50 {
        assert_eq!(cluster.at("2026-11-01T11", &read), Status::Repeated);
    }
    assert_eq!(
        cluster.days(2..=6, &read),
        [Status::New, Status::New, Status::Routine, Status::Routine, Status::Routine]
    );
    // An older day adds nothing and removes nothing.
    assert_eq!(cluster.at("2026-10-01T10", &read), Status::Routine);
}

#[test]
fn events_without_a_plausible_time_make_nothing_routine() {
    for hour in ["1970-01-01T00", "", "2001-01-01T00"] {
        let mut cluster = Cluster::new();
        for _ in 0..20 {
            assert_eq!(cluster.at(hour, &OPERATOR), Status::New);
        }
    }
    // Days in descending order do not make a read routine either.
    let mut cluster = Cluster::new();
    for day in (1..=28).rev() {
        assert_eq!(cluster.at(&format!("2026-11-{day:02}T10"), &OPERATOR), Status::New);
    }
}

#[test]
fn what_differs_from_routine_is_named_and_takes_three_days_of_its_own() {
    let routine = Step { verb: "list", ..OPERATOR };
    for (step, what) in [
        (Step { verb: "get", name: "pull", ..OPERATOR }, "verb get, scope secret:shop, credential shop/pull"),
        (Step { namespace: "", ..OPERATOR }, "scope cluster"),
        (Step { namespace: "bank", ..OPERATOR }, "scope namespace:bank"),
        (Step { address: "10.0.9.9", ..OPERATOR }, "client 10.0.9.0/24"),
    ] {
        let mut cluster = Cluster::new();
        cluster.days(1..=4, &routine);
        for day in 5..=7 {
            assert_eq!(cluster.days(day..=day, &step), [Status::Deviating], "{what}");
            assert_eq!(cluster.deviations().join(", "), what);
            assert_eq!(cluster.days(day..=day, &routine), [Status::Routine]);
        }
        assert_eq!(cluster.days(8..=8, &step), [Status::Routine], "{what}");
    }
    // A relist is not a new read.
    let mut cluster = Cluster::new();
    cluster.days(1..=3, &Step { verb: "watch", ..OPERATOR });
    assert_eq!(cluster.days(4..=4, &routine), [Status::Routine]);
}

#[test]
fn another_program_never_becomes_routine_by_itself_nor_teaches_anything() {
    let mut cluster = Cluster::new();
    cluster.days(1..=4, &OPERATOR);
    let stolen = Step { agent: "loader/1", namespace: "", address: "192.0.2.1", ..OPERATOR };
    for day in 5..=28 {
        assert_eq!(cluster.days(day..=day, &stolen), [Status::Deviating]);
    }
    // If the program is forged at the end, scope and address are still new.
    let forged = Step { agent: OPERATOR.agent, ..stolen };
    assert_eq!(cluster.at("2026-11-29T10", &forged), Status::Deviating);
    assert_eq!(cluster.deviations(), ["client 192.0.2.0/24", "scope cluster"]);
    // Nor does an interactive program that is added from the first day on.
    let mut cluster = Cluster::new();
    for day in 1..=20 {
        cluster.days(day..=day, &OPERATOR);
        let status = cluster.days(day..=day, &Step { agent: "curl/8", ..OPERATOR });
        assert!(matches!(status[0], Status::New | Status::Deviating), "{day}");
    }
    // For a deployer that uses several interactive programs, they become routine.
    let mut cluster = Cluster::new();
    for day in 1..=5 {
        let status =
            ["helm/v3", "kubectl/v1"].map(|agent| cluster.days(day..=day, &Step { agent, ..OPERATOR }));
        assert_eq!(status.iter().all(|status| status[0] == Status::Routine), day > 3, "{day}");
    }
    // A user agent that is not a product token is new each time.
    let mut cluster = Cluster::new();
    let agent = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlc2lnbmF0dXJl";
    assert!(!cluster.days(1..=9, &Step { agent, ..OPERATOR }).contains(&Status::Routine));
}

#[test]
fn people_and_impersonation_are_never_routine() {
    for step in [
        Step { user: "jane", groups: "system:authenticated", ..OPERATOR },
        Step { user: "jane", groups: "system:serviceaccounts", ..OPERATOR },
        Step { user: "", groups: "", ..OPERATOR },
        Step { user: "system:anonymous", groups: "system:unauthenticated", ..OPERATOR },
        Step { impersonated: "system:serviceaccount:shop:operator", ..OPERATOR },
        Step {
            user: "jane",
            impersonated: "system:serviceaccount:argocd:argocd-application-controller",
            ..ARGO
        },
        // A certificate can contain a service account's name, but only the token authenticator adds the group.
        Step { groups: "system:authenticated", ..OPERATOR },
    ] {
        let mut cluster = Cluster::new();
        assert_eq!(
            cluster.days(1..=9, &step),
            [Status::Unprofiled; 9],
            "{} {}",
            step.user,
            step.impersonated
        );
    }
    let mut cluster = Cluster::new();
    let read = Step { user: "jane", groups: "", verb: "get", name: "pull", ..OPERATOR };
    cluster.days(1..=1, &read);
    assert_eq!(cluster.deviations(), ["credential shop/pull"]);
    cluster.days(1..=1, &read);
    assert!(cluster.deviations().is_empty());
}

#[test]
fn a_platform_controller_is_routine_at_once_if_everything_matches() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.days(1..=2, &ARGO), [Status::Routine; 2]);
    for (step, what) in [
        (Step { agent: "curl/8.1", ..ARGO }, "program curl"),
        (Step { agent: "", ..ARGO }, "program (none)"),
        (Step { address: "192.0.2.9", ..ARGO }, "client 192.0.2.0/24"),
        (Step { groups: "contractors", ..ARGO }, "user is not a service account"),
    ] {
        for _ in 0..9 {
            assert_eq!(cluster.days(3..=12, &step), [Status::Mismatch; 10]);
            assert_eq!(cluster.deviations()[0], what);
        }
    }
    assert_eq!(cluster.days(13..=13, &ARGO), [Status::Routine]);
    // A service account of the same name in another namespace is not the controller.
    let named_alike = Step { user: "system:serviceaccount:evil:argocd-application-controller", ..ARGO };
    assert_eq!(cluster.days(1..=1, &named_alike), [Status::New]);
}

#[test]
fn a_new_pod_explains_a_new_address_and_nothing_else_does() {
    let pod = |pod, address| Step { address, pod, ..ARGO };
    let mut cluster = Cluster::new();
    assert_eq!(cluster.days(1..=1, &pod("a", "10.0.1.5")), [Status::Routine]);
    assert_eq!(cluster.days(1..=1, &pod("b", "10.0.2.5")), [Status::Routine]);
    // A pod's token used elsewhere, and a token that is not bound to a pod.
    assert_eq!(cluster.days(1..=1, &pod("b", "10.0.3.5")), [Status::Mismatch]);
    assert_eq!(cluster.days(1..=1, &pod("b", "10.0.3.5")), [Status::Mismatch]);
    assert_eq!(cluster.days(1..=1, &pod("", "10.0.2.5")), [Status::Mismatch]);
    assert_eq!(cluster.deviations(), ["client 10.0.2.0/24 without a pod"]);
}

#[test]
fn a_token_without_a_pod_differs_where_all_others_had_one() {
    let pod = |pod, address| Step { address, pod, ..OPERATOR };
    let minted = pod("", "10.0.2.5");
    let mut cluster = Cluster::new();
    // On the first day and on every later one, since it does not become routine.
    assert_eq!(cluster.days(1..=1, &pod("a", "10.0.1.5")), [Status::New]);
    assert_eq!(cluster.days(1..=1, &pod("b", "10.0.2.5")), [Status::Repeated]);
    assert_eq!(cluster.days(1..=1, &minted), [Status::New]);
    assert_eq!(cluster.deviations(), ["client 10.0.2.0/24 without a pod"]);
    cluster.days(2..=3, &pod("b", "10.0.2.5"));
    for day in 4..=12 {
        assert_eq!(cluster.days(day..=day, &pod("b", "10.0.2.5")), [Status::Routine], "{day}");
        assert_eq!(cluster.days(day..=day, &minted), [Status::Deviating], "{day}");
        assert_eq!(cluster.deviations(), ["client 10.0.2.0/24 without a pod"]);
    }
    // Nor if the address is not logged.
    assert_eq!(cluster.days(13..=13, &pod("", "")), [Status::Deviating]);
}

#[test]
fn tokens_with_and_without_a_pod_on_three_distinct_days_are_both_routine() {
    let bound = Step { pod: "a", ..OPERATOR };
    for steps in [[&bound, &OPERATOR], [&OPERATOR, &bound]] {
        let mut cluster = Cluster::new();
        // Each is reported on each of these days, and its repetitions on the same day are not.
        for day in 1..=3 {
            assert_eq!(cluster.days(day..=day, steps[0]), [Status::New], "{day}");
            let second = cluster.days(day..=day, steps[1]);
            // Reads with a pod's token are covered by those without, like reads from other pods.
            let expected = if steps[1].pod.is_empty() { Status::New } else { Status::Repeated };
            assert_eq!(second, [expected], "{day}");
            for step in steps {
                assert_eq!(cluster.days(day..=day, step), [Status::Repeated], "{day}");
            }
        }
        for day in 4..=9 {
            for step in steps {
                assert_eq!(cluster.days(day..=day, step), [Status::Routine], "{day}");
            }
        }
        // From elsewhere it only differs by its network.
        assert_eq!(cluster.days(10..=10, &Step { address: "192.0.2.1", ..OPERATOR }), [Status::Deviating]);
        assert_eq!(cluster.deviations(), ["client 192.0.2.0/24"]);
    }
    // Two days are not sufficient, and once the identity has been known for three days, no further day is added.
    let mut cluster = Cluster::new();
    cluster.days(1..=3, &bound);
    cluster.days(2..=3, &OPERATOR);
    for day in 4..=12 {
        assert_eq!(cluster.days(day..=day, &bound), [Status::Routine], "{day}");
        assert_eq!(cluster.days(day..=day, &OPERATOR), [Status::Deviating], "{day}");
    }
    // A platform controller's account has only one expected behavior.
    let mut cluster = Cluster::new();
    cluster.days(1..=3, &ARGO);
    cluster.days(1..=3, &Step { pod: "a", ..ARGO });
    assert_eq!(cluster.days(4..=9, &ARGO), [Status::Mismatch; 6]);
}

#[test]
fn a_token_without_a_pod_that_differs_teaches_nothing() {
    let bound = Step { pod: "a", ..OPERATOR };
    let mut cluster = Cluster::new();
    cluster.days(1..=4, &bound);
    let minted = Step { namespace: "", address: "192.0.2.1", ..OPERATOR };
    for day in 5..=28 {
        assert_eq!(cluster.days(day..=day, &minted), [Status::Deviating], "{day}");
        assert_eq!(cluster.days(day..=day, &bound), [Status::Routine], "{day}");
    }
    // If a pod's token is used at the end, scope and address are still new.
    assert_eq!(cluster.at("2026-11-29T10", &Step { pod: "a", ..minted }), Status::Deviating);
    assert_eq!(cluster.deviations(), ["client 192.0.2.0/24", "scope cluster"]);
}

#[test]
fn a_secret_that_was_listed_is_no_news_by_name() {
    let named = |namespace, name| Step { verb: "get", namespace, name, ..OPERATOR };
    let mut cluster = Cluster::new();
    assert_eq!(cluster.days(1..=1, &OPERATOR), [Status::New]);
    assert_eq!(cluster.days(1..=1, &named("shop", "pull")), [Status::Listed]);
    // Of another namespace, with another program, from elsewhere, and on another day without a list.
    assert_eq!(cluster.days(1..=1, &named("prod", "pull")), [Status::New]);
    assert_eq!(cluster.days(1..=1, &Step { agent: "loader/1", ..named("shop", "pull-2") }), [Status::New]);
    assert_eq!(cluster.days(1..=1, &Step { agent: "curl/8", ..named("shop", "pull-3") }), [Status::New]);
    assert_eq!(cluster.days(1..=1, &Step { address: "192.0.2.9", ..named("shop", "pull-4") }), [Status::New]);
    assert_eq!(cluster.days(2..=2, &named("shop", "pull-5")), [Status::New]);
    // A list by label handed over what carries the label.
    let mut cluster = Cluster::new();
    cluster.days(1..=1, &Step { query: "labelSelector=app%3Dx", ..OPERATOR });
    assert_eq!(cluster.days(1..=1, &named("shop", "pull")), [Status::New]);
    let mut cluster = Cluster::new();
    cluster.days(1..=1, &Step { query: "labelSelector=app%3Dx", namespace: "", ..OPERATOR });
    assert_eq!(cluster.days(1..=1, &named("shop", "pull")), [Status::New]);
    // A list by a user who is not a service account does not make later reads by that user routine.
    let person = Step { user: "jane", groups: "developers", ..OPERATOR };
    cluster.days(1..=1, &person);
    let get = Step { user: "jane", groups: "developers", ..named("shop", "pull") };
    assert_eq!(cluster.days(1..=1, &get), [Status::Unprofiled]);
    // Each further read by such a user is counted, so that it is reported.
    for repeats in 1..4 {
        cluster.days(1..=1, &get);
        assert_eq!(cluster.state.reader().unwrap().repeats, repeats);
    }
}

#[test]
fn tokens_in_the_place_of_names_are_not_stored_and_stay_apart() {
    let tokens = ["ghp_0182lootlootlootABCDEF0123456789abcd", "ghp_0187lootlootlootABCDEF0123456789abcd"];
    let mut cluster = Cluster::new();
    for token in tokens {
        cluster.days(1..=1, &Step { user: token, groups: "developers", ..OPERATOR });
        cluster.days(1..=1, &Step { user: "jane", groups: "developers", impersonated: token, ..OPERATOR });
    }
    let stored: Vec<_> =
        cluster.state.readers().iter().map(|(user, other, _)| (user, other.unwrap_or_default())).collect();
    assert_eq!(stored.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{stored:?}");
    let is_clean =
        |name: &str| !name.contains("loot") && (name.is_empty() || name == "jane" || name.len() == 27);
    assert!(stored.iter().all(|(user, other)| is_clean(user) && is_clean(other)), "{stored:?}");
}

/// Operators are written with clients that scripts use as well: what these get by name after a list follows from it, also after restarts.
#[test]
fn a_generic_client_is_reported_once_a_day_for_secrets_that_it_listed() {
    let mut cluster = Cluster::new();
    let list = Step { agent: "okhttp/4.12.0", namespace: "", pod: "a", ..OPERATOR };
    let get = Step { verb: "get", namespace: "shop", name: "pull-1", ..list.clone() };
    let restarted = Step { pod: "b", address: "10.0.2.7", ..list.clone() };
    assert_eq!(cluster.at("2026-11-01T01", &list), Status::New);
    assert_eq!(cluster.at("2026-11-01T01", &get), Status::Listed);
    assert_eq!(cluster.at("2026-11-01T05", &restarted), Status::Repeated);
    let restarted = Step { pod: "b", address: "10.0.2.7", ..get.clone() };
    assert_eq!(cluster.at("2026-11-01T05", &restarted), Status::Listed);
    assert_eq!(cluster.at("2026-11-01T06", &Step { agent: "curl/8", ..restarted.clone() }), Status::New);
    assert_eq!(cluster.at("2026-11-01T06", &Step { address: "192.0.2.7", ..restarted }), Status::New);
    // On another day it listed nothing.
    assert_eq!(cluster.at("2026-11-02T05", &get), Status::New);
}

#[test]
fn a_watch_after_a_list_of_metadata_is_reported_like_any_other_on_its_first_day() {
    let watch = Step { verb: "watch", query: "labelSelector=a%3Db&sendInitialEvents=true", ..OPERATOR };
    let list = Step { query: "labelSelector=a%3Db", response: "PartialObjectMetadataList", ..OPERATOR };
    let mut cluster = Cluster::new();
    cluster.days(1..=1, &list);
    assert_eq!(cluster.days(1..=1, &watch), [Status::New]);
    assert_eq!(cluster.days(1..=1, &watch), [Status::Repeated]);
    cluster.days(2..=2, &list);
    assert_eq!(cluster.days(2..=2, &watch), [Status::Metadata]);
    for step in [
        Step { query: "", ..watch.clone() },
        Step { agent: "curl/8", ..watch.clone() },
        Step { address: "10.9.9.9", ..watch.clone() },
        Step { namespace: "", ..watch.clone() },
    ] {
        assert_ne!(cluster.days(2..=2, &step), [Status::Metadata]);
    }
}

#[test]
fn a_flood_of_identities_evicts_no_established_profile() {
    let mut cluster = Cluster::new();
    cluster.days(1..=3, &OPERATOR);
    for number in 0..10_000 {
        let user: &'static str = format!("system:serviceaccount:n{number}:x").leak();
        cluster.at("2026-11-03T11", &Step { user, ..OPERATOR });
    }
    assert!(cluster.state.readers().evicted() > 0 && cluster.state.readers().len() <= 4096);
    assert_eq!(cluster.days(4..=4, &OPERATOR), [Status::Routine]);
}

#[test]
fn a_restored_profile_is_the_same() {
    let mut cluster = Cluster::new();
    cluster.state.track();
    cluster.days(1..=4, &OPERATOR);
    let mut again = Cluster::new();
    for change in cluster.state.take_changes() {
        assert!(again.state.restore(change.kind, &change.key, &change.value.unwrap()));
    }
    assert_eq!(again.days(5..=5, &OPERATOR), [Status::Routine]);
    assert_eq!(again.days(5..=5, &Step { agent: "curl/8", ..OPERATOR }), [Status::Deviating]);
}

#[test]
fn clients_of_people_and_scripts_are_interactive() {
    for agent in [
        "",
        "kubectl/v1.32.4 (linux/amd64)",
        "kubectl-view-secret/0.1",
        "curl/8.5.0",
        "Lens",
        "python-requests/2.32.3",
        "OpenAPI-Generator/28.1.0/python",
        "fabric8-kubernetes-client/6.13.0",
        "Go-http-client/2.0",
        "okhttp/4.12.0",
    ] {
        assert!(is_interactive_agent(agent), "{agent}");
    }
    assert!(!is_interactive_agent("shop-operator/v1.2.0") && !is_interactive_agent("kubelet/v1.36.3"));
}
