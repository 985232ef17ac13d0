//! Translation of POSIX extended regular expressions, as rules contain them, to the dialect of the regex crate.

/// Maximum size of a compiled expression, in bytes: rule files are untrusted input too.
const MAX_COMPARISONS: usize = 1 << 20;

/// Compiles an expression, anchored at both ends.
///
/// # Errors
/// If it is not a POSIX extended regular expression: a message for the author of the rule.
pub fn compile(pattern: &str) -> Result<regex::bytes::Regex, String> {
    let translated = translate(pattern)?;
    regex::bytes::RegexBuilder::new(&format!(r"\A(?:{translated})\z"))
        // In POSIX, ^ and $ also match at the start and end of a line.
        .multi_line(true)
        .size_limit(MAX_COMPARISONS)
        .nest_limit(100)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it is too large when compiled".to_owned(),
            other => last_line(&other.to_string()),
        })
}

/// The regex crate prints the pattern in its error message; the last line is the actual message.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ").to_owned()
}

/// Rejects syntax that POSIX does not have, and escapes syntax that the two dialects read differently: in POSIX, a repetition operator
/// after another one applies to it (`a+?` is `(a+)?`, not lazy), and a brace that does not start a repetition is a literal.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    // Start of the last atom in `out`, and starts of the open groups.
    let mut atom: Option<usize> = None;
    let mut groups = Vec::new();
    let mut repetitions = 0;
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        let start = out.len();
        let repetition = match letter {
            '*' | '+' | '?' => 1,
            '{' => repetition_length(rest),
            _ => 0,
        };
        if repetition > 0 {
            let Some(at) = atom else {
                return Err(format!("nothing to repeat before `{}`", &rest[..repetition]));
            };
            if repetitions > MAX_REPETITIONS {
                return Err(format!("more than {MAX_REPETITIONS} repetitions of one atom"));
            }
            if repetitions > 0 {
                out.insert_str(at, "(?:");
                out.push(')');
            }
            out.push_str(&rest[..repetition]);
            rest = &rest[repetition..];
            repetitions += 1;
            continue;
        }
        repetitions = 0;
        atom = Some(start);
        rest = &rest[letter.len_utf8()..];
        match letter {
            '\\' => rest = escape(rest, &mut out)?,
            '(' if rest.starts_with('?') => {
                return Err(
                    "`(?` is not part of POSIX regular expressions; for any case use icontains or iglob"
                        .to_owned(),
                );
            }
            '(' => {
                groups.push(start);
                atom = None;
                out.push('(');
            }
            ')' => {
                atom = Some(groups.pop().ok_or("a `)` was never opened")?);
                out.push(')');
            }
            '|' => {
                atom = None;
                out.push('|');
            }
            '[' => {
                let mut letters = rest.chars().peekable();
                class(&mut letters, &mut out)?;
                rest = &rest[rest.len() - letters.map(char::len_utf8).sum::<usize>()..];
            }
            '{' | '}' => out.extend(['\\', letter]),
            _ => out.push(letter),
        }
    }
    Ok(out)
}

/// Maximum number of repetition operators on one atom: each needs a group, and each group copies the atom.
const MAX_REPETITIONS: usize = 8;

/// Translates an escape at the start of `rest`, and advances `rest`.
fn escape<'p>(rest: &'p str, out: &mut String) -> Result<&'p str, String> {
    let escaped = rest.chars().next().ok_or("it ends with a backslash")?;
    match escaped {
        'a' | 'f' | 'n' | 'r' | 't' | 'v' => out.extend(['\\', escaped]),
        _ if escaped.is_ascii_alphanumeric() => {
            return Err(format!(
                "`\\{escaped}` is not part of POSIX regular expressions; write a class such as [0-9] or [[:alpha:]]"
            ));
        }
        _ => out.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4]))),
    }
    Ok(&rest[escaped.len_utf8()..])
}

/// Returns the length of `{2}`, `{2,}` or `{2,3}` at the start of a text; 0 if there is none.
fn repetition_length(text: &str) -> usize {
    let Some(end) = text.find('}') else { return 0 };
    let mut bounds = text[1..end].split(',');
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let good = bounds.next().is_some_and(is_number)
        && bounds.next().is_none_or(|high| high.is_empty() || is_number(high))
        && bounds.next().is_none();
    if good { end + 1 } else { 0 }
}

/// Translates a bracket expression. POSIX has only ranges, classes and negation in it.
fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if letters.peek() == Some(&'^') {
        letters.next();
        out.push('^');
    }
    let mut first = true;
    loop {
        match letters.next() {
            None => return Err("unclosed `[`".to_owned()),
            Some(']') if !first => break,
            Some('[') if letters.peek() == Some(&':') => {
                out.push('[');
                loop {
                    match letters.next() {
                        None => return Err("unclosed `[:`".to_owned()),
                        Some(']') => break,
                        Some(letter) => out.push(letter),
                    }
                }
                out.push(']');
            }
            Some('\\') => match letters.next() {
                Some(escaped) if !escaped.is_ascii_alphanumeric() => {
                    out.push('\\');
                    out.push(escaped);
                }
                Some(escaped) => {
                    return Err(format!("`\\{escaped}` is not part of POSIX regular expressions"));
                }
                None => return Err("it ends with a backslash".to_owned()),
            },
            // Characters of the regex crate's set operations are escaped.
            Some(letter @ ('[' | ']' | '&' | '~')) => {
                out.push('\\');
                out.push(letter);
            }
            Some('-') if letters.peek() == Some(&'-') => out.push_str("\\-"),
            Some(letter) => out.push(letter),
        }
        first = false;
    }
    out.push(']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match() {
        let fits = |pattern: &str, text: &str| compile(pattern).unwrap().is_match(text.as_bytes());
        assert!(
            !fits("registry", "registry-credentials") && fits("^registry-[a-z]+$", "registry-credentials")
        );
        assert!(fits("a|b", "b") && !fits("a|b", "ab"));
        assert!(fits("[[:digit:]]+", "42") && fits("[]a]+", "]a") && fits("[a&&b]+", "&"));
        assert!(fits("a+?", "") && fits("a{2}?", "") && fits("a{2}?", "aa") && !fits("a{2}?", "a"));
        assert!(fits("(ab)**", "abab") && fits("a{b", "a{b") && fits("a{,2}", "a{,2}") && fits("a}", "a}"));
        assert!(fits(r"a\n", "a\n"));
        assert!(fits(r"a\.b", "a.b") && !fits(r"a\.b", "axb"));
    }

    #[test]
    fn rejects_other_dialects() {
        for pattern in ["(?i)x", r"\d+", "[", "*a", "(a", "a)", r"a\", "(*a)", "a|+"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
        assert!(compile("((((a{1000}){1000}){1000}){1000})").is_err());
    }
}
