use super::*;

fn read(event: &str, names: &NamePatterns, state: Option<&mut ClusterState>) -> Exposure {
    let mut event = Event::new(event.as_bytes());
    let request = RequestInfo::of(&mut event);
    Exposure::of(&mut event, &request, names, state)
}

fn of(verb: &str, name: &str, query: &str, code: u16, body: &str) -> Exposure {
    let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
    let name = if name.is_empty() { String::new() } else { format!(",\"name\":\"{name}\"") };
    let body = if body.is_empty() { String::new() } else { format!(",\"responseObject\":{body}") };
    let event = format!(
        r#"{{"kind":"Event","stage":"{stage}","requestURI":"/api/v1/namespaces/p/secrets{query}","verb":"{verb}","objectRef":{{"resource":"secrets","namespace":"p"{name}}},"responseStatus":{{"code":{code}}}{body}}}"#
    );
    let names = NamePatterns::new(["*registry*", "*regcred*"]).unwrap();
    read(&event, &names, None)
}

const DOCKER: &str = r#"{"kind":"Secret","metadata":{"name":"x","namespace":"p"},"data":{".dockerconfigjson":"eyJhdXRocyI6eyJnaGNyLmlvIjp7InVzZXJuYW1lIjoiYm90In19fQ=="},"type":"kubernetes.io/dockerconfigjson"}"#;

#[test]
fn type_overrides_name() {
    let exposure = of("get", "x", "", 200, DOCKER);
    assert_eq!((exposure.kind, exposure.secrets), (ExposureKind::Payload, vec!["p/x".to_owned()]));
    assert_eq!(
        (exposure.logins.hosts, exposure.logins.usernames),
        (vec!["ghcr.io".to_owned()], vec!["bot".to_owned()])
    );
    let tls = DOCKER.replace("dockerconfigjson\"}", "tls\"}").replace("\"x\"", "\"registry-tls\"");
    assert_eq!(of("get", "registry-tls", "", 200, &tls).kind, ExposureKind::None);
    assert_eq!(of("get", "registry-tls", "", 200, "").kind, ExposureKind::Presumed);
}

#[test]
fn lists_name_the_credentials_in_the_response() {
    let item = DOCKER.replace("\"kind\":\"Secret\",", "");
    let list = format!(
        r#"{{"kind":"SecretList","items":[{item},{{"metadata":{{"name":"o"}},"data":{{"a":""}},"type":"Opaque"}}]}}"#
    );
    let exposure = of("list", "", "", 200, &list);
    assert_eq!(
        (exposure.kind, exposure.scope, exposure.count),
        (ExposureKind::Payload, ReadScope::Namespace, 1)
    );
    assert_eq!(of("list", "", "", 200, "").kind, ExposureKind::Presumed);
    assert_eq!(of("list", "", "?fieldSelector=type%3DOpaque", 200, "").kind, ExposureKind::None);
    assert_eq!(
        of("list", "", "?fieldSelector=type%3Dkubernetes.io%2Fdockercfg", 200, "").kind,
        ExposureKind::Presumed
    );
    assert_eq!(of("watch", "", "?watch=1", 200, "").kind, ExposureKind::Presumed);
    assert_eq!(of("list", "", "", 403, r#"{"kind":"Status"}"#).kind, ExposureKind::Denied);
    assert_eq!(of("get", "registry", "", 404, r#"{"kind":"Status"}"#).kind, ExposureKind::None);
}

#[test]
fn tables_and_metadata_expose_data_only_in_objects_and_annotations() {
    let row = r#"{"cells":["x","kubernetes.io/dockerconfigjson",1,"1d"],"object":OBJECT}"#;
    let table = |object: &str| format!(r#"{{"kind":"Table","rows":[{}]}}"#, row.replace("OBJECT", object));
    let partial = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"x","namespace":"p"}}"#;
    assert_eq!(of("get", "x", "", 200, &table(partial)).kind, ExposureKind::Metadata);
    assert_eq!(of("get", "x", "", 200, &table("null")).kind, ExposureKind::Metadata);
    assert_eq!(of("get", "x", "", 200, &table(DOCKER)).kind, ExposureKind::Payload);
    let applied = r#"{"kind":"PartialObjectMetadata","metadata":{"name":"regcred","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\".dockerconfigjson\":\"e30=\"}}"}}}"#;
    assert_eq!(of("get", "regcred", "", 200, applied).kind, ExposureKind::Payload);
}

#[test]
fn patch_and_deletecollection_are_reads() {
    let list = format!(r#"{{"kind":"SecretList","items":[{DOCKER}]}}"#);
    assert_eq!(of("patch", "x", "", 200, DOCKER).kind, ExposureKind::Payload);
    assert_eq!(of("deletecollection", "", "", 200, &list).kind, ExposureKind::Payload);
    assert_eq!(of("deletecollection", "", "", 200, "").kind, ExposureKind::Presumed);
    assert_eq!(of("delete", "regcred", "", 200, r#"{"kind":"Status"}"#).kind, ExposureKind::None);
    assert_eq!(of("delete", "regcred", "", 200, r#"{"kind":"Status"}"#).secrets, ["p/regcred"]);
    // A created secret is named, but not exposed.
    let created = of("create", "x", "", 201, DOCKER);
    assert_eq!((created.kind, created.evidence), (ExposureKind::None, Some(Evidence::Type)));
    assert_eq!(of("patch", "x", "", 403, "").kind, ExposureKind::Denied);
}

#[test]
fn presumes_credentials_behind_the_end_of_a_truncated_line() {
    let whole = format!(
        r#"{{"stage":"ResponseComplete","verb":"list","objectRef":{{"resource":"secrets","namespace":"p"}},"responseStatus":{{"code":200}},"responseObject":{{"kind":"SecretList","items":[{{"metadata":{{"name":"o"}},"type":"Opaque"}},{DOCKER}]}}}}"#
    );
    let names = NamePatterns::default();
    let of = |text: &str| read(text, &names, None);
    assert_eq!(of(&whole).secrets, ["p/x"]);
    // Truncated before the credential, within its data, and after its data but before its type.
    for end in ["\"type\":\"Opaque\"}", "eyJhdXRocyI6", "\"data\":"] {
        let end = whole.find(end).unwrap() + end.len();
        assert_eq!(of(&whole[..end]).kind, ExposureKind::Presumed, "{}", &whole[..end]);
    }
    let end = whole.rfind(",\"type\"").unwrap();
    assert_eq!(of(&format!("{}}}", &whole[..end])).kind, ExposureKind::Payload);
    // A credential at the start of a truncated list says nothing about the rest.
    let two = whole.replace(DOCKER, &format!("{DOCKER},{DOCKER}"));
    let end = two.rfind("\"type\"").unwrap();
    let exposure = of(&two[..end]);
    assert_eq!((exposure.kind, exposure.is_truncated), (ExposureKind::Payload, true));
    assert!(!of(&two).is_truncated);
    // A list of one name, truncated anywhere before its items, is not mistaken for the secret.
    let names = NamePatterns::new(["regcred"]).unwrap();
    let one = whole.replace(r#""namespace":"p""#, r#""namespace":"p","name":"regcred""#);
    let start = one.find("responseObject").unwrap() + "responseObject".len() + 2;
    for end in start..one.find("items").unwrap() {
        assert_eq!(read(&one[..end], &names, None).kind, ExposureKind::Presumed, "{}", &one[..end]);
    }
}

#[test]
fn a_truncated_list_names_what_it_shows_and_what_may_be_behind_its_end() {
    let names = NamePatterns::default();
    let mut state = ClusterState::default();
    for (namespace, name) in [("p", "x"), ("p", "later"), ("q", "other")] {
        state.record_type(namespace, name, true, None, &names);
    }
    let whole = format!(
        r#"{{"stage":"ResponseComplete","verb":"list","objectRef":{{"resource":"secrets","namespace":"p"}},"responseStatus":{{"code":200}},"responseObject":{{"kind":"SecretList","items":[{DOCKER},{DOCKER}]}}}}"#
    );
    let cut = &whole[..whole.rfind("\"type\"").unwrap()];
    let exposure = read(cut, &names, Some(&mut state));
    assert_eq!((exposure.kind, exposure.is_truncated), (ExposureKind::Payload, true));
    assert_eq!((exposure.secrets, exposure.count), (vec!["p/x".to_owned(), "p/later".to_owned()], 2));
    // A complete list shows everything.
    assert_eq!(read(&whole, &names, Some(&mut state)).secrets, ["p/x"]);
}

#[test]
fn presumed_reads_name_known_credentials() {
    let names = NamePatterns::new(["*regcred*"]).unwrap();
    let mut state = ClusterState::default();
    let secret = |name: &str, kind: &str| {
        DOCKER.replace("\"x\"", &format!("\"{name}\"")).replace("dockerconfigjson\"}", &format!("{kind}\"}}"))
    };
    let mut of = |verb: &str, reference: &str, uri: &str, body: &str| {
        let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        let event = format!(
            r#"{{"stage":"{stage}","requestURI":"{uri}","verb":"{verb}","objectRef":{{"resource":"secrets"{reference}}},"responseStatus":{{"code":200}}{body}}}"#
        );
        read(&event, &names, Some(&mut state))
    };
    let p = r#","namespace":"p""#;
    let named = |name: &str| format!(r#","namespace":"p","name":"{name}""#);
    for (name, kind) in [("a", "dockercfg"), ("regcred-tls", "tls"), ("opaque", "Opaque")] {
        of("get", &named(name), "/", &format!(",\"responseObject\":{}", secret(name, kind)));
    }
    assert_eq!(of("list", p, "/", "").secrets, ["p/a"]);
    assert_eq!(of("list", p, "/?fieldSelector=type%3DOpaque", "").kind, ExposureKind::None);
    assert_eq!(of("list", "", "/?fieldSelector=metadata.namespace%3Dp", "").secrets, ["p/a"]);
    assert_eq!(of("list", r#","name":"a""#, "/?fieldSelector=metadata.name%3Da", "").secrets, ["p/a"]);
    assert_eq!(of("list", r#","name":"regcred""#, "/", "").secrets, ["*/regcred"]);
    assert_eq!(of("get", &named("regcred-tls"), "/", "").kind, ExposureKind::None);
    assert_eq!(of("get", &named("a"), "/", "").evidence, Some(Evidence::Type));
    assert_eq!(of("watch", p, "/?watch=1&resourceVersion=0", "").secrets, ["p/a"]);
    let later = of("watch", p, "/?watch=1&resourceVersion=9", "");
    assert_eq!((later.kind, later.count), (ExposureKind::Presumed, 0));
    assert_eq!(of("watch", p, "/?watch=1&resourceVersion=9&sendInitialEvents=true", "").count, 1);
}

/// An event about secrets of the namespace `p`.
fn event(verb: &str, name: &str, query: &str, code: &str, bodies: &str) -> String {
    let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
    let name = if name.is_empty() { String::new() } else { format!(",\"name\":\"{name}\"") };
    format!(
        r#"{{"kind":"Event","level":"RequestResponse","stage":"{stage}","requestURI":"/api/v1/namespaces/p/secrets{query}","verb":"{verb}","objectRef":{{"resource":"secrets","namespace":"p"{name}}},"responseStatus":{{"code":{code}}}{bodies}}}"#
    )
}

/// State in which `p/x` is a credential by type and `p/y` by content.
fn known() -> ClusterState {
    let mut state = ClusterState::default();
    let names = NamePatterns::default();
    state.record_type("p", "x", true, None, &names);
    state.record_type("p", "y", false, Some(true), &names);
    state
}

fn read_known(event: &str) -> Exposure {
    read(event, &NamePatterns::default(), Some(&mut known()))
}

#[test]
fn a_selector_excludes_what_the_apiserver_excludes_and_nothing_else() {
    for (query, secrets) in [
        // Measured on kube-apiserver 1.36.3: each of these returned a credential.
        ("?fieldSelector=&fieldSelector=type%3DOpaque", vec!["p/x", "p/y"]),
        ("?fieldSelector=type%21%3DOpaque&fieldSelector=type%3DOpaque", vec!["p/x", "p/y"]),
        ("?x;fieldSelector=type%3DOpaque", vec!["p/x", "p/y"]),
        ("?fieldSelector=type%3DOpaque%zz", vec!["p/x", "p/y"]),
        ("?labelSelector=a%21%3Db", vec!["p/x", "p/y"]),
        ("?fieldselector=type%3DOpaque", vec!["p/x", "p/y"]),
        ("#?fieldSelector=&fieldSelector=type%3DOpaque", vec!["p/x", "p/y"]),
        // Credentials of the type Opaque are not excluded.
        ("?fieldSelector=type%3DOpaque", vec!["p/y"]),
        (
            "?fieldSelector=type!%3Dkubernetes.io/dockercfg,type!%3Dkubernetes.io/dockerconfigjson",
            vec!["p/y"],
        ),
        ("?fieldSelector=type%3Dkubernetes.io/tls", vec![]),
    ] {
        for verb in ["list", "watch", "deletecollection"] {
            let exposure =
                read_known(&event(verb, "", query, "200", "").replace("RequestResponse", "Metadata"));
            let expected = if secrets.is_empty() { ExposureKind::None } else { ExposureKind::Presumed };
            assert_eq!(
                (exposure.kind, exposure.secrets),
                (expected, secrets.iter().map(|s| (*s).to_owned()).collect()),
                "{verb} {query}"
            );
        }
    }
    // A namespace that only one reading selects does not narrow the scope.
    let scope = |query: &str| {
        let text = event("list", "", query, "200", "").replace(r#","namespace":"p""#, "");
        read_known(&text).scope
    };
    assert_eq!(scope("?fieldSelector=metadata.namespace%3Dq"), ReadScope::Namespace);
    assert_eq!(scope("?fieldSelector=&fieldSelector=metadata.namespace%3Dq"), ReadScope::Cluster);
    assert_eq!(scope("?a;fieldSelector=&fieldSelector=metadata.namespace%3Dq"), ReadScope::Cluster);
}

#[test]
fn a_watch_over_a_websocket_is_a_success() {
    for code in ["101", "\"101\"", "200"] {
        let exposure = read_known(&event("watch", "", "?watch=true", code, ""));
        assert_eq!((exposure.kind, exposure.count), (ExposureKind::Presumed, 2), "{code}");
    }
    assert_eq!(read_known(&event("watch", "", "?watch=true", "403", "")).kind, ExposureKind::Denied);
}

#[test]
fn empty_members_are_absent_ones() {
    let list = event("list", "", "", "200", "");
    for (from, to) in [
        (r#""namespace":"p"}"#, r#""namespace":"p","name":""}"#),
        (r#""namespace":"p"}"#, r#""namespace":"p","subresource":""}"#),
        (r#""namespace":"p"}"#, r#""namespace":"p","name":"","subresource":"","apiGroup":""}"#),
    ] {
        let exposure = read_known(&list.replace(from, to));
        assert_eq!((exposure.kind, exposure.scope), (ExposureKind::Presumed, ReadScope::Namespace), "{to}");
    }
    let cluster = read_known(&list.replace(r#""namespace":"p"}"#, r#""namespace":"","name":""}"#));
    assert_eq!((cluster.scope, cluster.count), (ReadScope::Cluster, 2));
}

#[test]
fn a_response_counts_whatever_the_verb_and_the_status_are() {
    let quoted = serde_json::to_string(DOCKER).unwrap();
    let list = format!(r#"{{"kind":"SecretList","items":[{DOCKER}]}}"#);
    for (verb, code, response) in [
        ("get", "504", DOCKER.to_owned()),
        ("list", "500", list.clone()),
        ("list", "\"200\"", list.clone()),
        ("list", "\"timeout\"", list.clone()),
        ("list", "403", list.clone()),
        ("list", "200", list.replace("SecretList", "List")),
        ("list", "200", list.replace(r#""kind":"SecretList","#, "")),
        ("get", "200", quoted),
        ("watch", "200", format!(r#"{{"type":"ADDED","object":{DOCKER}}}"#)),
        ("patch", "200", DOCKER.to_owned()),
        ("delete", "200", DOCKER.to_owned()),
        ("delete", "202", DOCKER.to_owned()),
        ("update", "200", DOCKER.to_owned()),
        ("create", "201", DOCKER.to_owned()),
        ("deletecollection", "500", list),
    ] {
        let query = if verb == "create" { "?dryRun=All" } else { "" };
        let name = if verb.ends_with('t') && verb != "get" { "" } else { "x" };
        let text = event(verb, name, query, code, &format!(r#","responseObject":{response}"#));
        let exposure = read(&text, &NamePatterns::default(), None);
        assert_eq!(
            (exposure.kind, exposure.secrets),
            (ExposureKind::Payload, vec!["p/x".to_owned()]),
            "{text}"
        );
        assert_eq!(exposure.logins.hosts, ["ghcr.io"]);
    }
}

#[test]
fn what_a_client_sent_is_not_exposed_to_it() {
    let with = |verb: &str, request: &str, response: &str| {
        let bodies = format!(r#","requestObject":{request},"responseObject":{response}"#);
        read(&event(verb, "x", "", "200", &bodies), &NamePatterns::default(), None)
    };
    let bare = r#"{"metadata":{"name":"x"}}"#;
    let plain = r#"{"metadata":{"name":"x"},"stringData":{".dockerconfigjson":"{\"auths\":{\"ghcr.io\":{\"username\":\"bot\"}}}"}}"#;
    for verb in ["create", "update"] {
        let own = with(verb, DOCKER, DOCKER);
        assert_eq!((own.kind, own.count, own.evidence), (ExposureKind::None, 1, Some(Evidence::Type)));
        assert_eq!(with(verb, plain, DOCKER).kind, ExposureKind::None);
        // The server added data, from a webhook or from the stored object.
        assert_eq!(with(verb, bare, DOCKER).kind, ExposureKind::Payload);
        let applied = DOCKER.replace(r#""namespace":"p"}"#, r#""namespace":"p","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\".dockercfg\":\"e30=\"}}"}}"#);
        assert_eq!(with(verb, DOCKER, &applied).kind, ExposureKind::Payload);
        assert_eq!(with(verb, &applied, &applied).kind, ExposureKind::None);
    }
}

#[test]
fn a_deletion_or_dry_run_whose_response_is_not_logged_may_have_been_a_read() {
    for (verb, query, code, expected) in [
        ("delete", "", "200", ExposureKind::Presumed),
        ("delete", "?dryRun=All&propagationPolicy=Foreground", "200", ExposureKind::Presumed),
        ("patch", "?dryRun=All", "200", ExposureKind::Presumed),
        ("update", "?dryRun=All", "200", ExposureKind::Presumed),
        ("update", "", "200", ExposureKind::None),
        ("create", "", "201", ExposureKind::None),
        ("delete", "", "404", ExposureKind::None),
        ("delete", "", "403", ExposureKind::Denied),
        ("patch", "", "504", ExposureKind::None),
    ] {
        let text = event(verb, "x", query, code, "").replace("RequestResponse", "Metadata");
        let exposure = read_known(&text);
        assert_eq!((exposure.kind, exposure.secrets), (expected, vec!["p/x".to_owned()]), "{text}");
    }
    // A handler that panics may have written a part of the response.
    let panic = event("list", "", "", "500", "").replace("ResponseComplete", "Panic");
    assert_eq!(read_known(&panic).kind, ExposureKind::Presumed);
    assert_eq!(read_known(&event("list", "", "", "500", "")).kind, ExposureKind::None);
}

#[test]
fn secrets_of_other_types_count_by_their_content() {
    // {"auths":{"ghcr.io":{"auth":"eA=="}}}
    let opaque = r#"{"kind":"Secret","metadata":{"name":"x","namespace":"p"},"data":{"config.json":"eyJhdXRocyI6eyJnaGNyLmlvIjp7ImF1dGgiOiJlQT09In19fQ=="},"type":"Opaque"}"#;
    let names = NamePatterns::default();
    let mut state = ClusterState::default();
    let body = |secret: &str| format!(r#","responseObject":{secret}"#);
    let mut read = |text: String| read(&text, &names, Some(&mut state));
    let exposure = read(event("get", "x", "", "200", &body(opaque)));
    assert_eq!((exposure.kind, exposure.evidence), (ExposureKind::Payload, Some(Evidence::Content)));
    assert_eq!(exposure.logins.hosts, ["ghcr.io"]);
    // It is still known if a response only shows its type, or nothing.
    let row = r#"{"kind":"Table","rows":[{"cells":["x","Opaque",1,"1d"],"object":null}]}"#;
    let table = read(event("list", "", "", "200", &body(row)));
    assert_eq!((table.kind, table.evidence), (ExposureKind::Metadata, Some(Evidence::Content)));
    let metadata = event("get", "x", "", "200", "").replace("RequestResponse", "Metadata");
    assert_eq!(read(metadata.clone()).evidence, Some(Evidence::Content));
    // Until other data is shown.
    let other = r#"{"kind":"Secret","metadata":{"name":"x"},"data":{"a":"eA=="},"type":"Opaque"}"#;
    assert_eq!(read(event("get", "x", "", "200", &body(other))).kind, ExposureKind::None);
    assert_eq!(read(metadata).kind, ExposureKind::None);
}

#[test]
fn decoys_do_not_displace_credentials_and_what_is_left_out_is_said() {
    let secret = |namespace: &str, name: &str, hosts: std::ops::Range<usize>| {
        use base64::Engine as _;
        let servers: Vec<String> = hosts
            .map(|number| format!(r#""{namespace}-{name}-{number}.example":{{"auth":"eA=="}}"#))
            .collect();
        let config = format!(r#"{{"auths":{{{}}}}}"#, servers.join(","));
        let config = base64::engine::general_purpose::STANDARD.encode(config);
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}"}},"data":{{".dockerconfigjson":"{config}"}},"type":"kubernetes.io/dockerconfigjson"}}"#
        )
    };
    let list = |items: &[String]| {
        let body = format!(r#","responseObject":{{"kind":"SecretList","items":[{}]}}"#, items.join(","));
        event("list", "", "", "200", &body)
    };
    // One credential with more hosts than an alert names.
    let text = list(&[secret("aaa", "decoy", 0..500), secret("production", "real", 0..1)]);
    let exposure = read(&text, &NamePatterns::default(), None);
    assert!(exposure.logins.hosts.iter().take(2).any(|host| host == "production-real-0.example"));
    assert!(exposure.is_truncated && exposure.logins.hosts.len() < 200);
    // More credentials than an alert names: those of other namespaces, and those known before, come first.
    let mut items: Vec<String> = (0..3000).map(|number| secret("aaa", &number.to_string(), 0..1)).collect();
    items.push(secret("production", "real", 0..1));
    items.push(secret("p", "x", 0..1));
    let exposure = read_known(&list(&items));
    assert_eq!((exposure.count, exposure.secrets.len(), exposure.is_truncated), (3002, 1000, true));
    assert_eq!(exposure.secrets[0], "p/x");
    assert!(exposure.secrets[..3].contains(&"production/real".to_owned()), "{:?}", &exposure.secrets[..3]);
    assert_eq!(exposure.logins.hosts[0], "p-x-0.example");
    let few = read(&list(&items[2999..]), &NamePatterns::default(), None);
    assert!(!few.is_truncated && few.secrets == ["aaa/2999", "production/real", "p/x"]);
}

#[test]
fn deleted_credentials_stay_known_until_it_is_proven_that_they_are_gone() {
    const STATUS: &str = r#","responseObject":{"kind":"Status","status":"Success"}"#;
    let item =
        |rest: &str| format!(r#"{{"metadata":{{"name":"x"{rest}}},"type":"kubernetes.io/dockercfg"}}"#);
    let list = |rest: &str| format!(r#","responseObject":{{"kind":"SecretList","items":[{}]}}"#, item(rest));
    let options = |options: &str| format!(r#","requestObject":{{"kind":"DeleteOptions",{options}}}"#);
    for (verb, query, code, bodies, is_known) in [
        ("delete", "?dryRun=All", "200", STATUS.to_owned(), true),
        ("delete", "", "200", options(r#""dryRun":["All"]"#) + STATUS, true),
        ("delete", "", "404", STATUS.to_owned(), true),
        ("delete", "", "200", String::new(), true),
        ("delete", "?propagationPolicy=Foreground", "200", format!(r#","responseObject":{DOCKER}"#), true),
        ("delete", "", "200", STATUS.to_owned(), false),
        // If there is a body, it decides.
        ("delete", "?dryRun=All", "200", options(r#""gracePeriodSeconds":0"#) + STATUS, false),
        ("deletecollection", "?label%53elector=a", "200", String::new(), true),
        ("deletecollection", "", "200", String::new(), true),
        ("deletecollection", "?dryRun=All", "200", list(""), true),
        ("deletecollection", "", "200", options(r#""dryRun":["All"]"#) + &list(""), true),
        ("deletecollection", "?propagationPolicy=Orphan", "200", list(""), true),
        ("deletecollection", "", "200", list(r#","finalizers":["a/b"]"#), true),
        (
            "deletecollection",
            "?limit=1",
            "200",
            r#","responseObject":{"kind":"SecretList","items":[]}"#.to_owned(),
            true,
        ),
        ("deletecollection", "?labelSelector=a", "200", list(""), false),
    ] {
        let mut state = known();
        let name = if verb == "delete" { "x" } else { "" };
        let text = event(verb, name, query, code, &bodies);
        crate::detection::registry::learn(
            &mut Event::new(text.as_bytes()),
            &NamePatterns::default(),
            &mut state,
        );
        let still = state.evidence("p", "x", &NamePatterns::default());
        assert_eq!(still, is_known.then_some(Evidence::Type), "{text}");
    }
    // A custom resource of the same name.
    let mut state = known();
    let text = event("delete", "x", "", "200", STATUS)
        .replace(r#""resource""#, r#""apiGroup":"evil.io","resource""#);
    crate::detection::registry::learn(&mut Event::new(text.as_bytes()), &NamePatterns::default(), &mut state);
    assert!(state.evidence("p", "x", &NamePatterns::default()).is_some());
    // An unproven deletion is proven by a later read that finds nothing, and refuted by one that does.
    for (code, path, is_known) in [
        ("200", "/api/v1/", true),
        ("404", "/api/v1/", false),
        // The apiserver has no such path, whether or not there is a secret.
        ("404", "/api/v9/", true),
        ("404", "/apis//v1/", true),
    ] {
        let mut state = known();
        for text in [event("delete", "x", "/x", "200", ""), event("get", "x", "/x", code, "")] {
            let text = text.replace("RequestResponse", "Metadata").replace("/api/v1/", path);
            crate::detection::registry::learn(
                &mut Event::new(text.as_bytes()),
                &NamePatterns::default(),
                &mut state,
            );
        }
        assert_eq!(state.evidence("p", "x", &NamePatterns::default()).is_some(), is_known);
        assert_eq!(state.credentials_with_times().count(), 1 + usize::from(code == "200"));
    }
}

#[test]
fn types_are_learned_from_what_was_persisted() {
    let names = NamePatterns::new(["x"]).unwrap();
    let tls = DOCKER.replace("kubernetes.io/dockerconfigjson", "kubernetes.io/tls");
    for (verb, query, code, group, bodies) in [
        ("create", "?dryRun=All", "201", "", format!(r#","requestObject":{tls}"#)),
        ("create", "", "409", "", format!(r#","requestObject":{tls},"responseObject":{{"kind":"Status"}}"#)),
        ("create", "", "201", "evil.io", format!(r#","requestObject":{tls},"responseObject":{tls}"#)),
        ("patch", "", "403", "", format!(r#","requestObject":{tls}"#)),
        (
            "patch",
            "",
            "200",
            "",
            r#","requestObject":{"metadata":{"annotations":{"type":"kubernetes.io/tls"}}}"#.to_owned(),
        ),
    ] {
        let mut state = ClusterState::default();
        let text = event(verb, "x", query, code, &bodies)
            .replace(r#""resource""#, &format!(r#""apiGroup":"{group}","resource""#));
        crate::detection::registry::learn(&mut Event::new(text.as_bytes()), &names, &mut state);
        assert_eq!(state.evidence("p", "x", &names), Some(Evidence::Name), "{text}");
    }
    // The request timed out, and the write may have succeeded.
    let mut state = ClusterState::default();
    let text = event(
        "create",
        "x",
        "?timeout=1ms",
        "504",
        &format!(r#","requestObject":{DOCKER},"responseObject":{{"kind":"Status"}}"#),
    );
    crate::detection::registry::learn(&mut Event::new(text.as_bytes()), &names, &mut state);
    assert_eq!(state.evidence("p", "x", &names), Some(Evidence::Type));
}

#[test]
fn presumed_reads_of_many_credentials_name_some_of_each_namespace() {
    let mut state = ClusterState::default();
    let names = NamePatterns::default();
    for number in 0..5000 {
        state.record_type("aaa", &number.to_string(), true, None, &names);
    }
    state.record_type("production", "real", true, None, &names);
    let text = event("list", "", "", "200", "").replace(r#","namespace":"p""#, "");
    let exposure = read(&text, &names, Some(&mut state));
    assert_eq!((exposure.count, exposure.secrets.len(), exposure.is_truncated), (5001, 1000, true));
    assert!(exposure.secrets[..2].contains(&"production/real".to_owned()));
    // A namespace whose name is a prefix of another one's.
    assert_eq!(
        read(&event("list", "", "", "200", "").replace(r#""p""#, r#""prod""#), &names, Some(&mut state))
            .count,
        0
    );
}

#[test]
fn a_secret_without_a_name_is_reported() {
    let body = DOCKER.replace(r#""name":"x","#, "");
    let list = format!(r#","responseObject":{{"kind":"SecretList","items":[{body}]}}"#);
    let exposure = read(&event("list", "", "", "200", &list), &NamePatterns::default(), None);
    assert_eq!((exposure.kind, exposure.secrets), (ExposureKind::Payload, vec!["p/*".to_owned()]));
}
