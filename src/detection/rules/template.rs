//! Parser of outputs: text with `%field` references.

use super::parse::{self, Error};
use super::syntax::Operand;

/// A piece of an output, with unresolved names.
#[derive(Clone, Debug, PartialEq)]
pub enum TemplatePiece {
    /// Literal text.
    Text(String),
    Value {
        operand: Operand,
        /// The text after `%` and the width.
        spelling: String,
        /// `%20field`
        width: Option<usize>,
    },
}

/// Maximum width, which bounds the output that a hostile rule file can request.
const MAX_WIDTH: usize = 1024;

/// Parses an output.
///
/// # Errors
/// At the first `%` without a field.
pub fn parse(text: &str) -> Result<Vec<TemplatePiece>, Error> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find('%') {
        if found > 0 {
            pieces.push(TemplatePiece::Text(text[at..at + found].to_owned()));
        }
        let percent = at + found;
        at = percent + 1;
        let digits = text[at..].find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len() - at);
        let width = &text[at..at + digits];
        let width = match width.parse::<usize>() {
            _ if width.is_empty() => None,
            Ok(width) if width <= MAX_WIDTH => Some(width),
            _ => {
                return Err(Error {
                    message: format!("the maximum width of a value is {MAX_WIDTH} characters"),
                    range: at..at + digits,
                    label: "too wide".to_owned(),
                    help: None,
                });
            }
        };
        at += digits;
        if at == text.len() {
            return Err(Error {
                message: "the output ends with a `%`".to_owned(),
                range: percent..percent + 1,
                label: "expected a field after it".to_owned(),
                help: Some("a percent sign cannot be escaped: write `percent`".to_owned()),
            });
        }
        let (operand, end) = parse::operand(text, at).map_err(|mut error| {
            error.help.get_or_insert_with(|| "in an output `%` starts a field: %ka.user.name".to_owned());
            error
        })?;
        pieces.push(TemplatePiece::Value { operand, spelling: text[at..end].to_owned(), width });
        at = end;
    }
    if at < text.len() {
        pieces.push(TemplatePiece::Text(text[at..].to_owned()));
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_outputs() {
        let pieces = parse("user=%ka.user.name x=%20jevt.value[/a/b], %toupper(ka.verb).").unwrap();
        let spellings: Vec<_> = pieces
            .iter()
            .map(|piece| match piece {
                TemplatePiece::Text(text) => format!("'{text}'"),
                TemplatePiece::Value { spelling, width, .. } => format!("{spelling} {width:?}"),
            })
            .collect();
        insta::assert_snapshot!(spellings.join("; "), @"'user='; ka.user.name None; ' x='; jevt.value[/a/b] Some(20); ', '; toupper(ka.verb) None; '.'");
        assert!(parse("100% sure").is_err() && parse("sure %").is_err() && parse("%").is_err());
    }
}
