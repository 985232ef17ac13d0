//! Label selectors, as `k8s.io/apimachinery/pkg/labels.Parse` reads them.
//!
//! Requirements are separated by `,`: `key`, `!key`, `key=value`, `key==value`, `key!=value`, `key in (a,b)`,
//! `key notin (a,b)`, `key>1`, `key<1`. All of them have to hold. The lexer is reproduced byte by byte, with its treatment of
//! NUL, which ends a word and, between words, the selector.

/// The selector is malformed: the apiserver answers 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed label selector")]
pub(crate) struct Malformed;

/// The longest name and the longest value of a label.
const MAX_LABEL_LEN: usize = 63;

/// What a requirement says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Exists,
    Absent,
    /// The label is there and has one of these values (`=`, `==`, `in`).
    In(Vec<Vec<u8>>),
    /// The label is absent or has another value (`!=`, `notin`).
    NotIn(Vec<Vec<u8>>),
    Above(i64),
    Below(i64),
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: Vec<u8>,
    condition: Condition,
}

/// A parsed label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    pub(crate) fn parse(selector: &[u8]) -> Result<Self, Malformed> {
        let mut parser = Parser { tokens: tokens(selector), at: 0 };
        parser.selector().map(|requirements| LabelSelector { requirements })
    }

    /// Whether it selects every object.
    pub(crate) fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with these labels matches; `label` returns the value of a key.
    pub(crate) fn matches<'l>(&self, label: impl Fn(&[u8]) -> Option<&'l [u8]>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = label(&requirement.key);
            let number = || std::str::from_utf8(value?).ok()?.parse::<i64>().ok();
            match &requirement.condition {
                Condition::Exists => value.is_some(),
                Condition::Absent => value.is_none(),
                Condition::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
                Condition::NotIn(values) => !value.is_some_and(|value| values.iter().any(|one| one == value)),
                Condition::Above(bound) => number().is_some_and(|number| number > *bound),
                Condition::Below(bound) => number().is_some_and(|number| number < *bound),
            }
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(Vec<u8>),
    /// An operator or a bracket: one of [`SYMBOLS`].
    Symbol(&'static [u8]),
    /// Symbols that do not form an operator.
    Malformed,
    End,
}

const SYMBOLS: [&[u8]; 9] = [b")", b",", b"!", b"==", b"=", b">", b"<", b"!=", b"("];

fn is_symbol(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Splits a selector. The last token is the only [`Token::End`].
fn tokens(selector: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        while selector.get(at).is_some_and(|&byte| is_blank(byte)) {
            at += 1;
        }
        match selector.get(at) {
            None | Some(0) => {
                tokens.push(Token::End);
                return tokens;
            }
            Some(&byte) if is_symbol(byte) => {
                let rest = &selector[at..];
                // `!=` and `==` are longer than their first byte; no other operator has two.
                let longest =
                    SYMBOLS.iter().filter(|symbol| rest.starts_with(symbol)).max_by_key(|s| s.len());
                let symbol = longest.copied().unwrap_or_default();
                at += symbol.len().max(1);
                // A NUL that ends a token is consumed with it.
                at += usize::from(selector.get(at) == Some(&0));
                tokens.push(if symbol.is_empty() { Token::Malformed } else { Token::Symbol(symbol) });
            }
            Some(_) => {
                let rest = &selector[at..];
                let length = rest
                    .iter()
                    .position(|&byte| byte == 0 || is_symbol(byte) || is_blank(byte))
                    .unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..length].to_vec()));
                at += length + usize::from(rest.get(length) == Some(&0));
            }
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, Malformed> {
        let mut requirements = Vec::new();
        if *self.peek() == Token::End {
            return Ok(requirements);
        }
        loop {
            requirements.push(self.requirement()?);
            match self.take() {
                Token::End => return Ok(requirements),
                Token::Symbol(b",") => {}
                _ => return Err(Malformed),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, Malformed> {
        let mut token = self.take();
        let is_negated = token == Token::Symbol(b"!");
        if is_negated {
            token = self.take();
        }
        let Token::Word(key) = token else { return Err(Malformed) };
        if !is_label_key(&key) {
            return Err(Malformed);
        }
        if is_negated {
            return Ok(Requirement { key, condition: Condition::Absent });
        }
        if matches!(self.peek(), Token::End | Token::Symbol(b",")) {
            return Ok(Requirement { key, condition: Condition::Exists });
        }
        let condition = match self.take() {
            Token::Word(word) if word == b"in" => Condition::In(self.values()?),
            Token::Word(word) if word == b"notin" => Condition::NotIn(self.values()?),
            Token::Symbol(b"=" | b"==") => Condition::In(vec![self.value()?]),
            Token::Symbol(b"!=") => Condition::NotIn(vec![self.value()?]),
            Token::Symbol(b">") => Condition::Above(self.number()?),
            Token::Symbol(b"<") => Condition::Below(self.number()?),
            _ => return Err(Malformed),
        };
        Ok(Requirement { key, condition })
    }

    fn value(&mut self) -> Result<Vec<u8>, Malformed> {
        let value = match self.peek() {
            Token::End | Token::Symbol(b",") => return Ok(Vec::new()),
            _ => self.take(),
        };
        match value {
            Token::Word(value) if is_label_value(&value) => Ok(value),
            _ => Err(Malformed),
        }
    }

    fn number(&mut self) -> Result<i64, Malformed> {
        let value = self.value()?;
        std::str::from_utf8(&value).ok().and_then(|value| value.parse().ok()).ok_or(Malformed)
    }

    /// A list in brackets, whose members may be empty.
    fn values(&mut self) -> Result<Vec<Vec<u8>>, Malformed> {
        if self.take() != Token::Symbol(b"(") {
            return Err(Malformed);
        }
        let mut values = Vec::new();
        loop {
            match self.take() {
                Token::Word(value) if is_label_value(&value) => {
                    values.push(value);
                    match self.take() {
                        Token::Symbol(b",") => {}
                        Token::Symbol(b")") => return Ok(values),
                        _ => return Err(Malformed),
                    }
                    if *self.peek() == Token::Symbol(b")") {
                        values.push(Vec::new());
                    }
                }
                Token::Symbol(b",") => values.push(Vec::new()),
                Token::Symbol(b")") => {
                    if values.is_empty() {
                        values.push(Vec::new());
                    }
                    return Ok(values);
                }
                _ => return Err(Malformed),
            }
        }
    }
}

/// Letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
fn is_label_name(name: &[u8]) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    name.len() <= MAX_LABEL_LEN
        && is_end(name.first())
        && is_end(name.last())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn is_label_value(value: &[u8]) -> bool {
    value.is_empty() || is_label_name(value)
}

fn is_label_key(key: &[u8]) -> bool {
    let (prefix, name) = match key.iter().position(|byte| *byte == b'/') {
        Some(slash) => (Some(&key[..slash]), &key[slash + 1..]),
        None => (None, key),
    };
    is_label_name(name) && prefix.is_none_or(is_dns_subdomain)
}

fn is_dns_subdomain(text: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 253
        && text.split(|byte| *byte == b'.').all(|label| {
            label.first().is_some_and(is_letter)
                && label.last().is_some_and(is_letter)
                && label.iter().all(|byte| is_letter(byte) || *byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &'static str)]) -> Result<bool, Malformed> {
        let selector = LabelSelector::parse(selector.as_bytes())?;
        Ok(selector.matches(|key| {
            labels.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, value)| value.as_bytes())
        }))
    }

    #[test]
    fn requirements_are_evaluated_as_the_apiserver_does() {
        let labels = [("app", "web"), ("example.com/n", "5"), ("in", "notin"), ("empty", "")];
        for (selector, expected) in [
            ("", true),
            ("  ", true),
            ("app", true),
            ("!app", false),
            (" ! nosuch ", true),
            ("app=web,!nosuch", true),
            ("app==web", true),
            ("app = api", false),
            ("app!=web", false),
            ("nosuch!=web", true),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("nosuch notin (a)", true),
            ("in in (notin)", true),
            ("in notin (in)", true),
            ("empty=", true),
            ("empty in ()", true),
            ("empty in (,)", true),
            ("empty in (x,)", true),
            ("app in (,web)", true),
            ("empty=,app=web", true),
            ("example.com/n>4,example.com/n<6", true),
            ("app>4", false),
            ("app\0=web", true),
            ("app=web\0", true),
            ("app=\0web", true),
            // A NUL between words ends the selector.
            ("app=web \0,nosuch", true),
        ] {
            assert_eq!(matches(selector, &labels), Ok(expected), "{selector:?}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for selector in [
            ",",
            "a,",
            "a,,b",
            "a b",
            "a in",
            "a in b",
            "a in (",
            "a in (b",
            "a in (b c)",
            "a in (b))",
            "=a",
            "!",
            "!!a",
            "!a=b",
            "a=b=c",
            "a=!b",
            "a===b",
            "a>b",
            "a>",
            "-a",
            "a/b/c",
            "/a",
            "A.B/c",
            "a=-",
            "a=b c",
            "(a)",
            "a=\u{e4}",
            "a><b",
        ] {
            assert_eq!(matches(selector, &[]), Err(Malformed), "{selector}");
        }
        assert_eq!(matches(&format!("{}=b", "a".repeat(64)), &[]), Err(Malformed));
        assert_eq!(matches(&format!("a={}", "b".repeat(64)), &[]), Err(Malformed));
    }
}
