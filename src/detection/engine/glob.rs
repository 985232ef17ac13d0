//! Shell patterns for a whole value: `*` (which also matches `/`), `?`, `[a-z]`, `[!a-z]`, and `\` to escape a character. Matched without
//! recursion, in time bounded by the length of the pattern times that of the value.

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Box<[Token]>,
    ignore_case: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    Star,
    Set { negated: bool, ranges: Box<[(u8, u8)]> },
}

impl Glob {
    /// Compiles a pattern. Never fails: an unclosed bracket matches itself.
    pub fn new(pattern: &[u8], ignore_case: bool) -> Self {
        let pattern = if ignore_case { pattern.to_ascii_lowercase() } else { pattern.to_vec() };
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            at += 1;
            let token = match byte {
                b'*' => Token::Star,
                b'?' => Token::Any,
                b'\\' if at < pattern.len() => {
                    at += 1;
                    Token::Byte(pattern[at - 1])
                }
                b'[' => match set(&pattern[at..]) {
                    Some((token, length)) => {
                        at += length;
                        token
                    }
                    None => Token::Byte(b'['),
                },
                _ => Token::Byte(byte),
            };
            if token != Token::Star || tokens.last() != Some(&Token::Star) {
                tokens.push(token);
            }
        }
        Glob { tokens: tokens.into(), ignore_case }
    }

    /// Whether the whole `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let (mut token, mut at) = (0, 0);
        // Where to continue if the text after the last star does not match: only the last star can matter.
        let mut retry = None;
        loop {
            let fits = match self.tokens.get(token) {
                Some(Token::Star) => {
                    retry = Some((token, at));
                    token += 1;
                    continue;
                }
                None if at == text.len() => return true,
                None => false,
                Some(one) => text.get(at).is_some_and(|&byte| {
                    one.fits(if self.ignore_case { byte.to_ascii_lowercase() } else { byte })
                }),
            };
            if fits {
                token += 1;
                at += 1;
            } else {
                let Some((star, from)) = retry else { return false };
                if from >= text.len() {
                    return false;
                }
                retry = Some((star, from + 1));
                token = star + 1;
                at = from + 1;
            }
        }
    }
}

impl Token {
    fn fits(&self, byte: u8) -> bool {
        match self {
            Token::Byte(wanted) => *wanted == byte,
            Token::Any => true,
            Token::Star => false,
            Token::Set { negated, ranges } => {
                ranges.iter().any(|&(low, high)| (low..=high).contains(&byte)) != *negated
            }
        }
    }
}

/// Parses the text after a `[`, and returns its length.
fn set(pattern: &[u8]) -> Option<(Token, usize)> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        match (pattern.get(at)?, ranges.is_empty()) {
            // A closing bracket directly at the start is literal.
            (b']', false) => return Some((Token::Set { negated, ranges: ranges.into() }, at + 1)),
            (b'\\', _) if at + 1 < pattern.len() => at += 1,
            _ => {}
        }
        let low = *pattern.get(at)?;
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                ranges.push((low, high));
                at += 3;
            }
            _ => {
                ranges.push((low, low));
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(pattern: &str, text: &str) -> bool {
        Glob::new(pattern.as_bytes(), false).matches(text.as_bytes())
    }

    #[test]
    fn patterns_match_the_whole_value() {
        assert!(fits("reg*cred?ntials", "registry-credentials"));
        assert!(!fits("registry", "registry-credentials"));
        assert!(fits("*", "") && fits("**a*", "/b/a/c") && !fits("?", ""));
        assert!(fits("[a-c]x[!0-9]", "bxy") && !fits("[a-c]x[!0-9]", "bx1"));
        assert!(fits("[]]", "]") && fits("a[", "a[") && fits(r"\*", "*") && !fits(r"\*", "x"));
        assert!(Glob::new(b"REG*", true).matches(b"Registry"));
    }

    proptest! {
        #[test]
        fn agrees_with_a_regex(pattern in "[ab*?]{0,8}", text in "[ab]{0,12}") {
            let regex = format!("^{}$", pattern.replace('*', ".*").replace('?', "."));
            prop_assert_eq!(fits(&pattern, &text), regex::Regex::new(&regex).unwrap().is_match(&text));
        }

        #[test]
        fn no_pattern_panics(pattern in proptest::collection::vec(any::<u8>(), 0..30), text in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = Glob::new(&pattern, true).matches(&text);
        }
    }
}
