use super::*;

fn shown_with(json: &str, paths: &[&str]) -> String {
    let (key, mut show) = (RedactionKey::default(), ShowList::default());
    for path in paths {
        show.add(path).unwrap();
    }
    let redactor = Redactor::new(&key, &show);
    let value = Raw::first(json.as_bytes()).unwrap();
    String::from_utf8(redactor.show(redactor.event(), value).into_owned()).unwrap()
}

fn shown(json: &str) -> String {
    shown_with(json, &[])
}

#[test]
fn replaces_strings_by_type_length_and_hash_and_keeps_their_keys() {
    insta::assert_snapshot!(
        shown(r#"{"verb":"get","responseObject":{"kind":"Secret","data":{".dockerconfigjson":"bG9vdA=="},"type":"t"}}"#),
        @r#"{"verb":"get","responseObject":{"kind":"Secret","data":{".dockerconfigjson":"<redacted string of 8 bytes, hash 933e492ac175>"},"type":"t"}}"#
    );
    insta::assert_snapshot!(
        shown(r#"{"responseObject":{"items":[{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{loot}"}},"stringData":{"a":{"b":[1,true,"loot"]}}}]}}"#),
        @r#"{"responseObject":{"items":[{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"<redacted string of 6 bytes, hash 5678521aa66e>"}},"stringData":{"a":{"b":["<redacted>","<redacted>","<redacted string of 4 bytes, hash 8dbe265dd312>"]}}}]}}"#
    );
    insta::assert_snapshot!(
        shown(r#"{"requestObject":{"spec":{"replicas":3,"containers":[{"image":"nginx:1","env":[{"name":"A","value":"loot"}],"command":["sh"]}]}},"responseObject":{"status":{"token":"loot","expirationTimestamp":"2026-01-01T00:00:00Z"}}}"#),
        @r#"{"requestObject":{"spec":{"replicas":3,"containers":[{"image":"nginx:1","env":[{"name":"A","value":"<redacted string of 4 bytes, hash 8dbe265dd312>"}],"command":["<redacted string of 2 bytes, hash 1ff7afc07b39>"]}]}},"responseObject":{"status":{"token":"<redacted string of 4 bytes, hash 8dbe265dd312>","expirationTimestamp":"2026-01-01T00:00:00Z"}}}"#
    );
}

#[test]
fn redacts_whatever_the_allowlist_does_not_name() {
    for body in [
        r#"{"spec":{"values":{"env":{"P":"loot"},"extraEnv":[{"name":"P","value":"loot"}],"registryPassword":"loot"}}}"#,
        r#"{"spec":{"containers":[{"env":["PASSWORD=loot"],"args":["--token=loot"]}]}}"#,
        r#"{"metadata":{"annotations":{"openshift.io/token-secret.value":"loot","kapp.k14s.io/original":"{\"data\":{\"x\":\"loot\"}}"}}}"#,
        r#"{"metadata":{"managedFields":[{"fieldsV1":{"f:spec":{"v:\"loot\"":{}}}}]}}"#,
        r#"{"kind":"Status","message":"cannot be handled: {\"x\":\"loot\"}","details":{"causes":[{"message":"loot"}]}}"#,
        r#"{"spec":{"source":{"helm":{"values":"password: loot","parameters":[{"name":"p","value":"loot"}]}}}}"#,
        r#"{"auths":{"https://ghcr.io/v2?token=loot":{"auth":"loot"}}}"#,
        r#"{"rows":[{"cells":["loot"]}]}"#,
        r#""{\"data\":\"loot\"}""#,
        r#"["loot",{"kind":"loot"},[{"op":"loot loot"}]]"#,
        r#"{"image":"https://bot:loot@registry.local/x","spec":{"containers":[{"image":"bot:loot@registry.local/x"}]}}"#,
        r#"{"kind":"loot loot","metadata":{"name":"loot\nloot","labels":{"a":"loot loot"}}}"#,
    ] {
        for member in ["requestObject", "responseObject", "nosuch"] {
            let shown = shown(&format!("{{\"{member}\":{body}}}"));
            assert!(!shown.contains("loot"), "{shown}");
        }
    }
    assert!(
        !shown(
            r#"{"responseStatus":{"code":400,"message":"loot","details":{"causes":[{"message":"loot"}]}}}"#
        )
        .contains("loot")
    );
    assert!(
        !shown(r#"{"annotations":{"patch.webhook.admission.k8s.io/round_0_index_0":"loot","x":"loot"}}"#)
            .contains("loot")
    );
    assert!(
        !shown(r#"{"requestObject":{"spec":{"pin":123456,"port":31,"values":{"x":98765}}}}"#)
            .contains("98765")
    );
}

#[test]
fn follows_the_paths_of_json_patches() {
    insta::assert_snapshot!(
        shown(r#"{"requestObject":[{"op":"add","path":"/data/x","value":"loot"},{"op":"add","path":"/metadata/labels/x","value":"fine"},{"op":"add","path":"/spec/containers/0/env/-","value":{"name":"P","value":"loot"}},{"op":"add","path":"/data/x","path":"/metadata/labels/x","value":"loot"}]}"#),
        @r#"{"requestObject":[{"op":"add","path":"/data/x","value":"<redacted string of 4 bytes, hash 8dbe265dd312>"},{"op":"add","path":"/metadata/labels/x","value":"fine"},{"op":"add","path":"/spec/containers/0/env/-","value":{"name":"P","value":"<redacted string of 4 bytes, hash 8dbe265dd312>"}},{"op":"add","path":"/data/x","path":"/metadata/labels/x","value":"<redacted string of 4 bytes, hash 8dbe265dd312>"}]}"#
    );
}

#[test]
fn redacts_below_escaped_keys() {
    assert!(!shown(r#"{"responseObject":{"d\u0061ta":{"x":"loot"}}}"#).contains("loot"));
    assert!(!shown(r#"{"r\u0065sponseObject":{"data":{"x":"loot"}}}"#).contains("loot"));
    assert!(!shown(r#"{"requestURI":"/a?b=1\u0026access_token=loot"}"#).contains("loot"));
}

#[test]
fn redacts_tokens_in_the_place_of_user_names() {
    let token = "x9Kd7Qm2Zp4Lw8Rt5Vb1";
    for event in [
        format!(
            r#"{{"user":{{"username":"{token}","groups":["a","{token}"],"extra":{{"a":["{token}"],"{token}":[]}}}}}}"#
        ),
        format!(r#"{{"impersonatedUser":{{"username":"{token}"}}}}"#),
        format!(
            r#"{{"requestObject":{{"subjects":[{{"kind":"User","name":"{token}"}}],"spec":{{"user":"{token}"}}}}}}"#
        ),
        format!(r#"{{"requestURI":"/api/v1/namespaces/x/services/y/proxy/{token}"}}"#),
    ] {
        assert!(!shown(&event).contains(token), "{}", shown(&event));
    }
}

#[test]
fn shows_the_paths_of_a_rule_but_no_secrets() {
    let event = r#"{"requestObject":{"spec":{"source":{"url":"git@host:a b","deep":[{"x":"y z"}]},"token":"loot"},"data":{"x":"loot"},"stringData":{"x":"loot"}}}"#;
    let all = shown_with(event, &["/requestObject"]);
    assert!(all.contains("git@host:a b") && all.contains("y z") && !all.contains("loot"), "{all}");
    let some = shown_with(event, &["/requestObject/spec/*/deep/0", "/responseObject/x"]);
    assert!(some.contains("y z") && !some.contains("git@host"), "{some}");
    let map = r#"{"requestObject":{"kind":"ConfigMap","data":{"x":"a b","y":"c d"}}}"#;
    let one = shown_with(map, &["/requestObject/data/x"]);
    assert!(one.contains("a b") && !one.contains("c d"), "{one}");
    let twice = r#"{"requestObject":{"kind":"ConfigMap","kind":"Secret","data":{"x":"loot"}}}"#;
    assert!(!shown_with(twice, &["/requestObject/data/x"]).contains("loot"));
    let jwt = r#"{"requestObject":{"spec":{"x":"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln"}}}"#;
    assert!(!shown_with(jwt, &["/requestObject/spec/x"]).contains("eyJ"));
    let parameter = r#"{"requestURI":"/x/exec?command=sh&command=-c&input=a"}"#;
    assert!(shown_with(parameter, &["ka.uri.param[command]"]).contains("command=-c&input=<"));
    let mut list = ShowList::default();
    assert!(list.add("requestObject").is_err() && list.add("/").is_err() && list.add("ka.uri").is_err());
    for _ in 0..super::show::MAX_SHOW_PATHS {
        list.add("/a").unwrap();
    }
    assert!(list.add("/a").is_err() && list.all_candidates() == u32::MAX);
}

#[test]
fn hashes_depend_on_key_and_text() {
    let (show, event) = (ShowList::default(), r#"{"requestObject":{"a":"loot","b":"loot","c":"luck"}}"#);
    let hashes = |key: &RedactionKey| -> Vec<String> {
        let redactor = Redactor::new(key, &show);
        let text =
            String::from_utf8_lossy(&redactor.show(redactor.event(), Raw::first(event.as_bytes()).unwrap()))
                .into_owned();
        text.split("hash ").skip(1).map(|rest| rest[..HASH_LEN].to_owned()).collect()
    };
    let (public, own) = (hashes(&RedactionKey::default()), hashes(&RedactionKey::new([7; 32])));
    assert!(public[0] == public[1] && public[0] != public[2] && public[0] != own[0] && own[0] == own[1]);
    assert_eq!(format!("{:?}", RedactionKey::new([7; 32])), "RedactionKey");
}

#[test]
fn truncates_what_is_too_long_or_too_deep() {
    let deep = format!("{{\"requestObject\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
    assert!(shown(&deep).contains("<nested too deep>"));
    let long = format!("{{\"userAgent\":\"{}\"}}", "ä".repeat(MAX_SHOWN_LEN));
    let long = shown(&long);
    assert!(long.len() < MAX_SHOWN_LEN + 8 && long.ends_with('…'));
}
