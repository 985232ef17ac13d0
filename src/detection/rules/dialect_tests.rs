//! Rule files of other dialects and versions: what is loaded, skipped or rejected, compared with the reference engine.

use super::*;

fn load_text(text: &str) -> Loaded {
    load(&[SourceFile { name: "r.yaml".into(), text: text.to_owned() }], &Options::default())
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.rules.rules.iter().map(|rule| &*rule.name).collect()
}

fn rule(condition: &str) -> String {
    format!("- rule: R\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n")
}

#[test]
fn loads_what_the_reference_loads() {
    for text in [
        rule("join('/', (ka.target.namespace, ka.target.name, \"x\", 3)) = a/b"),
        rule("concat(ka.user.name, '-', ka.verb) = a-get"),
        rule("ka.user.name startswith oneof (a, b)"),
        rule("ka.user.name = anyof names and ka.verb = get") + "- list: names\n  items: [a, b]\n",
        // The modifier is a value if no list follows.
        rule("ka.user.name = oneof and ka.verb = get"),
        rule("ka.user.name in (two words, x)") + "- list: two words\n  items: [a]\n",
        "-\n".to_owned() + &rule("ka.verb = get") + "-\n",
        rule("ka.verb = get") + "  source:\n",
        rule("ka.verb = get") + "  source: ~\n",
        rule("ka.verb = get") + "  source: null\n",
        rule("ka.verb = get") + "  source: ''\n",
        rule("ka.verb = get") + "  capture: true\n  capture_duration: 10\n",
        rule("ka.verb = get") + "- rule: R\n  capture: true\n  override: {capture: replace}\n",
        "- macro: m\n  condition: ka.verb = get\n  override: {condition: replace}\n".to_owned() + &rule("m"),
        "- list: l\n  items: [get]\n  override: {items: replace}\n".to_owned() + &rule("ka.verb in (l)"),
        "- required_plugin_versions: [{name: k8saudit-eks, version: 0.13.0}, {name: container, version: 0.6.0}]\n"
            .to_owned()
            + &rule("ka.verb = get"),
    ] {
        let loaded = load_text(&text);
        assert!(!loaded.has_errors(), "{text}\n{:?}", loaded.diagnostics);
        assert_eq!(names(&loaded), ["R"], "{text}");
    }
}

#[test]
fn refuses_what_the_reference_refuses() {
    for text in [
        // Only a replacement defines it.
        "- macro: m\n  condition: and ka.verb = get\n  override: {condition: append}\n".to_owned(),
        "- list: l\n  items: [get]\n  override: {items: append}\n".to_owned(),
        rule("ka.verb = get") + "- rule: R\n  capture: true\n  override: {capture: append}\n",
        rule("join(',', ka.verb) = a"),
        rule("join(bare, (ka.verb, ka.user.name)) = a"),
        rule("join('/', (ka.verb ka.user.name)) = a"),
        rule("ka.user.name in oneof (a)"),
        "- required_plugin_versions: [{name: cloudtrail, version: 0.1.0}]\n".to_owned(),
        "- required_plugin_versions: [{name: k8saudit, version: 0.99.0}]\n".to_owned(),
    ] {
        assert!(load_text(&text).has_errors(), "{text}");
    }
}

#[test]
fn comparisons_of_exceptions_take_modifiers() {
    let exception = |comps: &str, values: &str| {
        rule("ka.verb = get")
            + "  exceptions:\n    - name: e\n      fields: [ka.user.name, ka.target.namespace]\n      comps: "
            + comps
            + "\n      values: "
            + values
            + "\n"
    };
    for comps in ["[startswith oneof, in]", "['  contains   allof ', =]", "[= anyof, glob]"] {
        let loaded = load_text(&exception(comps, "[[[a, b], c]]"));
        assert!(!loaded.has_errors(), "{comps}: {:?}", loaded.diagnostics);
    }
    for comps in ["[in oneof, =]", "[< anyof, =]", "[startswith someof, =]", "[startswith oneof more, =]"] {
        assert!(load_text(&exception(comps, "[[[a, b], c]]")).has_errors(), "{comps}");
    }
    // With one field given as a string.
    let scalar = rule("ka.verb = get")
        + "  exceptions:\n    - {name: e, fields: ka.user.name, comps: startswith anyof, values: ['a:', 'b:']}\n";
    assert!(!load_text(&scalar).has_errors());
}

#[test]
fn rules_about_system_calls_are_skipped_with_one_warning() {
    let text = "\
- macro: spawned
  condition: evt.type in (execve, execveat)
- list: shells
  items: [bash, sh]
- rule: Shell
  desc: d
  condition: spawned and proc.name in (shells)
  output: '%proc.name'
  priority: INFO
- rule: Write
  desc: d
  condition: evt.type = open and fd.name bcontains 00
  output: o
  priority: INFO
- rule: Secrets
  desc: d
  condition: ka.target.resource = secrets
  output: o
  priority: INFO
";
    let loaded = load_text(text);
    assert_eq!(names(&loaded), ["Secrets"]);
    let messages: Vec<&str> = loaded.diagnostics.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(messages, ["rule `Shell` and 1 more are about system calls; they are skipped"]);
    assert_eq!(loaded.why_empty(), None);
}

#[test]
fn a_rule_that_mixes_sources_is_an_error() {
    for text in [
        rule("ka.verb = get and proc.name = bash"),
        // `kevt` is about audit events.
        rule("kevt and proc.name = bash"),
        rule("proc.name = bash") + "  source: k8s_audit\n",
        // A misspelled field belongs to no source.
        rule("ka.verbs = get"),
    ] {
        assert!(load_text(&text).has_errors(), "{text}");
    }
    // The macro's errors are reported for the rule that is not skipped.
    let text = "- macro: m\n  condition: proc.name = a\n".to_owned()
        + &rule("m").replace('R', "S")
        + &rule("m and ka.verb = get");
    assert!(load_text(&text).has_errors());
}

#[test]
fn says_why_no_rule_is_left() {
    let reason = |text: &str| load_text(text).why_empty().unwrap_or_default();
    assert_eq!(reason(""), "the rule files define no rule");
    assert_eq!(reason(&(rule("ka.verb = get") + "  enabled: false\n")), "all rules are disabled");
    let wrong = rule("ka.verb = get") + "  source: k8saudit\n";
    assert_eq!(
        reason(&wrong),
        "the rules have the source `k8saudit`, and pullwatch evaluates those of `k8s_audit`; did you mean `source: k8s_audit`?"
    );
    assert!(!reason(&wrong.replace("k8saudit", "aws_cloudtrail")).contains("did you mean"));
    assert_eq!(load_text(&wrong).diagnostics[0].help, ["did you mean `k8s_audit`?"]);
}

/// Conditions, after the reference's own parser tests.
#[test]
fn conditions_are_read_as_by_the_reference() {
    for condition in [
        // Strings.
        r#"ka.user.name = "a \x41\x7e""#,
        r#"ka.user.name = "old\ blank""#,
        r"ka.user.name = 'it\'s'",
        r"ka.user.name = 'both \\''",
        r#"ka.user.name = "\b\f\n\r\t\/\\x""#,
        "ka.user.name = not",
        "ka.user.name = a.b.c",
        "ka.user.name = [a]{b}<c>*",
        // Modifiers are keywords; elsewhere they are values.
        "ka.user.name = oneof (a, b)",
        "ka.user.name = oneof\t(a)",
        "ka.user.name =  anyof ( a , b )",
        "ka.user.name startswith allof (a)",
        "ka.user.name = oneof",
        "ka.user.name =oneof",
        "ka.user.name = oneof_them",
        // White space and parentheses.
        "(ka.verb=get)and(ka.verb exists)",
        "not(ka.verb=get)or not not ka.verb exists",
        "((((((((((ka.verb=get))))))))))",
        // Lists.
        "ka.verb in ()",
        "ka.verb in (get, 'list', \"watch\", ka.user.name)",
        "ka.verb in ( get,list )",
        // Transformers and fields on the right.
        "tolower(ka.user.name) = toupper(ka.verb)",
        "b64( tolower( ka.user.name ) ) = x",
        "ka.user.name = val(ka.verb)",
        "ka.user.name in val(ka.user.groups)",
        "join(\"->\", (toupper(ka.user.name), 'x')) = a",
    ] {
        let loaded = load_text(&format!(
            "- rule: R\n  desc: d\n  output: o\n  priority: INFO\n  condition: >\n    {condition}\n"
        ));
        assert!(!loaded.has_errors(), "{condition}\n{:?}", loaded.diagnostics);
    }
    for condition in [
        r#"ka.user.name = "bad \q""#,
        r#"ka.user.name = "bad \x4""#,
        r#"ka.user.name = "no byte \xff""#,
        r#"ka.user.name = "other quote \' ""#,
        // The last quote follows a backslash, so it does not close.
        r#"ka.user.name = "a\\""#,
        "ka.user.name = 'open",
        "ka.user.name = a,",
        "ka.user.name = a=",
        "ka.user.name =oneof (a)",
        "ka.user.name =anyof(a)",
        "ka.user.name == allof(a)",
        "ka.user.name contains oneof(a, b)",
        "ka.user.name = ONEOF (a)",
        "ka.user.name = oneof_them (a)",
        "ka.user.name = oneof (a,)",
        "ka.user.name = oneof (,a)",
        "ka.user.name = oneof (a",
        "ka.user.name > oneof (1)",
        "ka.user.name in oneof (a)",
        "ka.verb in (get,,list)",
        "ka.verb in get, list",
        "ka.verb = get and",
        "and ka.verb = get",
        "not",
        "()",
        "(ka.verb = get",
        "ka.verb = get)",
        "ka.verb == = get",
        "join() = a",
        "tolower(get) = a",
        "tolower(ka.verb = a",
    ] {
        let text =
            format!("- rule: R\n  desc: d\n  output: o\n  priority: INFO\n  condition: >\n    {condition}\n");
        assert!(load_text(&text).has_errors(), "{condition}");
    }
}

/// Definitions and what changes them, after the reference's own loader tests.
#[test]
fn definitions_are_combined_as_by_the_reference() {
    let get = rule("ka.verb = get");
    let exception = "  exceptions: [{name: e, fields: [ka.user.name], comps: [=], values: [[a]]}]\n";
    for more in [
        "- rule: R\n  condition: or ka.verb = list\n  append: true\n",
        "- rule: R\n  condition: or ka.verb = list\n  output: more\n  desc: more\n  override: {condition: append, output: append, desc: append}\n",
        "- rule: R\n  condition: ka.verb = list\n  priority: ERROR\n  enabled: false\n  override: {condition: replace, priority: replace, enabled: replace}\n",
        "- rule: R\n  enabled: false\n",
        "- rule: R\n  tags: [x]\n  override: {tags: append}\n",
        "- rule: R\n  tags: [x]\n  override: {tags: replace}\n",
        "- rule: R\n  exceptions: [{name: f, fields: [ka.verb], comps: [=]}]\n  override: {exceptions: append}\n",
        "- rule: R\n  warn_evttypes: false\n  override: {warn_evttypes: replace}\n",
        "- rule: R\n  capture_duration: 5000\n  override: {capture_duration: replace}\n",
        "- rule: R\n  desc: again\n  condition: ka.verb = list\n  output: o\n  priority: INFO\n",
        "- macro: m\n  condition: ka.verb = get\n- macro: m\n  condition: or ka.verb = list\n  append: true\n",
        "- list: l\n  items: [a]\n- list: l\n  items: [b]\n  append: true\n",
        "- list: l\n  items: [a]\n  unknown: b\n",
        "- macro: m\n  condition: ka.verb = get\n  priority: INFO\n",
        "- required_engine_version: 0.26.0\n",
        "- required_engine_version: 13\n",
        "- list: l\n  items: [\"it's\", 'a \"b\"', c d]\n",
    ] {
        let text = format!("{get}{more}");
        let loaded = load_text(&text);
        assert!(!loaded.has_errors(), "{text}\n{:?}", loaded.diagnostics);
    }
    for more in [
        "- rule: R\n  priority: ERROR\n  override: {priority: append}\n",
        "- rule: R\n  condition: or ka.verb = list\n  append: true\n  override: {condition: append}\n",
        "- rule: R\n  condition: ka.verb = list\n  override: {condition: sometimes}\n",
        "- rule: R\n  override: {desc: replace}\n",
        "- rule: R\n  desc: x\n  output: y\n  override: {desc: replace}\n",
        "- rule: R\n  desc: x\n  override: {desc: replace, enabled: replace}\n",
        "- rule: S\n  condition: or ka.verb = list\n  append: true\n",
        "- rule: S\n  condition: ka.verb = list\n  override: {condition: replace}\n",
        "- rule: S\n  condition: or ka.verb = list\n  override: {condition: append}\n",
        "- macro: m\n  condition: or ka.verb = list\n  append: true\n",
        "- list: l\n  items: [a]\n  append: true\n",
        "- rule: R\n  exceptions: [{name: f, comps: [=]}]\n  override: {exceptions: append}\n",
        "- required_engine_version: seven\n",
        "- rule: R\n  capture_duration: long\n  override: {capture_duration: replace}\n",
    ] {
        let text = format!("{get}{more}");
        assert!(load_text(&text).has_errors(), "{text}");
    }
    let duration = get.clone() + "  capture_duration: not_a_number\n";
    assert!(load_text(&duration).has_errors());
    assert!(!load_text(&(get + exception)).has_errors());
}
