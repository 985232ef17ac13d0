//! Label selectors, as `k8s.io/apimachinery/pkg/labels.Parse` reads them.
//!
//! Source: `selector.go` (`Lexer`, `Parser`, `NewRequirement`) and `validation.go` of Kubernetes 1.20 and 1.36. All requirements
//! have to hold. A requirement of the operators `=`, `==` and `in` selects only objects that carry its label.

/// The selector is malformed: the apiserver answers 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed label selector")]
pub(crate) struct Malformed;

/// Maximum length of a name or value of a label, in bytes.
const MAX_NAME_LEN: usize = 63;

/// Maximum length of the prefix of a label's name, in bytes.
const MAX_PREFIX_LEN: usize = 253;

/// Maximum length of a selector in bytes. A longer one counts as malformed, and is treated as selecting everything.
const MAX_SELECTOR_LEN: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'s> {
    End,
    Identifier(&'s [u8]),
    /// `in` or `notin`, which are identifiers where a name or a value is expected.
    Keyword(&'s [u8]),
    Comma,
    Open,
    Close,
    Not,
    /// `=`, `==`, `!=`, `<` or `>`.
    Operator(&'s [u8]),
}

/// At each position, the longest of these is the token.
const SYMBOLS: [&[u8]; 9] = [b"==", b"!=", b"=", b"!", b"(", b")", b",", b"<", b">"];

fn is_symbol(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn tokens(mut rest: &[u8]) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    loop {
        let blank = rest.iter().take_while(|byte| is_blank(**byte)).count();
        rest = &rest[blank..];
        // The lexer ends at a NUL as it does at the end of the text.
        let Some(&first) = rest.first().filter(|byte| **byte != 0) else {
            tokens.push(Token::End);
            return tokens;
        };
        if is_symbol(first) {
            let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)).unwrap_or(&rest[..1]);
            let (symbol, after) = rest.split_at(symbol.len());
            tokens.push(match symbol {
                b"," => Token::Comma,
                b"(" => Token::Open,
                b")" => Token::Close,
                b"!" => Token::Not,
                symbol => Token::Operator(symbol),
            });
            rest = after;
        } else {
            let end = rest.iter().position(|byte| *byte == 0 || is_symbol(*byte) || is_blank(*byte));
            let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
            tokens.push(if matches!(word, b"in" | b"notin") {
                Token::Keyword(word)
            } else {
                Token::Identifier(word)
            });
            rest = after;
        }
    }
}

/// A label that every selected object carries.
#[derive(Clone, Copy, Debug)]
struct Required<'s> {
    label: &'s [u8],
    /// Whether its value is among those that the selector lists.
    has_value: bool,
}

/// Reads the tokens of one selector.
struct Parser<'s> {
    tokens: Vec<Token<'s>>,
    at: usize,
}

impl<'s> Parser<'s> {
    /// The next token where a name or a value is expected.
    fn peek(&self) -> Token<'s> {
        match self.tokens.get(self.at).copied().unwrap_or(Token::End) {
            Token::Keyword(word) => Token::Identifier(word),
            token => token,
        }
    }

    fn take(&mut self) -> Token<'s> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn take_operator(&mut self) -> Token<'s> {
        let token = self.tokens.get(self.at).copied().unwrap_or(Token::End);
        self.at += 1;
        token
    }

    /// Reads a requirement. Returns its label if it selects only objects that carry it.
    fn requirement(&mut self) -> Result<Option<Required<'s>>, Malformed> {
        let is_negated = self.peek() == Token::Not;
        if is_negated {
            self.take();
        }
        let Token::Identifier(label) = self.take() else { return Err(Malformed) };
        if !is_qualified_name(label) {
            return Err(Malformed);
        }
        // The caller rejects text after a negated label, unless it is a comma.
        if is_negated || matches!(self.peek(), Token::End | Token::Comma) {
            return Ok((!is_negated).then_some(Required { label, has_value: false }));
        }
        let required = Required { label, has_value: true };
        match self.take_operator() {
            Token::Keyword(word) => {
                let values = self.values()?;
                check(!values.is_empty() && values.iter().all(|value| is_label_value(value)))?;
                Ok((word == b"in").then_some(required))
            }
            Token::Operator(operator) => {
                let value = self.exact_value()?;
                match operator {
                    b"<" | b">" => {
                        let number =
                            std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
                        check(number.is_some() && is_label_value(value))?;
                        Ok(None)
                    }
                    operator => {
                        check(is_label_value(value))?;
                        Ok((operator != b"!=").then_some(required))
                    }
                }
            }
            _ => Err(Malformed),
        }
    }

    fn exact_value(&mut self) -> Result<&'s [u8], Malformed> {
        match self.peek() {
            Token::End | Token::Comma => Ok(b""),
            Token::Identifier(value) => {
                self.take();
                Ok(value)
            }
            _ => Err(Malformed),
        }
    }

    /// The values in parentheses. Omitted values are empty.
    fn values(&mut self) -> Result<Vec<&'s [u8]>, Malformed> {
        check(self.take() == Token::Open)?;
        let mut values = Vec::new();
        if self.peek() == Token::Close {
            self.take();
            return Ok(values);
        }
        loop {
            match self.take() {
                Token::Identifier(value) => {
                    values.push(value);
                    match self.peek() {
                        Token::Comma => {}
                        Token::Close => break,
                        _ => return Err(Malformed),
                    }
                }
                Token::Comma => {
                    if values.is_empty() {
                        values.push(b"");
                    }
                    match self.peek() {
                        Token::Close => {
                            values.push(b"");
                            break;
                        }
                        Token::Comma => {
                            self.take();
                            values.push(b"");
                        }
                        _ => {}
                    }
                }
                _ => return Err(Malformed),
            }
        }
        check(self.take() == Token::Close)?;
        Ok(values)
    }
}

fn check(holds: bool) -> Result<(), Malformed> {
    if holds { Ok(()) } else { Err(Malformed) }
}

/// Returns the labels, in order, that every selected object carries with a certain value. An empty selector requires none.
pub(crate) fn required_labels(selector: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let labels = requirements(selector)?;
    Ok(labels.into_iter().filter(|one| one.has_value).map(|one| one.label).collect())
}

/// Returns the labels, in order, that every selected object carries with any value.
pub(crate) fn carried_labels(selector: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    Ok(requirements(selector)?.into_iter().map(|one| one.label).collect())
}

fn requirements(selector: &[u8]) -> Result<Vec<Required<'_>>, Malformed> {
    check(selector.len() <= MAX_SELECTOR_LEN)?;
    let mut parser = Parser { tokens: tokens(selector), at: 0 };
    let mut labels = Vec::new();
    loop {
        match parser.peek() {
            Token::Identifier(_) | Token::Not => {}
            // After a comma a requirement has to follow, which is checked there.
            Token::End => return Ok(labels),
            _ => return Err(Malformed),
        }
        labels.extend(parser.requirement()?);
        match parser.take() {
            Token::End => return Ok(labels),
            Token::Comma => check(matches!(parser.peek(), Token::Identifier(_) | Token::Not))?,
            _ => return Err(Malformed),
        }
    }
}

/// `IsQualifiedName`: a name, with an optional DNS subdomain and a `/` before it.
fn is_qualified_name(text: &[u8]) -> bool {
    let mut parts = text.split(|byte| *byte == b'/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => !name.is_empty() && is_label_value(name),
        (Some(prefix), Some(name), None) => {
            !name.is_empty() && is_label_value(name) && prefix.len() <= MAX_PREFIX_LEN && is_subdomain(prefix)
        }
        _ => false,
    }
}

fn is_subdomain(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'.').all(|part| {
        let is_end =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        is_end(part.first())
            && is_end(part.last())
            && part.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
    })
}

/// `IsValidLabelValue`, which is also the form of a name without prefix.
fn is_label_value(text: &[u8]) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.is_empty()
        || text.len() <= MAX_NAME_LEN
            && is_end(text.first())
            && is_end(text.last())
            && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(selector: &str) -> Result<Vec<String>, Malformed> {
        let labels = required_labels(selector.as_bytes())?;
        Ok(labels.into_iter().map(|label| String::from_utf8(label.to_vec()).unwrap()).collect())
    }

    #[test]
    fn equality_and_sets_require_a_label() {
        for (selector, expected) in [
            ("owner=helm", vec!["owner"]),
            ("owner==helm", vec!["owner"]),
            (" owner = helm , name=x", vec!["owner", "name"]),
            ("app.kubernetes.io/name=x", vec!["app.kubernetes.io/name"]),
            ("owner in (a,b)", vec!["owner"]),
            ("owner in (,)", vec!["owner"]),
            ("owner in (a,,b)", vec!["owner"]),
            ("owner=", vec!["owner"]),
            ("owner=,x=y", vec!["owner", "x"]),
            ("in in (in)", vec!["in"]),
            ("x=notin", vec!["x"]),
            // These exclude little.
            ("", vec![]),
            ("  ", vec![]),
            ("owner", vec![]),
            ("!owner", vec![]),
            ("owner!=helm", vec![]),
            ("owner notin (helm)", vec![]),
            ("owner>5", vec![]),
            ("a!=b,owner=helm", vec!["owner"]),
            ("owner=helm\0,x", vec!["owner"]),
        ] {
            assert_eq!(read(selector).unwrap(), expected, "{selector}");
        }
    }

    #[test]
    fn a_name_alone_requires_a_label_with_any_value() {
        for (selector, expected) in [
            ("owner", &["owner"][..]),
            ("owner,app=x, tier in (a)", &["owner", "app", "tier"]),
            ("!owner,app!=x,tier notin (a)", &[]),
            ("", &[]),
        ] {
            let labels = carried_labels(selector.as_bytes()).unwrap();
            assert_eq!(
                labels,
                expected.iter().map(|label| label.as_bytes()).collect::<Vec<_>>(),
                "{selector}"
            );
        }
    }

    #[test]
    fn what_the_apiserver_refuses_is_malformed() {
        for selector in [
            ",a=b",
            "a=b,",
            "a=b,,c=d",
            "=b",
            "a===b",
            "a=!b",
            "a in b",
            "a in ()",
            "a in (b",
            "a in (b c)",
            "!a=b",
            "a b",
            "a=b c",
            "-a=b",
            "a=-b",
            "a/b/c=d",
            "A.com/x=y",
            "/x=y",
            "x/=y",
            "a>b",
            "a=b)",
            "(a)",
            "a!b",
            "!",
            "a=ü",
        ] {
            assert_eq!(read(selector), Err(Malformed), "{selector}");
        }
        assert_eq!(read(&format!("a={}", "x".repeat(64))), Err(Malformed));
        assert_eq!(read(&format!("{}a=b", " ".repeat(MAX_SELECTOR_LEN))), Err(Malformed));
    }
}
