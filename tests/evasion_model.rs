//! Generated requests for secrets: whatever hands over a registry credential according to a reference model of the apiserver
//! has to be reported. `PULLWATCH_EVASION_CASES` sets the number of cases; the fuzz target `evasion` runs the same check.

#![allow(clippy::unwrap_used)]

#[path = "evasion_model/apiserver.rs"]
mod apiserver;
#[path = "evasion_model/check.rs"]
mod check;

use std::collections::BTreeMap;

use apiserver::{Accept, Request, SECRETS, handle, parse_query};
use proptest::prelude::*;

fn cases() -> u32 {
    std::env::var("PULLWATCH_EVASION_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn every_request_that_hands_over_a_credential_is_reported(
        bytes in proptest::collection::vec(any::<u8>(), 0..160)
    ) {
        if let Err(evasion) = check::check(&bytes) {
            panic!("silent about {:?}:\n{}", evasion.secrets, evasion.log);
        }
    }
}

/// The check above would be worth nothing if the generator made no requests that hand over credentials.
#[test]
fn generator_reaches_every_way_to_a_credential() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut state = 1_u64;
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..120)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_be_bytes()[0]
            })
            .collect();
        for verb in check::check(&bytes).unwrap() {
            *counts.entry(verb).or_default() += 1;
        }
    }
    for verb in ["get", "list", "watch", "patch", "delete", "deletecollection"] {
        assert!(counts.get(verb).is_some_and(|count| *count > 3), "{verb}: {counts:?}");
    }
}

fn get(uri: &str) -> Request {
    Request {
        method: "GET",
        uri: uri.to_owned(),
        accept: Accept::Json,
        content_type: "",
        body: String::new(),
        is_websocket: false,
        is_authorized: true,
    }
}

/// What a real kube-apiserver 1.36.3 returned for `GET /api/v1/namespaces/production/secrets?QUERY`.
#[test]
fn model_agrees_with_a_recorded_apiserver() {
    for (query, is_returned) in [
        ("fieldSelector=&fieldSelector=type%3DOpaque", true),
        ("fieldSelector=type%21%3DOpaque&fieldSelector=type%3DOpaque", true),
        ("x;fieldSelector=type%3DOpaque", true),
        ("fieldSelector=type%3DOpaque%zz", true),
        ("labelSelector=x!=y", true),
        ("fieldSelector=type%3DOpaque", false),
    ] {
        let answer =
            handle(&get(&format!("/api/v1/namespaces/production/secrets?{query}")), &SECRETS).unwrap();
        let names: Vec<&str> = answer.handed_over.iter().map(|secret| secret.name).collect();
        assert_eq!(names.contains(&"prod-images"), is_returned, "{query}: {names:?}");
        assert_eq!((answer.code, answer.info.verb.as_str()), (200, "list"));
    }
    for value in ["true", "1", "maybe", ""] {
        let answer = handle(&get(&format!("/api/v1/secrets?watch={value}")), &SECRETS).unwrap();
        assert_eq!(answer.info.verb, "watch", "{value}");
    }
    let answer =
        handle(&get("/api/v1/namespaces/production/secrets/prod-images?watch=true"), &SECRETS).unwrap();
    assert_eq!(answer.info.verb, "get");
    let answer =
        handle(&get("/api/v1/secrets?fieldSelector=metadata.namespace=a,metadata.name=b"), &SECRETS).unwrap();
    assert_eq!((answer.info.namespace.as_str(), answer.info.name.as_str()), ("", "b"));
    let delete = Request {
        method: "DELETE",
        ..get("/api/v1/namespaces/production/secrets/prod-images?dryRun=All&propagationPolicy=Foreground")
    };
    let answer = handle(&delete, &SECRETS).unwrap();
    assert!(answer.handed_over.len() == 1 && answer.deleted.is_empty());
    assert_eq!(
        parse_query("a=%zz&b=1;c=2&d=+%41").into_iter().collect::<Vec<_>>(),
        [("d".to_owned(), vec![" A".to_owned()])]
    );
}
