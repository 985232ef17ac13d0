//! Texts that users and maintainers read do not contain the phrases that the project's style rules out.

#![allow(clippy::unwrap_used)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use common::{project, pullwatch};
use pullwatch::internals::daemon::metrics::TABLE;
use regex::Regex;

/// Phrases and what to write instead. Blanks match line breaks too; letter case does not matter.
const PHRASES: &[(&str, &str)] = &[
    ("is no", "is not a, invalid"),
    ("are no", "are not"),
    ("so many", "the number of"),
    ("so much", "the amount of"),
    ("made anew", "recreated"),
    ("nothing where", "`None` if, empty if"),
    ("stands", "is, is located"),
    ("told", "reported, named"),
    ("whoever", "a user who"),
    ("somebody", "a user or service account"),
    ("less bad", "of lower priority"),
    ("at least as bad", "of this priority or higher"),
    ("goes on", "continues, resumes"),
    ("go on", "continue, resume"),
    ("ends in order", "shuts down gracefully"),
    ("ends it in order", "shuts down gracefully"),
    ("lets read", "grants read access to"),
    ("let read", "grant read access to"),
    ("by why", "by reason"),
    ("by what is wrong", "by reason"),
];

/// What precedes or follows a phrase where it has its usual meaning: "there is no", "is no longer", "stands for", `let read =`.
const USUAL: &[(&str, &str, &str)] = &[
    ("is no", "there", ""),
    ("are no", "there", ""),
    ("is no", "", "longer"),
    ("are no", "", "longer"),
    ("stands", "", "for"),
    ("stands", "", "in for"),
    ("let read", "", "="),
    ("let read", "", ":"),
];

/// Directories and files that are searched, by the ending of file names.
const SEARCHED: &[(&str, &[&str])] = &[
    ("README.md", &["md"]),
    ("CHANGELOG.md", &["md"]),
    ("CONTRIBUTING.md", &["md"]),
    ("SECURITY.md", &["md"]),
    ("ARCHITECTURE.md", &["md"]),
    ("docs", &["md", "toml"]),
    ("rules.d", &["yaml"]),
    ("samples", &["yaml", "yml", "json", "md", "sh"]),
    ("docker-compose.yml", &["yml"]),
    ("Dockerfile", &["Dockerfile"]),
    ("src", &["rs", "yaml", "html"]),
];

/// A text, and where each of its lines starts in it.
struct Text {
    name: String,
    joined: String,
    starts: Vec<usize>,
}

impl Text {
    /// Joins the lines, without what marks them as comments, so that phrases are found across line breaks.
    fn new(name: &str, content: &str) -> Self {
        let (mut joined, mut starts) = (String::new(), Vec::new());
        for line in content.lines() {
            starts.push(joined.len());
            let line = line.trim();
            let line =
                ["//!", "///", "//", "#"].iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(line);
            joined.push_str(line.trim());
            joined.push(' ');
        }
        Text { name: name.to_owned(), joined, starts }
    }

    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|&start| start <= offset)
    }
}

struct Search {
    phrases: Vec<(Regex, &'static str, &'static str)>,
}

impl Search {
    fn new() -> Self {
        let regex = |phrase: &str| Regex::new(&format!(r"(?i)\b{}\b", phrase.replace(' ', r"\s+"))).unwrap();
        let phrases = PHRASES.iter().map(|&(phrase, instead)| (regex(phrase), phrase, instead)).collect();
        Search { phrases }
    }

    fn run(&self, text: &Text, found: &mut String) {
        for (regex, phrase, instead) in &self.phrases {
            for hit in regex.find_iter(&text.joined) {
                let before = text.joined[..hit.start()].trim_end().to_ascii_lowercase();
                let after = text.joined[hit.end()..].trim_start();
                let is_usual = |&(usual, precedes, follows): &(&str, &str, &str)| {
                    usual == *phrase && before.ends_with(precedes) && after.starts_with(follows)
                };
                if USUAL.iter().any(is_usual) {
                    continue;
                }
                let (name, line) = (&text.name, text.line(hit.start()));
                writeln!(found, "{name}:{line}: «{}»: write {instead}", hit.as_str()).unwrap();
            }
        }
    }
}

fn files(path: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for entry in &entries {
            files(entry, endings, found);
        }
    } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
        found.push(path.to_owned());
    }
}

/// The long help of a command and of all commands below it.
fn help(command: &[&str], texts: &mut Vec<Text>) {
    let output = pullwatch().args(command).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("Usage:"), "{command:?}: {text}");
    texts.push(Text::new(&format!("pullwatch {} --help", command.join(" ")), &text));
    let commands = text.split_once("\nCommands:\n").map_or("", |(_, commands)| commands);
    for line in commands.lines().take_while(|line| !line.is_empty()) {
        let name = line
            .strip_prefix("  ")
            .filter(|line| !line.starts_with(' '))
            .and_then(|line| line.split(' ').next());
        if let Some(name) = name.filter(|&name| name != "help") {
            help(&[command, &[name]].concat(), texts);
        }
    }
}

#[test]
fn texts_avoid_the_phrases_that_the_style_rules_out() {
    let mut texts = Vec::new();
    help(&[], &mut texts);
    assert!(texts.len() > 15, "only {} commands", texts.len());
    for metric in TABLE {
        texts.push(Text::new(metric.name, metric.help));
    }
    let mut paths = Vec::new();
    for (path, endings) in SEARCHED {
        files(&project(path), endings, &mut paths);
    }
    assert!(paths.len() > 200, "only {} files", paths.len());
    for path in paths.iter().filter(|path| path.exists()) {
        let name = path.strip_prefix(project("")).unwrap().display().to_string();
        texts.push(Text::new(&name, &fs::read_to_string(path).unwrap()));
    }
    let (search, mut found) = (Search::new(), String::new());
    for text in &texts {
        search.run(text, &mut found);
    }
    assert!(found.is_empty(), "{} phrases:\n{found}", found.lines().count());
}

#[test]
fn phrases_are_found_across_lines_and_in_any_case() {
    let hits = |content: &str| {
        let mut found = String::new();
        Search::new().run(&Text::new("file", content), &mut found);
        found
    };
    assert_eq!(hits("/// It is\n/// no address."), "file:1: «is no»: write is not a, invalid\n");
    assert_eq!(hits("one\n# Whoever reads"), "file:2: «Whoever»: write a user who\n");
    assert_eq!(hits("It is no longer used, and `*.` stands for any name. Untold. There is no key."), "");
}
