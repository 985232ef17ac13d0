//! Files import each other in one direction, but for the exceptions that ARCHITECTURE.md names.
//!
//! A file is a module; `mod.rs` stands for its directory. An import is a path in a `use` or in the code that starts with `crate`, `super`,
//! `self` or the name of a submodule; it leads to the longest part of the path that is a file. Re-exports (`pub use`) are no imports, since a
//! module that hands on what its parts offer does not use it, and neither are tests. Paths in macros, strings and comments are not looked at.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use common::project;
use regex::Regex;

/// The cycles that ARCHITECTURE.md explains, by the files in them below `src/`.
const EXPLAINED: &[&[&str]] = &[
    &["daemon/pipeline", "daemon/pipeline/maintenance", "daemon/pipeline/repartition"],
    &[
        "daemon/source/kafka/consumer",
        "daemon/source/kafka/consumer/membership",
        "daemon/source/kafka/consumer/repartition",
    ],
    &["daemon/source/kafka/consumer/context", "daemon/source/kafka/consumer/start_offset"],
    &[
        "detection/correlate/group",
        "detection/correlate/group/persist",
        "detection/correlate/group/sliding",
        "detection/correlate/group/tumbling",
    ],
];

/// The text of each module by its path, as `["daemon", "store"]`.
type Sources = BTreeMap<Vec<String>, String>;

fn regex(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

/// Removes tests, comments and strings.
fn code(text: &str) -> String {
    static TESTS: LazyLock<Regex> = LazyLock::new(|| regex(r"#\[cfg\(test\)\]\n(?:#\[.*\]\n)*mod \w+ \{"));
    // In one pass, since each can contain what starts another: an address in a string, a quote in a comment.
    static TEXTS: LazyLock<Regex> = LazyLock::new(|| {
        regex(r###"r##"(?s:.*?)"##|r#"(?s:.*?)"#|\br"[^"]*"|"(?:\\(?s:.)|[^"\\])*"|'(?:\\.|[^'\\])'|//.*"###)
    });
    let end = TESTS.find(text).map_or(text.len(), |found| found.start());
    TEXTS.replace_all(&text[..end], "").into_owned()
}

/// Splits a list at the commas outside of braces.
fn split(list: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
    }
    parts
}

/// Adds the paths of the tree of a `use`.
fn expand(tree: &str, before: &[String], paths: &mut BTreeSet<Vec<String>>) {
    for part in split(tree) {
        let part = part.trim();
        let (path, inner) = match part.split_once('{') {
            Some((path, inner)) => (path, inner.strip_suffix('}')),
            None => (part, None),
        };
        let names = path.split(" as ").next().unwrap_or_default().split("::");
        let names = names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let path: Vec<String> = before.iter().cloned().chain(names).collect();
        match inner {
            Some(inner) => expand(inner, &path, paths),
            None => {
                paths.insert(path);
            }
        }
    }
}

/// The paths that a module imports or names.
fn paths(text: &str) -> BTreeSet<Vec<String>> {
    static USES: LazyLock<Regex> = LazyLock::new(|| regex(r"(?m)^\s*(pub(?:\([\w:]+\))? )?use ([^;]+);"));
    static INLINE: LazyLock<Regex> = LazyLock::new(|| regex(r"\b(?:crate|super|self)(?:::\w+)+"));
    let text = code(text);
    let mut paths = BTreeSet::new();
    for found in USES.captures_iter(&text).filter(|found| found.get(1).is_none()) {
        expand(&found[2], &[], &mut paths);
    }
    for found in INLINE.find_iter(&USES.replace_all(&text, "")) {
        paths.insert(found.as_str().split("::").map(str::to_owned).collect());
    }
    paths
}

/// The modules that each module imports.
fn imports(sources: &Sources) -> BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> {
    let mut imports = BTreeMap::new();
    for (own, text) in sources {
        let mut found = BTreeSet::new();
        for path in paths(text) {
            let ups = path.iter().take_while(|name| *name == "super").count();
            let mut target = match path[0].as_str() {
                "crate" => path[1..].to_vec(),
                "self" => own.iter().chain(&path[1..]).cloned().collect(),
                "super" => own[..own.len().saturating_sub(ups)].iter().chain(&path[ups..]).cloned().collect(),
                // Of another crate, unless it is a submodule.
                name => {
                    let submodule: Vec<String> = own.iter().cloned().chain([name.to_owned()]).collect();
                    if !sources.contains_key(&submodule) {
                        continue;
                    }
                    submodule.into_iter().chain(path[1..].iter().cloned()).collect()
                }
            };
            while !target.is_empty() && !sources.contains_key(&target) {
                target.pop();
            }
            if let Some((target, _)) = sources.get_key_value(&target)
                && target != own
            {
                found.insert(target);
            }
        }
        imports.insert(own, found);
    }
    imports
}

/// The groups of modules in which each leads to each other.
fn cycles(sources: &Sources) -> BTreeSet<BTreeSet<String>> {
    let imports = imports(sources);
    let reached = |from: &Vec<String>| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(next) = open.pop() {
            for target in &imports[next] {
                if reached.insert(*target) {
                    open.push(target);
                }
            }
        }
        reached
    };
    let all: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> =
        sources.keys().map(|module| (module, reached(module))).collect();
    let mut cycles = BTreeSet::new();
    for (module, targets) in &all {
        if targets.contains(module) {
            let members = targets.iter().filter(|target| all[**target].contains(module));
            cycles.insert(members.map(|member| member.join("/")).collect());
        }
    }
    cycles
}

/// Reads the modules in a directory.
fn read(directory: &Path, path: &[String], sources: &mut Sources) {
    for entry in fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let inner: Vec<String> = path.iter().cloned().chain([name.clone()]).collect();
        if file.is_dir() {
            read(&file, &inner, sources);
        } else if file.extension().is_some_and(|ending| ending == "rs") && !name.ends_with("tests") {
            let own = if name == "mod" { path.to_vec() } else { inner };
            sources.insert(own, fs::read_to_string(&file).unwrap());
        }
    }
}

#[test]
fn the_files_of_the_crate_import_in_one_direction() {
    let mut sources = Sources::new();
    read(&project("src"), &[], &mut sources);
    // What embeds and exports the others, and the data of tests.
    for root in ["lib", "main", "internals"] {
        assert!(sources.remove(&vec![root.to_owned()]).is_some());
    }
    let explained: BTreeSet<BTreeSet<String>> =
        EXPLAINED.iter().map(|cycle| cycle.iter().map(|&module| module.to_owned()).collect()).collect();
    assert!(sources.len() > 200);
    assert_eq!(cycles(&sources), explained);
}

#[test]
fn a_cycle_is_found() {
    let sources = |files: &[(&str, &str)]| -> Sources {
        files
            .iter()
            .map(|(path, text)| (path.split('/').map(str::to_owned).collect(), (*text).to_owned()))
            .collect()
    };
    let cycle = |files: &[(&str, &str)]| cycles(&sources(files)).into_iter().next().unwrap_or_default();
    let names = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|&name| name.to_owned()).collect() };
    for (first, second) in [
        ("use crate::b::Item;", "use super::a::{Other, More};"),
        ("fn f() { crate::b::run() }", "use crate::{\n    a::{self, Other},\n};"),
        ("use super::{c, b::{Item as Thing}};", "fn f(a: &super::a::Other) {}"),
        (
            "const A: &str = \"https://b\";\nuse crate::b::Item;",
            "const Q: char = '\"';\nuse crate::a::Other;",
        ),
        ("const A: &str = r#\"\"\"#; // \"\nuse crate::b::Item;", "use crate::a::Other;"),
    ] {
        assert_eq!(cycle(&[("a", first), ("b", second), ("c", "")]), names(&["a", "b"]), "{first} {second}");
    }
    assert_eq!(cycle(&[("a", "mod b;\nuse b::Item;"), ("a/b", "use super::Part;")]), names(&["a", "a/b"]));
    assert_eq!(
        cycle(&[("a", "use crate::b;"), ("b", "use crate::c;"), ("c", "use crate::a;")]),
        names(&["a", "b", "c"])
    );
    for (first, second) in [
        ("use crate::b::Item;", ""),
        // Handed on, in a test, in a comment, and of another crate.
        ("use crate::b::Item;", "pub use crate::a::Other;"),
        ("use crate::b::Item;", "#[cfg(test)]\nmod tests {\n    use crate::a::Other;\n}"),
        ("use crate::b::Item;", "// use crate::a::Other;\n"),
        ("use crate::b::Item;", "use a::Other;"),
    ] {
        assert_eq!(cycle(&[("a", first), ("b", second)]), names(&[]), "{first} {second}");
    }
}
