//! What the documentation says can be done: links lead somewhere, command lines parse, configurations and rules load.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{project, pullwatch, said};
use regex::Regex;

/// The pages that people read, by path. Generated pages are tested where they are made.
fn pages() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "RELEASE.md", "samples/README.md"]
            .iter()
            .map(|name| project(name))
            .filter(|path| path.exists())
            .collect();
    let mut folders = vec![project("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The fenced blocks of a language, with the number of the line they start at.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        if let Some(tag) = line.trim_start().strip_prefix("```") {
            match open.take() {
                None => open = Some((tag == language, number + 2, String::new())),
                Some((true, start, block)) => blocks.push((start, block)),
                Some(_) => {}
            }
        } else if let Some((_, _, block)) = &mut open {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks
}

/// The anchors of a page, as mdBook and GitHub derive them from headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading
                .chars()
                .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

#[test]
fn every_link_leads_to_a_page_and_a_heading() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut broken = Vec::new();
    let mut checked = 0;
    for (path, text) in pages() {
        for found in link.captures_iter(&text) {
            let target = &found[1];
            if target.starts_with("http://")
                || target.starts_with("https://")
                || target.starts_with("mailto:")
            {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let content = if file.is_dir() { Some(String::new()) } else { fs::read_to_string(&file).ok() };
            let holds = match content {
                None => file.exists(),
                Some(content) => anchor.is_empty() || anchors(&content).contains(anchor),
            };
            if !holds {
                broken.push(format!("{}: {target}", path.display()));
            }
            checked += 1;
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checked > 100, "{checked}");
}

/// The arguments of a `pullwatch` command in a line of a shell block, without redirections, pipes and comments.
fn arguments(line: &str) -> Option<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ").trim_start_matches("sudo ");
    let line =
        line.split_once("| pullwatch ").map_or(line.to_owned(), |(_, rest)| format!("pullwatch {rest}"));
    let rest = line.strip_prefix("pullwatch ").or_else(|| line.strip_prefix("cargo run --release -- "))?;
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for letter in rest.chars() {
        match quote {
            Some(end) if letter == end => quote = None,
            Some(_) => word.push(letter),
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            None if letter == ' ' => words.push(std::mem::take(&mut word)),
            None => word.push(letter),
        }
    }
    words.push(word);
    let ends = |word: &String| {
        matches!(word.as_str(), "|" | ">" | "2>&1" | "&&" | ";" | "&" | "\\") || word.starts_with('#')
    };
    let end = words.iter().position(ends).unwrap_or(words.len());
    Some(words.into_iter().take(end).filter(|word| !word.is_empty()).collect())
}

#[test]
fn every_command_line_has_valid_arguments() {
    let mut wrong = Vec::new();
    let mut checked = BTreeSet::new();
    for (path, text) in pages() {
        for (start, block) in blocks(&text, "sh") {
            for (offset, line) in block.replace("\\\n", "  ").lines().enumerate() {
                let Some(arguments) = arguments(line) else { continue };
                if !checked.insert(arguments.clone()) {
                    continue;
                }
                // With --help nothing is done, but everything before it is parsed.
                let output = pullwatch().args(&arguments).arg("--help").output().unwrap();
                if !output.status.success() {
                    wrong.push(format!("{}:{}: {line}: {}", path.display(), start + offset, said(&output)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked.len() > 20, "{checked:?}");
}

/// Whether a block is a whole configuration of `run`: it has a key of the configuration in its first column.
fn is_configuration(block: &str) -> bool {
    block.lines().any(|line| line.starts_with("sources:") || line.starts_with("sinks:"))
}

fn is_rule_file(block: &str) -> bool {
    ["- rule:", "- list:", "- macro:"].iter().any(|start| block.lines().any(|line| line.starts_with(start)))
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Creates the files of /etc/pullwatch that a configuration names in this folder, and makes it name those.
fn with_files(folder: &Path, block: &str) -> String {
    let named = Regex::new(r"/etc/pullwatch/([\w./-]+)").unwrap();
    for found in named.captures_iter(block) {
        let path = folder.join(&found[1]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let is_url = found[1].ends_with("-url");
        fs::write(path, if is_url { "https://hooks.example/x" } else { "a-token-of-32-characters-or-more" })
            .unwrap();
    }
    named.replace_all(block, format!("{}/$1", folder.display())).into_owned()
}

#[test]
fn every_configuration_and_rule_file_loads() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    let (mut configurations, mut rule_files) = (0, 0);
    for (path, text) in pages() {
        for (start, block) in blocks(&text, "yaml") {
            let mut command = pullwatch();
            if is_configuration(&block) {
                let block = with_files(folder.path(), &block);
                command.args(["config", "check"]).arg(write(folder.path(), "pullwatch.yaml", &block));
                configurations += 1;
            } else if is_rule_file(&block) {
                command.args(["rules", "check"]).arg(project("rules.d")).arg(write(
                    folder.path(),
                    "mine.yaml",
                    &block,
                ));
                rule_files += 1;
            } else {
                continue;
            }
            let output = command.output().unwrap();
            if !output.status.success() {
                wrong.push(format!(
                    "{}:{start}: {}{}",
                    path.display(),
                    String::from_utf8_lossy(&output.stdout),
                    said(&output)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        configurations >= 3 && rule_files >= 2,
        "{configurations} configurations, {rule_files} rule files"
    );
}
