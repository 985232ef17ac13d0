//! Regular expressions as rules write them: POSIX extended, over the whole value.

/// Compiled programs stay below this, in bytes: a rule file is input too.
const LARGEST: usize = 1 << 20;

/// Compiles an expression, anchored at both ends.
///
/// # Errors
/// When it is no POSIX extended expression: what is wrong, in words for a person.
pub fn compile(pattern: &str) -> Result<regex::bytes::Regex, String> {
    let translated = translate(pattern)?;
    regex::bytes::RegexBuilder::new(&format!(r"\A(?:{translated})\z"))
        // In this dialect ^ and $ also match at a line's ends.
        .multi_line(true)
        .size_limit(LARGEST)
        .nest_limit(100)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it is too large when compiled".to_owned(),
            other => last_line(&other.to_string()),
        })
}

/// The regex crate draws the pattern and says what is wrong in the last line.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ").to_owned()
}

/// Refuses what POSIX does not know, and takes the other dialect's meaning from what POSIX reads literally.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut letters = pattern.chars().peekable();
    // Whether a repetition may follow, and whether what stands before is one.
    let (mut atom, mut repeated) = (false, false);
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => {
                match letters.next() {
                    Some(escaped) if escaped.is_ascii_alphanumeric() => {
                        return Err(format!(
                            "`\\{escaped}` is not part of POSIX regular expressions; write a class such as [0-9] or [[:alpha:]]"
                        ));
                    }
                    Some(escaped) => out.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4]))),
                    None => return Err("it ends in a backslash".to_owned()),
                }
                (atom, repeated) = (true, false);
            }
            '(' => {
                if letters.peek() == Some(&'?') {
                    return Err(
                        "`(?` is not part of POSIX regular expressions; for any case use icontains or iglob"
                            .to_owned(),
                    );
                }
                out.push('(');
                (atom, repeated) = (false, false);
            }
            '*' | '+' | '?' => {
                if !atom {
                    return Err(format!("there is nothing for `{letter}` to repeat"));
                }
                if repeated {
                    return Err(format!("`{letter}` follows another repetition"));
                }
                out.push(letter);
                repeated = true;
            }
            '[' => {
                class(&mut letters, &mut out)?;
                (atom, repeated) = (true, false);
            }
            '|' | '^' => {
                out.push(letter);
                (atom, repeated) = (false, false);
            }
            _ => {
                out.push(letter);
                (atom, repeated) = (true, false);
            }
        }
    }
    Ok(out)
}

/// Copies a bracket expression. Inside, POSIX knows only ranges, classes and negation.
fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if letters.peek() == Some(&'^') {
        letters.next();
        out.push('^');
    }
    let mut first = true;
    loop {
        match letters.next() {
            None => return Err("a `[` is not closed".to_owned()),
            Some(']') if !first => break,
            Some('[') if letters.peek() == Some(&':') => {
                out.push('[');
                loop {
                    match letters.next() {
                        None => return Err("a `[:` is not closed".to_owned()),
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
                None => return Err("it ends in a backslash".to_owned()),
            },
            // Set operations of the other dialect.
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
        assert!(fits(r"a\.b", "a.b") && !fits(r"a\.b", "axb"));
    }

    #[test]
    fn other_dialects_are_refused() {
        for pattern in ["(?i)x", r"\d+", "[", "a**", "*a", "(a", r"a\", "a+?"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
        assert!(compile("((((a{1000}){1000}){1000}){1000})").is_err());
    }
}
