//! Recognizes rules about system calls, which name no source.
//!
//! In the reference engine, a rule without `source` is about system calls. Directories with rules for several sources are common, so such a
//! rule is skipped instead of rejected. A rule is about system calls only if its condition uses a field of them and no field of audit
//! events, with its macros expanded.

use std::collections::HashSet;

use super::definitions::{Definitions, RuleDefinition};
use super::fields;

/// First parts of the names of system call fields. `evt.*` also exists for audit events, with different fields.
const FAMILIES: [&str; 12] =
    ["evt", "proc", "thread", "user", "group", "container", "fd", "fs", "fdlist", "syslog", "k8s", "mesos"];

/// Whether a rule is about system calls.
pub fn is_about_system_calls(rule: &RuleDefinition, definitions: &Definitions) -> bool {
    let mut texts = vec![rule.condition.text()];
    texts.extend(
        rule.exceptions
            .iter()
            .flat_map(|exception| &exception.fields)
            .map(crate::text::located::Located::text),
    );
    let mut expanded = HashSet::new();
    let mut has_foreign = false;
    while let Some(text) = texts.pop() {
        for word in words(text) {
            if word.contains('.') {
                if fields::find(word).is_some() {
                    // Fields that both sources have prove nothing.
                    if !word.starts_with("evt.") {
                        return false;
                    }
                } else {
                    has_foreign |= word.split('.').next().is_some_and(|family| FAMILIES.contains(&family));
                }
            } else if let Some((name, known)) = definitions.macros.get_key_value(word)
                && expanded.insert(name)
            {
                texts.push(known.condition.text());
            }
        }
    }
    has_foreign
}

/// Names outside of quotes: letters, digits, underscores and dots.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut quote = None;
    let mut is_escaped = false;
    text.split(move |letter: char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match quote {
            Some(open) => {
                if letter == open && !was_escaped {
                    quote = None;
                }
                is_escaped = letter == '\\' && !was_escaped;
                true
            }
            None => {
                if matches!(letter, '"' | '\'') {
                    quote = Some(letter);
                }
                !(letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.'))
            }
        }
    })
    .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn words_are_names_outside_of_quotes() {
        let text = r#"spawned_process and proc.name in (bash, "ka.verb \" ka.x", 'fd.y') or evt.type=open"#;
        let found: Vec<&str> = words(text).collect();
        assert_eq!(found, ["spawned_process", "and", "proc.name", "in", "bash", "or", "evt.type", "open"]);
    }
}
