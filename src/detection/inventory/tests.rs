use std::fmt::Write as _;

use base64::Engine as _;

use super::*;
use crate::detection::registry::inventory::{DeclaredSecret, MAX_ENTRIES};

fn settings() -> Settings {
    let origin = Origin { source: "test".to_owned(), time: 1_000_000_000 };
    Settings { origin, namespace: None, asserts_credentials: false }
}

fn inventory(text: &str) -> Inventory {
    let mut inventory = Inventory::default();
    read(text.as_bytes(), &settings(), &mut inventory).unwrap();
    inventory
}

fn credentials(text: &str) -> Vec<String> {
    inventory(text).credentials().map(|(key, _)| key.to_owned()).collect()
}

fn error(text: &str) -> (usize, String) {
    let error = read(text.as_bytes(), &settings(), &mut Inventory::default()).unwrap_err();
    (error.line, error.message)
}

#[test]
fn reads_tables_of_kubectl() {
    for (table, expected) in [
        (
            "NAMESPACE   NAME   TYPE                             DATA   AGE\nprod        x7     kubernetes.io/dockerconfigjson   1      3d\nprod        tls    kubernetes.io/tls                2      3d\n",
            vec!["prod/x7"],
        ),
        (
            "NAME   TYPE                      DATA   AGE\nx7     kubernetes.io/dockercfg   1      3d2h\n",
            vec!["*/x7"],
        ),
        ("NS     SECRET   TYPE\nprod   x7       kubernetes.io/dockercfg\n", vec!["prod/x7"]),
        // Without headings.
        ("prod   x7   kubernetes.io/dockercfg   1   3d\nprod   y   Opaque   1   3d\n", vec!["prod/x7"]),
        ("prod kubernetes.io/dockercfg\n", vec!["*/prod"]),
        // Several resources, with labels, and with Windows line ends.
        (
            "NAMESPACE   NAME              TYPE                      DATA   AGE   LABELS\r\nprod        secret/x7         kubernetes.io/dockercfg   1      3d    <none>\r\n\r\nNAMESPACE   NAME                 SECRETS   AGE\r\n",
            vec!["prod/x7"],
        ),
        ("NS     NAME   PULL\nprod   web    a,b\nprod   other  <none>\n", vec!["prod/a", "prod/b"]),
        ("No resources found\n", vec![]),
    ] {
        if table.contains("SECRETS   AGE") {
            // The second table lists service accounts without the names of their secrets.
            assert!(error(table).1.contains("service accounts"), "{table}");
            continue;
        }
        assert_eq!(credentials(table), expected, "{table}");
    }
}

#[test]
fn names_alone_are_credentials_if_a_person_says_so() {
    let names = "secret/a\nsecret/b\npod/c\n";
    assert!(credentials(names).is_empty());
    let mut inventory = Inventory::default();
    let settings = Settings { namespace: Some("shop".to_owned()), asserts_credentials: true, ..settings() };
    let summary = read(names.as_bytes(), &settings, &mut inventory).unwrap();
    assert_eq!((summary.objects, summary.ignored, summary.untyped), (2, 1, 0));
    let keys: Vec<&str> = inventory.credentials().map(|(key, _)| key).collect();
    assert_eq!(keys, ["shop/a", "shop/b"]);
}

#[test]
fn reads_objects_and_lists_in_json_and_yaml() {
    for (text, expected) in [
        (
            r#"{"kind":"List","items":[{"kind":"Secret","metadata":{"namespace":"p","name":"a"},"type":"kubernetes.io/dockercfg"},
               {"kind":"ServiceAccount","metadata":{"namespace":"q","name":"default"},"imagePullSecrets":[{"name":"b"}]}]}"#,
            vec!["p/a", "q/b"],
        ),
        (
            r#"{"kind":"SecretList","items":[{"metadata":{"namespace":"p","name":"a"},"type":"kubernetes.io/dockercfg"}]}"#,
            vec!["p/a"],
        ),
        // Values one after the other, and a list without a kind.
        (
            r#"{"kind":"Secret","metadata":{"namespace":"p","name":"a"},"type":"kubernetes.io/dockercfg"}
               [{"kind":"Pod","metadata":{"namespace":"p","name":"w"},"spec":{"imagePullSecrets":[{"name":"c"}]}}]"#,
            vec!["p/a", "p/c"],
        ),
        (
            "# comment\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: p}\ntype: kubernetes.io/dockerconfigjson\n---\nkind: CronJob\nmetadata: {name: j, namespace: p}\nspec: {jobTemplate: {spec: {template: {spec: {imagePullSecrets: [{name: d}]}}}}}\n",
            vec!["p/a", "p/d"],
        ),
        (
            "kind: SealedSecret\nmetadata: {name: s, namespace: p}\nspec: {template: {type: kubernetes.io/dockerconfigjson}}\n",
            vec!["p/s"],
        ),
        (
            "kind: ExternalSecret\nmetadata: {name: s, namespace: p}\nspec: {target: {name: t, template: {type: kubernetes.io/dockerconfigjson}}}\n",
            vec!["p/t"],
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- kind: Secret\n  metadata: {name: a, namespace: p}\n  type: kubernetes.io/dockercfg\n",
            vec!["p/a"],
        ),
    ] {
        assert_eq!(credentials(text), expected, "{text}");
    }
}

#[test]
fn reads_what_helm_prints_around_manifests() {
    let text = "NAME: my\nNAMESPACE: shop\nHOOKS:\n---\n# Source: my/hook.yaml\nkind: Job\nmetadata: {name: h, namespace: p}\nspec: {template: {spec: {imagePullSecrets: [{name: a}]}}}\nMANIFEST:\n---\n# Source: my/sa.yaml\nkind: ServiceAccount\nmetadata: {name: s, namespace: p}\nimagePullSecrets:\n- name: b\n\nNOTES:\nkind: of you to read this\n---\n{{ not yaml\n";
    assert_eq!(credentials(text), ["p/a", "p/b"]);
}

#[test]
fn roles_and_bindings_are_read_in_any_order() {
    let text = r#"{"kind":"List","items":[
        {"kind":"RoleBinding","metadata":{"namespace":"p","name":"b"},"roleRef":{"kind":"Role","name":"r"},"subjects":[]},
        {"kind":"Role","metadata":{"namespace":"p","name":"r"},"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}]},
        {"kind":"ClusterRole","metadata":{"name":"none"},"rules":[]},
        {"kind":"ClusterRoleBinding","metadata":{"name":"d"},"roleRef":{"kind":"ClusterRole","name":"other"}},
        {"kind":"ClusterRoleBinding","metadata":{"name":"c"},"roleRef":{"kind":"ClusterRole","name":"cluster-admin"}}]}"#;
    let inventory = inventory(text);
    let keys: Vec<&str> = inventory.roles.keys().map(|key| &**key).collect();
    // A role that grants nothing of interest is still known, unlike a role that is only named by a binding.
    assert_eq!(keys, ["/none", "binding:/c", "binding:p/b", "p/r"]);
    assert_eq!(inventory.roles["binding:p/b"].value, ["get"]);
}

#[test]
fn keeps_hosts_and_user_names_and_no_data() {
    const MARKERS: [&str; 5] = ["hunter2", "hunter3", "hunter4", "hunter5", "hunter6"];
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let config = encode(&format!(
        r#"{{"auths":{{"https://reg.example.com/v1":{{"username":"bob","password":"{}","auth":"{}"}}}}}}"#,
        MARKERS[0],
        encode(&format!("bob:{}", MARKERS[0]))
    ));
    let applied = format!(r#"{{\"stringData\":{{\"p\":\"{}\"}}}}"#, MARKERS[1]);
    let text = format!(
        r#"{{"kind":"List","items":[{{"kind":"Secret","metadata":{{"namespace":"p","name":"a","annotations":{{"note":"{}","kubectl.kubernetes.io/last-applied-configuration":"{applied}"}},"labels":{{"l":"{}"}}}},"type":"kubernetes.io/dockerconfigjson","data":{{".dockerconfigjson":"{config}","x":"{}"}},"stringData":{{"y":"{}"}}}}]}}"#,
        MARKERS[2],
        MARKERS[3],
        encode(MARKERS[4]),
        MARKERS[4],
    );
    let inventory = inventory(&text);
    let (key, secret) = inventory.credentials().next().unwrap();
    assert_eq!(
        (key, &secret.hosts[..], &secret.usernames[..]),
        ("p/a", &["reg.example.com".to_owned()][..], &["bob".to_owned()][..])
    );
    let kept = format!("{inventory:?}{}", export(&inventory));
    for marker in MARKERS {
        assert!(!kept.contains(marker) && !kept.contains(&encode(marker)), "{marker}");
    }
}

#[test]
fn an_export_can_be_imported_again() {
    let mut all = inventory(
        r#"{"kind":"List","items":[
            {"kind":"Secret","metadata":{"namespace":"p","name":"a"},"type":"Opaque","stringData":{"config.json":"{\"auths\":{\"r.io\":{\"username\":\"u\",\"password\":\"p\"}}}"}},
            {"kind":"Pod","metadata":{"namespace":"p","name":"w"},"spec":{"imagePullSecrets":[{"name":"c"}],"volumes":[{"secret":{"secretName":"a"}}]}},
            {"kind":"Namespace","metadata":{"name":"p","labels":{"pod-security.kubernetes.io/enforce":"restricted"}}},
            {"kind":"Node","metadata":{"name":"n"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"},{"type":"ExternalIP","address":"fd00::1"}]}},
            {"kind":"ClusterRole","metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["secrets"],"verbs":["*"]}]}]}"#,
    );
    let mut later = settings();
    later.origin = Origin { source: "later".to_owned(), time: 5_000_000_000 };
    read(b"NAMESPACE  NAME  TYPE\np  t  kubernetes.io/tls\n", &later, &mut all).unwrap();
    assert_eq!((all.secrets().count(), all.pods.len(), all.roles.len(), all.namespaces.len()), (3, 1, 1, 1));
    assert_eq!(all.nodes().count(), 1);
    let mut again = inventory(&export(&all));
    assert_eq!(again, all);
    again.remove_unused_origins();
    assert_eq!(inventory(&export(&again)), again);
}

fn nodes(text: &str) -> Vec<(String, String)> {
    let inventory = inventory(text);
    let nodes = inventory.nodes().map(|(name, node)| {
        let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
        (name.to_owned(), addresses.join(" "))
    });
    nodes.collect()
}

#[test]
fn reads_the_addresses_of_nodes() {
    let pair = |name: &str, addresses: &str| (name.to_owned(), addresses.to_owned());
    let object = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"},"spec":{"podCIDRs":["10.42.0.0/24"]},"status":{"addresses":[
        {"type":"InternalIP","address":"10.0.0.1"},{"type":"InternalIP","address":"FD00::1"},{"type":"ExternalIP","address":"203.0.113.1"},
        {"type":"Hostname","address":"10.9.9.9"},{"type":"InternalDNS","address":"n1.local"},{"type":"InternalIP","address":"::ffff:10.0.0.1"},
        {"type":"InternalIP","address":"127.0.0.1"},{"type":"InternalIP","address":"0.0.0.0"},{"type":"InternalIP","address":"x"},{"type":"InternalIP"},7]}}"#;
    let expected = vec![pair("n1", "10.0.0.1 fd00::1 203.0.113.1")];
    assert_eq!(nodes(object), expected);
    assert_eq!(nodes(&format!(r#"{{"kind":"List","items":[{object}]}}"#)), expected);
    assert_eq!(
        nodes(
            "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus:\n  addresses:\n  - {address: 10.0.0.1, type: InternalIP}\n"
        ),
        [pair("n1", "10.0.0.1")]
    );
    // A manifest, and invalid statuses.
    for text in [
        r#"{"kind":"Node","metadata":{"name":"n1"}}"#,
        r#"{"kind":"Node","metadata":{"name":"n1"},"status":{"addresses":{"type":"InternalIP"}}}"#,
        r#"{"kind":"Node","metadata":{"name":"a/b"},"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}]}}"#,
    ] {
        assert_eq!(nodes(text), [], "{text}");
    }
    let table = "NAME   STATUS   ROLES                       AGE   VERSION        INTERNAL-IP   EXTERNAL-IP   OS-IMAGE             KERNEL-VERSION   CONTAINER-RUNTIME\n\
                 n1     Ready    control-plane,etcd,master   3d    v1.33.1+k3s1   10.0.0.1      <none>        Ubuntu 24.04.1 LTS   6.8.0            containerd://2.0\n\
                 n2     Ready    <none>                      3d    v1.33.1+k3s1   10.0.0.2      203.0.113.2   Ubuntu 24.04.1 LTS   6.8.0            containerd://2.0\n\
                 n3     Ready    <none>                      3d    v1.33.1+k3s1   <none>        <none>        Ubuntu 24.04.1 LTS   6.8.0            containerd://2.0\n";
    let expected = [pair("n1", "10.0.0.1"), pair("n2", "10.0.0.2 203.0.113.2")];
    assert_eq!(nodes(table), expected);
    // Several resources, and custom columns.
    assert_eq!(
        nodes(&format!("{}\nNAMESPACE  NAME  TYPE\np  secret/a  Opaque\n", table.replace("\nn", "\nnode/n"))),
        expected
    );
    assert_eq!(nodes("NAME  INTERNAL-IP\nn1  10.0.0.1,fd00::1\n"), [pair("n1", "10.0.0.1 fd00::1")]);
    let (line, message) =
        error("NAME   STATUS   ROLES    AGE   VERSION\nn1     Ready    <none>   3d    v1.33.1\n");
    assert!(line == 1 && message.contains("-o wide"), "{message}");
    // More addresses than the limit.
    let addresses: Vec<String> = (0..99).map(|number| format!("10.0.1.{number}")).collect();
    let many = nodes(&format!("NAME  INTERNAL-IP\nn1  {}\n", addresses.join(",")));
    assert_eq!(many[0].1.split(' ').count(), 16);
}

#[test]
fn a_later_declaration_replaces_what_it_says() {
    let mut all = inventory(
        "NAMESPACE  NAME  TYPE  DATA\np  a  kubernetes.io/dockercfg  1\np  b  kubernetes.io/tls  1\n",
    );
    read(b"NAMESPACE  NAME  TYPE  DATA\np  a  Opaque  1\n", &settings(), &mut all).unwrap();
    assert_eq!(all.credentials().count(), 0);
    // A name alone provides less information than the type that is known already.
    read(b"NAMESPACE  NAME\np  b\n", &settings(), &mut all).unwrap();
    let b = all.secrets().find(|(key, _)| *key == "p/b").unwrap().1;
    assert_eq!(b.secret_type.as_deref(), Some("kubernetes.io/tls"));
}

#[test]
fn errors_name_the_line() {
    for (text, line, part) in [
        ("", 1, "empty"),
        ("hello\n", 1, "not recognized"),
        ("NAMESPACE  NAME  TYPE\np  a  Opaque\np\n", 3, "columns"),
        ("NAMESPACE  NAME  READY  STATUS\np  a  1/1  Running\n", 1, "-o json"),
        ("{\"kind\":\"List\",\n\"items\":[\n{]}", 3, "JSON"),
        ("{\"kind\":\"Secret\"}\n{\"x\":1}\n", 2, "without `kind`"),
        ("kind: A\n---\nkind: Secret\nmetadata:\n  name: [\n---\n", 6, "YAML"),
        ("kind: Secret\nmetadata:\n  name: {{ .Values.x }}\n", 3, "helm template"),
        ("apiVersion: v1\nspec: {}\n", 1, "no object"),
        ("{\"kind\":\"PullwatchInventory\",\n\"apiVersion\":\"pullwatch/v9\"}", 2, "version"),
        ("{\"kind\":\"PullwatchInventory\",\n\"apiVersion\":1}", 2, "not a valid inventory"),
    ] {
        let (at, message) = error(text);
        assert!(at == line && message.contains(part), "{text}: line {at}: {message}");
    }
    assert!(
        read(b"\xff\xfeN\0", &settings(), &mut Inventory::default()).unwrap_err().message.contains("UTF-16")
    );
}

#[test]
fn entries_and_aliases_are_bounded() {
    let mut inventory = Inventory::default();
    for number in 0..MAX_ENTRIES {
        inventory.add_secret(&format!("p/{number}"), DeclaredSecret::default()).unwrap();
    }
    assert!(inventory.add_secret("p/x", DeclaredSecret::default()).is_err());
    let mut bomb = "kind: Secret\nl0: &l0 [aaaaaaaaaaaaaaaa, a]\n".to_owned();
    for level in 1..40 {
        let _ = writeln!(bomb, "l{level}: &l{level} [*l{0}, *l{0}]", level - 1);
    }
    assert!(error(&bomb).1.contains("aliases"));
}
