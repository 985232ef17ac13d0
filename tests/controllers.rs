//! Every entry of the catalog of platform controllers, on generated events.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::reads::{Read, evaluate, event, is_loud};
use pullwatch::internals::detection::registry::{Controller, ExpectedRead, controllers};
use serde_json::Value;

const CREDENTIAL: &str = "production/registry-credentials";

/// Where a token of an account is used.
struct Client<'a> {
    user: String,
    own: &'a str,
    address: String,
    pod: String,
}

/// All accounts of the catalog, each with a client of its own.
fn clients() -> Vec<(&'static Controller, Client<'static>)> {
    let accounts = controllers().flat_map(|one| one.accounts().iter().map(move |account| (one, account)));
    let client = |(number, (one, account)): (usize, (&'static Controller, &'static String))| {
        let (own, name) = account.split_once('/').unwrap();
        let user = format!("system:serviceaccount:{own}:{name}");
        (
            one,
            Client {
                user,
                own,
                address: format!("10.{}.{}.7", number / 200, number % 200),
                pod: format!("pod-{number}"),
            },
        )
    };
    accounts.enumerate().map(client).collect()
}

/// The user agents of a controller.
fn agents(one: &Controller) -> Vec<String> {
    let agent = |program: &String| {
        let program = program.replace('*', "v1.2.3-core");
        format!("{program}/v1.2.3 (linux/amd64) kubernetes/4d8d")
    };
    one.programs().iter().map(agent).collect()
}

/// The widest targets of an expected read, each with the query of its request.
fn targets(read: &ExpectedRead, verb: &str, own: &str) -> Vec<(String, String)> {
    let watch = if verb == "watch" { "&watch=true" } else { "" };
    if read.scope() == "secret" || verb == "get" {
        let (namespace, name) = CREDENTIAL.split_once('/').unwrap();
        let namespace = if read.scope() == "own" { own } else { namespace };
        let query = if verb == "get" {
            String::new()
        } else {
            format!("fieldSelector=metadata.name%3D{name}{watch}")
        };
        return vec![(format!("{namespace}/{name}"), query)];
    }
    let namespace = match read.scope() {
        "own" => own,
        "namespace" => "production",
        _ => "",
    };
    let selectors: Vec<String> = match read.labels() {
        [] => vec![String::new()],
        labels => labels
            .iter()
            .flat_map(|label| {
                let label = label.replace('/', "%2F");
                [format!("&labelSelector={label}"), format!("&labelSelector={label}%3D1")]
            })
            .collect(),
    };
    selectors.iter().map(|selector| (namespace.to_owned(), format!("limit=500{selector}{watch}"))).collect()
}

/// What a controller does when it starts, with each of its programs.
fn routine(one: &Controller, client: &Client<'_>, minute: usize, id: &mut u32) -> Vec<String> {
    let mut log = Vec::new();
    for agent in agents(one) {
        for expected in one.reads() {
            for verb in expected.verbs() {
                for (target, query) in targets(expected, verb, client.own) {
                    let read = Read {
                        user: &client.user,
                        agent: &agent,
                        address: &client.address,
                        pod: Some(&*client.pod),
                        verb,
                        target: &target,
                        query: &query,
                    };
                    log.push(event(&read, 1, minute, id));
                }
            }
        }
    }
    log
}

#[test]
fn every_controller_of_the_catalog_is_quiet_on_the_first_day() {
    let (mut log, mut id) = (Vec::new(), 0);
    for minute in [0, 90, 600] {
        for (one, client) in clients() {
            log.extend(routine(one, &client, minute, &mut id));
        }
    }
    assert!(id > 1500, "{id}");
    let mut loud: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for alert in evaluate(&log).into_iter().filter(is_loud) {
        let user = alert["event"]["user"]["username"].as_str().unwrap().to_owned();
        loud.entry(user).or_default().push(alert["output"].clone());
    }
    assert!(loud.is_empty(), "{loud:#?}");
}

/// Reads that are no part of an entry, with its own program: by name where it does not read by name, everything where it reads
/// less, without the label where it selects by one.
fn foreign_reads(one: &Controller) -> Vec<(&'static str, &'static str)> {
    let has = |verb: &str, scopes: &[&str]| {
        let mut reads = one.reads().iter().filter(|read| read.labels().is_empty());
        reads.any(|read| read.verbs().iter().any(|known| known == verb) && scopes.contains(&read.scope()))
    };
    let mut reads = Vec::new();
    if !has("get", &["secret"]) {
        reads.push(("get", CREDENTIAL));
    }
    for verb in ["list", "watch"] {
        if !has(verb, &["cluster"]) {
            reads.push((verb, ""));
        }
        if !has(verb, &["cluster", "namespace"]) {
            reads.push((verb, "production"));
        }
    }
    reads
}

#[test]
fn a_stolen_account_of_any_controller_of_the_catalog_is_critical() {
    let (mut log, mut id) = (Vec::new(), 0);
    for (one, client) in clients() {
        log.extend(routine(one, &client, 0, &mut id));
    }
    let first_theft = id;
    let mut thefts = BTreeMap::new();
    for (number, (one, client)) in clients().iter().enumerate() {
        let mut steal = |agent: &str, verb, target| {
            let (address, pod) = (&*client.address, Some(&*client.pod));
            let read = Read { user: &client.user, agent, address, pod, verb, target, query: "" };
            log.push(event(&read, 1, 700 + number, &mut id));
            thefts.insert(format!("benign-{id}"), format!("{} {agent} {verb} {target}", one.name()));
        };
        for (verb, target) in [("get", CREDENTIAL), ("list", ""), ("watch", ""), ("list", "production")] {
            steal("curl/8.5.0", verb, target);
        }
        for agent in ["kubectl/v1.32.4 (linux/amd64)", "python-requests/2.32.3", "Go-http-client/2.0", ""] {
            steal(agent, "list", "");
        }
        for agent in agents(one) {
            for (verb, target) in foreign_reads(one) {
                steal(&agent, verb, target);
            }
        }
    }
    let critical: BTreeSet<String> = evaluate(&log)
        .iter()
        .filter(|alert| alert["priority"] == "Critical")
        .map(|alert| alert["event"]["auditID"].as_str().unwrap().to_owned())
        .collect();
    let missed: Vec<&String> =
        thefts.iter().filter(|(id, _)| !critical.contains(*id)).map(|(_, what)| what).collect();
    assert!(missed.is_empty(), "{missed:#?}");
    let false_alarms = (1..=first_theft).filter(|id| critical.contains(&format!("benign-{id}"))).count();
    assert_eq!(false_alarms, 0);
}
