//! Recursive-descent parser of conditions. Takes the text of a condition, returns its syntax tree. The grammar is that of the reference
//! engine, including its quirks: `and(`, `not(` and `a=b` need no spaces, and an unquoted value ends at a space, a parenthesis, a comma, a
//! quote or `=`.

use std::ops::Range;

use super::ast::{Operator, Quantifier, Transformer};
use super::syntax::{Comparison, OPERATORS, Operand, Right, Syntax, TRANSFORMERS, Word};
use crate::text::suggest::closest;

/// Whitespace as defined by the reference engine.
const SPACES: [char; 5] = [' ', '\t', '\r', '\n', '\u{8}'];

/// Maximum nesting of parentheses and transformers.
const MAX_DEPTH: usize = 100;

/// Maximum number of arguments of `concat`, and of elements of a list among the arguments of a transformer.
const MAX_ARGUMENTS: usize = 64;

/// A syntax error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub message: String,
    /// In bytes of the condition.
    pub range: Range<usize>,
    /// What was expected at the location.
    pub label: String,
    /// Advice.
    pub help: Option<String>,
}

type Result<T> = std::result::Result<T, Error>;

/// Parses a condition.
///
/// # Errors
/// At the first syntax error.
pub fn condition(text: &str) -> Result<Syntax> {
    condition_with_lists(text, &[])
}

/// Parses a condition in which these list names count as one value each, although they contain spaces or other characters that end an
/// unquoted value. The reference engine substitutes such names textually.
///
/// # Errors
///
/// The first syntax error.
pub fn condition_with_lists(text: &str, unusual_names: &[&str]) -> Result<Syntax> {
    let mut parser = Parser { text, at: 0, depth: 0, unusual_names };
    parser.skip_spaces();
    if parser.at == text.len() {
        return Err(parser.expected("the condition is empty", "a comparison or a macro's name"));
    }
    let condition = parser.or()?;
    parser.skip_spaces();
    if parser.at < text.len() {
        return Err(parser.unexpected_end_of_condition());
    }
    Ok(condition)
}

/// Parses a field or transformer after a `%` in an output. Also returns the position after it.
///
/// # Errors
///
/// If there is neither.
pub fn operand(text: &str, at: usize) -> Result<(Operand, usize)> {
    let mut parser = Parser { text, at, depth: 0, unusual_names: &[] };
    match parser.left()? {
        Some(operand) => Ok((operand, parser.at)),
        None => Err(parser.expected("`%` is not followed by a field", "a field or a transformer")),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    unusual_names: &'t [&'t str],
}

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_spaces(&mut self) -> bool {
        let start = self.at;
        self.at += self.rest().len() - self.rest().trim_start_matches(SPACES).len();
        self.at > start
    }

    fn consume(&mut self, literal: &str) -> bool {
        let found = self.rest().starts_with(literal);
        if found {
            self.at += literal.len();
        }
        found
    }

    /// Returns the range of the word, or of the single character, at the current position.
    fn current_range(&self) -> Range<usize> {
        let rest = self.rest();
        let word = rest
            .find(|letter: char| letter.is_whitespace() || "()=,\"'".contains(letter))
            .unwrap_or(rest.len());
        let length = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
        self.at..self.at + length
    }

    fn expected(&self, message: impl Into<String>, label: impl Into<String>) -> Error {
        let label: String = label.into();
        Error {
            message: message.into(),
            range: self.current_range(),
            label: format!("expected {label}"),
            help: None,
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return Err(self.expected(
                format!("the condition is nested deeper than {MAX_DEPTH} levels"),
                "fewer parentheses; move the inner part to a macro",
            ));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Result<Syntax> {
        self.sequence("or", Self::and, Syntax::Or)
    }

    fn and(&mut self) -> Result<Syntax> {
        self.sequence("and", Self::not, Syntax::And)
    }

    fn sequence(
        &mut self,
        word: &str,
        part: impl Fn(&mut Self) -> Result<Syntax>,
        join: impl FnOnce(Vec<Syntax>) -> Syntax,
    ) -> Result<Syntax> {
        let first = part(self)?;
        let mut parts = vec![first];
        loop {
            self.skip_spaces();
            if !self.consume(word) {
                break;
            }
            if self.rest().starts_with('(') {
                self.at += 1;
                parts.push(self.nested(Self::parenthesized)?);
            } else if self.skip_spaces() {
                parts.push(part(self)?);
            } else {
                let label = format!("a space or `(` after `{word}`");
                return Err(self.expected(format!("`{word}` is not followed by a condition"), label));
            }
        }
        // There is at least one part.
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { join(parts) })
    }

    fn not(&mut self) -> Result<Syntax> {
        self.skip_spaces();
        let mut negated = false;
        loop {
            let rest = self.rest();
            if rest.starts_with("not") && rest[3..].starts_with([' ', '\t', '\r', '\n', '\u{8}']) {
                self.at += 3;
                self.skip_spaces();
                negated = !negated;
            } else if self.consume("not(") {
                negated = !negated;
                let inner = self.nested(Self::parenthesized)?;
                return Ok(if negated { Syntax::Not(Box::new(inner)) } else { inner });
            } else {
                break;
            }
        }
        let primary = self.primary()?;
        Ok(if negated { Syntax::Not(Box::new(primary)) } else { primary })
    }

    /// Parses the rest of a parenthesized condition.
    fn parenthesized(&mut self) -> Result<Syntax> {
        let open = self.at - 1;
        let inner = self.or()?;
        self.skip_spaces();
        if self.consume(")") {
            return Ok(inner);
        }
        if self.at == self.text.len() {
            return Err(Error {
                message: "unclosed parenthesis".to_owned(),
                range: open..open + 1,
                label: "opened here".to_owned(),
                help: Some("add a `)` where it should end".to_owned()),
            });
        }
        Err(self.unexpected_end_of_condition())
    }

    /// Reports text after a comparison that is neither `and` nor `or`.
    fn unexpected_end_of_condition(&self) -> Error {
        let word = &self.text[self.current_range()];
        let mut error = self.expected(format!("`{word}` cannot follow here"), "`and`, `or`, or the end");
        error.help = match word {
            "AND" | "OR" | "NOT" => {
                Some(format!("operators are written in lower case: `{}`", word.to_ascii_lowercase()))
            }
            "&&" => Some("write `and`".to_owned()),
            "||" => Some("write `or`".to_owned()),
            ")" => Some("this parenthesis was never opened".to_owned()),
            "," => Some("write a list of values in parentheses: `in (a, b)`".to_owned()),
            _ => None,
        };
        error
    }

    /// Parses a condition without operators between conditions.
    fn primary(&mut self) -> Result<Syntax> {
        self.skip_spaces();
        if self.consume("(") {
            return self.nested(Self::parenthesized);
        }
        let start = self.at;
        if let Some(left) = self.left()? {
            return self.comparison(left, start);
        }
        if let Some(name) = self.identifier() {
            return Ok(Syntax::Name(name));
        }
        let mut error = self.expected("a comparison is missing", "a field, a macro's name, or `(`");
        if self.rest().starts_with('!') {
            error.help = Some("write `not`".to_owned());
        }
        Err(error)
    }

    /// Parses a field or transformer.
    fn left(&mut self) -> Result<Option<Operand>> {
        if let Some(transformer) = self.transformer() {
            return self.nested(|parser| parser.call(transformer)).map(Some);
        }
        match self.field_name() {
            Some(name) => self.field(name).map(Some),
            None => Ok(None),
        }
    }

    /// Parses the name of a transformer and the opening parenthesis.
    fn transformer(&mut self) -> Option<Transformer> {
        let transformer = TRANSFORMERS.into_iter().find(|transformer| {
            self.rest().strip_prefix(transformer.name()).is_some_and(|rest| rest.starts_with('('))
        })?;
        self.at += transformer.name().len() + 1;
        Some(transformer)
    }

    /// Parses the arguments of a transformer.
    fn call(&mut self, transformer: Transformer) -> Result<Operand> {
        let start = self.at - transformer.name().len() - 1;
        let mut arguments = Vec::new();
        loop {
            self.skip_spaces();
            arguments.push(self.call_argument(transformer)?);
            self.skip_spaces();
            if self.consume(")") {
                break;
            }
            if !self.consume(",") {
                let message = format!("unclosed `{}(`", transformer.name());
                return Err(self.expected(message, "`)` or `,`"));
            }
        }
        let allowed = match transformer {
            Transformer::Join | Transformer::GetOpt => 2..=2,
            Transformer::Concat => 2..=MAX_ARGUMENTS,
            _ => 1..=1,
        };
        if !allowed.contains(&arguments.len()) {
            return Err(Error {
                message: format!(
                    "`{}` takes {} here, not {}",
                    transformer.name(),
                    arity(transformer),
                    arguments.len()
                ),
                range: start..self.at,
                label: "wrong number of arguments".to_owned(),
                help: None,
            });
        }
        let argument = if transformer == Transformer::GetOpt { self.argument()? } else { None };
        Ok(Operand::Call { transformer, arguments, argument, range: start..self.at })
    }

    fn call_argument(&mut self, transformer: Transformer) -> Result<Operand> {
        if !takes_texts(transformer) {
            return match self.left()? {
                Some(operand) => Ok(operand),
                None => {
                    let message = format!("`{}` takes a field", transformer.name());
                    Err(self.expected(message, "a field or a transformer"))
                }
            };
        }
        if self.rest().starts_with('(') {
            return self.nested(Self::transformer_list);
        }
        match self.list_element()? {
            Some(operand) => Ok(operand),
            None => {
                let message = format!("invalid argument of `{}`", transformer.name());
                let mut error =
                    self.expected(message, "a field, a transformer, a list, a number or a quoted string");
                error.help = Some("constants are quoted: `join(\",\", …)`".to_owned());
                Err(error)
            }
        }
    }

    /// Parses `(a, b, …)` as an argument of a transformer.
    fn transformer_list(&mut self) -> Result<Operand> {
        let start = self.at;
        self.at += 1;
        let mut arguments = Vec::new();
        self.skip_spaces();
        while !self.consume(")") {
            if !arguments.is_empty() {
                if !self.consume(",") {
                    return Err(self.expected("the elements of a list are separated by commas", "`,` or `)`"));
                }
                self.skip_spaces();
            }
            let Some(element) = self.list_element()? else {
                let label = "a field, a transformer, a number or a quoted string";
                return Err(self.expected("invalid element of a list", label));
            };
            arguments.push(element);
            if arguments.len() > MAX_ARGUMENTS {
                let message = format!("a list of more than {MAX_ARGUMENTS} elements");
                return Err(self.expected(message, "fewer elements"));
            }
            self.skip_spaces();
        }
        let range = start..self.at;
        Ok(Operand::Call { transformer: Transformer::List, arguments, argument: None, range })
    }

    fn list_element(&mut self) -> Result<Option<Operand>> {
        if let Some(operand) = self.left()? {
            return Ok(Some(operand));
        }
        if self.rest().starts_with(['"', '\'']) {
            return self.quoted().map(|word| Some(Operand::Text(word)));
        }
        let range = self.current_range();
        let word = &self.text[range.clone()];
        if !super::number::is_number(word) {
            return Ok(None);
        }
        self.at = range.end;
        Ok(Some(Operand::Text(Word { text: word.to_owned(), range, quoted: true })))
    }

    fn field(&mut self, name: Word) -> Result<Operand> {
        let argument = self.argument()?;
        Ok(Operand::Field { name, argument })
    }

    fn argument(&mut self) -> Result<Option<Word>> {
        if !self.consume("[") {
            return Ok(None);
        }
        let word = if self.rest().starts_with(['"', '\'']) {
            self.quoted()?
        } else {
            let rest = self.rest();
            let end = rest
                .find(|letter: char| letter.is_whitespace() || "[]\"'".contains(letter))
                .unwrap_or(rest.len());
            if end == 0 {
                return Err(
                    self.expected("the brackets are empty", "an index, or a key such as [/user/username]")
                );
            }
            let word = Word { text: rest[..end].to_owned(), range: self.at..self.at + end, quoted: false };
            self.at += end;
            word
        };
        if !self.consume("]") {
            return Err(self.expected("unclosed bracket", "`]`"));
        }
        Ok(Some(word))
    }

    /// Parses a field name: at least two identifiers, separated by dots.
    fn field_name(&mut self) -> Option<Word> {
        let rest = self.rest();
        let mut end = identifier_length(rest)?;
        let mut parts = 1;
        while let Some(more) = rest[end..].strip_prefix('.').and_then(identifier_length) {
            end += 1 + more;
            parts += 1;
        }
        if parts < 2 {
            return None;
        }
        let range = self.at..self.at + end;
        self.at += end;
        Some(Word { text: rest[..end].to_owned(), range, quoted: false })
    }

    fn identifier(&mut self) -> Option<Word> {
        let end = identifier_length(self.rest())?;
        let word = Word { text: self.rest()[..end].to_owned(), range: self.at..self.at + end, quoted: false };
        self.at += end;
        Some(word)
    }

    fn comparison(&mut self, left: Operand, start: usize) -> Result<Syntax> {
        self.skip_spaces();
        let operator_start = self.at;
        let operator = self.operator()?;
        let operator_range = operator_start..self.at;
        let mut quantifier = None;
        let right = match operator {
            Operator::Exists => Right::Nothing,
            Operator::In | Operator::Intersects | Operator::PMatch => self.list_or_operand()?,
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                self.number_or_operand()?
            }
            _ => {
                let before = self.at;
                self.skip_spaces();
                // Without a preceding space, the word is a value, as in the reference engine.
                quantifier = if self.at > before { self.quantifier() } else { None };
                if quantifier.is_some() { self.list_or_name()? } else { self.text_or_operand()? }
            }
        };
        let range = start..self.at;
        Ok(Syntax::Comparison(Comparison { left, operator, operator_range, quantifier, right, range }))
    }

    fn operator(&mut self) -> Result<Operator> {
        let rest = self.rest();
        let found = OPERATORS.into_iter().find(|(word, _)| {
            rest.strip_prefix(word).is_some_and(|after| {
                let is_word = word.starts_with(|letter: char| letter.is_ascii_alphabetic());
                !is_word || !after.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_')
            })
        });
        if let Some((word, operator)) = found {
            self.at += word.len();
            return Ok(operator);
        }
        let word = &self.text[self.current_range()];
        let message = match word {
            "" => "the comparison has no operator".to_owned(),
            "bcontains" | "bstartswith" => format!("`{word}` compares bytes, but no field contains bytes"),
            word => format!("`{word}` is not an operator"),
        };
        let mut error =
            self.expected(message, "an operator: =, !=, <, <=, >, >=, in, intersects, contains, exists …");
        error.help = match word.to_ascii_lowercase().as_str() {
            "equals" | "eq" | "is" | "===" => Some("write `=`".to_owned()),
            "ne" | "<>" => Some("write `!=`".to_owned()),
            "matches" | "like" | "~" | "=~" => Some("write `glob` or `regex`".to_owned()),
            "and" | "or" => Some(
                "a field alone is not a condition; to test whether it is present write `exists`".to_owned(),
            ),
            "not" => Some("write `not` before the whole comparison: `not ka.verb in (…)`".to_owned()),
            "bcontains" => Some("did you mean `contains`?".to_owned()),
            "bstartswith" => Some("did you mean `startswith`?".to_owned()),
            lower => closest(lower, OPERATORS.iter().map(|(word, _)| *word))
                .map(|near| format!("did you mean `{near}`?")),
        };
        Err(error)
    }

    fn quantifier(&mut self) -> Option<Quantifier> {
        for quantifier in Quantifier::ALL {
            if let Some(rest) = self.rest().strip_prefix(quantifier.name())
                && list_follows(rest)
            {
                self.at += quantifier.name().len();
                return Some(quantifier);
            }
        }
        None
    }

    /// Parses `val(field)` or a transformer.
    fn right_operand(&mut self) -> Result<Option<Operand>> {
        self.skip_spaces();
        if self.consume("val(") {
            self.skip_spaces();
            let Some(name) = self.field_name() else {
                return Err(self.expected("`val` takes a field", "a field"));
            };
            let field = self.field(name)?;
            self.skip_spaces();
            if !self.consume(")") {
                return Err(self.expected("unclosed `val(`", "`)`"));
            }
            return Ok(Some(field));
        }
        match self.transformer() {
            Some(transformer) => self.nested(|parser| parser.call(transformer)).map(Some),
            None => Ok(None),
        }
    }

    fn number_or_operand(&mut self) -> Result<Right> {
        if let Some(operand) = self.right_operand()? {
            return Ok(Right::Operand(operand));
        }
        let range = self.current_range();
        let word = &self.text[range.clone()];
        if !word.is_empty() && super::number::is_number(word) {
            self.at = range.end;
            return Ok(Right::Word(Word { text: word.to_owned(), range, quoted: false }));
        }
        let mut error = self.expected("this operator compares numbers", "a number, or a field in `val()`");
        error.help = Some("strings are compared with =, !=, startswith, contains …".to_owned());
        Err(error)
    }

    fn text_or_operand(&mut self) -> Result<Right> {
        if let Some(operand) = self.right_operand()? {
            return Ok(Right::Operand(operand));
        }
        match self.word()? {
            Some(word) => Ok(Right::Word(word)),
            None => {
                let mut error =
                    self.expected("the comparison has no value", "a value, or a field in `val()`");
                if self.rest().starts_with('(') {
                    error.help =
                        Some("a list takes `in`, or `anyof` after the operator: `= anyof (a, b)`".to_owned());
                }
                Err(error)
            }
        }
    }

    fn list_or_operand(&mut self) -> Result<Right> {
        self.skip_spaces();
        if self.rest().starts_with('(') {
            return self.list();
        }
        if let Some(operand) = self.right_operand()? {
            return Ok(Right::Operand(operand));
        }
        match self.identifier() {
            Some(name) => Ok(Right::ListName(name)),
            None => {
                Err(self.expected("the comparison has no list", "a list in parentheses, or a list's name"))
            }
        }
    }

    fn list_or_name(&mut self) -> Result<Right> {
        self.skip_spaces();
        if !self.rest().starts_with('(')
            && let Some(name) = self.identifier()
        {
            return Ok(Right::ListName(name));
        }
        self.list()
    }

    fn list(&mut self) -> Result<Right> {
        self.skip_spaces();
        if !self.consume("(") {
            return Err(self.expected("a list is missing", "a list in parentheses"));
        }
        let open = self.at - 1;
        let mut words = Vec::new();
        self.skip_spaces();
        if self.consume(")") {
            return Ok(Right::List(words));
        }
        loop {
            self.skip_spaces();
            match self.word()? {
                Some(word) => words.push(word),
                None => return Err(self.expected("a value is missing in this list", "a value")),
            }
            self.skip_spaces();
            if self.consume(")") {
                return Ok(Right::List(words));
            }
            if !self.consume(",") {
                if self.at == self.text.len() {
                    return Err(Error {
                        message: "unclosed list".to_owned(),
                        range: open..open + 1,
                        label: "opened here".to_owned(),
                        help: Some("add a `)` where it should end".to_owned()),
                    });
                }
                let mut error = self.expected("the values of a list are separated by commas", "`,` or `)`");
                error.help = Some("quote a value that contains spaces".to_owned());
                return Err(error);
            }
        }
    }

    /// Parses an unquoted or quoted word, if there is one.
    fn word(&mut self) -> Result<Option<Word>> {
        self.skip_spaces();
        let rest = self.rest();
        if rest.starts_with(['"', '\'']) {
            return self.quoted().map(Some);
        }
        let named = self.unusual_names.iter().filter(|name| {
            rest.strip_prefix(**name).is_some_and(|after| {
                after.is_empty() || after.starts_with([' ', '\t', '\n', '\r', '(', ')', ',', '='])
            })
        });
        if let Some(name) = named.max_by_key(|name| name.len()) {
            let word = Word { text: (*name).to_owned(), range: self.at..self.at + name.len(), quoted: false };
            self.at += name.len();
            return Ok(Some(word));
        }
        let end = rest
            .find(|letter: char| {
                matches!(
                    letter,
                    ' ' | '\t' | '\r' | '\n' | '\u{b}' | '\u{c}' | '(' | ')' | '"' | '\'' | '=' | ','
                )
            })
            .unwrap_or(rest.len());
        if end == 0 {
            return Ok(None);
        }
        let word = Word { text: rest[..end].to_owned(), range: self.at..self.at + end, quoted: false };
        self.at += end;
        Ok(Some(word))
    }

    fn quoted(&mut self) -> Result<Word> {
        let start = self.at;
        let rest = self.rest();
        let mut letters = rest.char_indices();
        let Some((_, quote)) = letters.next() else {
            return Err(self.expected("a value is missing", "a value"));
        };
        let mut text = String::new();
        let mut follows_backslash = false;
        while let Some((at, letter)) = letters.next() {
            // As in the reference engine, a quote directly after a backslash does not close the string, even if the backslash itself is
            // escaped.
            if letter == quote && !std::mem::take(&mut follows_backslash) {
                self.at = start + at + 1;
                return Ok(Word { text, range: start..self.at, quoted: true });
            }
            follows_backslash = false;
            if letter != '\\' {
                text.push(letter);
                continue;
            }
            match letters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, 'b')) => text.push('\u{8}'),
                Some((_, 'f')) => text.push('\u{c}'),
                Some((_, '\\')) => {
                    text.push('\\');
                    follows_backslash = true;
                }
                // Old rules escape a space; the reference engine reads the escape as a literal backslash.
                Some((_, ' ')) => text.push('\\'),
                // Other bytes are not text.
                Some((_, 'x')) if let Some(byte) = ascii_byte(&rest[at + 2..]) => {
                    text.push(char::from(byte));
                    letters.nth(1);
                }
                Some((_, '/')) => text.push('/'),
                Some((_, escaped)) if escaped == quote => text.push(quote),
                Some((_, escaped)) => {
                    return Err(Error {
                        message: format!("`\\{escaped}` is not an escape in a string in {quote}"),
                        range: start + at..start + at + 1 + escaped.len_utf8(),
                        label: format!("expected \\{quote}, \\\\, \\b, \\f, \\n, \\r or \\t"),
                        help: Some("write a literal backslash twice".to_owned()),
                    });
                }
                None => break,
            }
        }
        Err(Error {
            message: "unclosed quote".to_owned(),
            range: start..start + 1,
            label: "opened here".to_owned(),
            help: None,
        })
    }
}

/// Whether a transformer takes constant arguments.
fn takes_texts(transformer: Transformer) -> bool {
    matches!(transformer, Transformer::Join | Transformer::Concat | Transformer::GetOpt)
}

fn arity(transformer: Transformer) -> &'static str {
    match transformer {
        Transformer::Join => "a separator and a list",
        Transformer::GetOpt => "a list and the options",
        Transformer::Concat => "two to 64 values",
        _ => "one value",
    }
}

/// The ASCII character for two hexadecimal digits at the start of a text.
fn ascii_byte(text: &str) -> Option<u8> {
    let digits = text.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)
}

/// Whether a text is one unquoted value. List names for which this is false need [`condition_with_lists`].
pub fn is_unquoted_value(text: &str) -> bool {
    !text.is_empty()
        && !text.contains([' ', '\t', '\r', '\n', '\u{b}', '\u{c}', '(', ')', '"', '\'', '=', ','])
}

/// Whether `oneof` or another modifier is followed by a list in parentheses or the name of a list. Otherwise the word is a value:
/// `ka.user.name = oneof and …`.
fn list_follows(rest: &str) -> bool {
    let next = rest.trim_start_matches(SPACES);
    next.len() < rest.len()
        && (next.starts_with('(')
            || identifier_length(next).is_some_and(|end| !matches!(&next[..end], "and" | "or" | "not")))
}

/// Returns the length of the identifier at the start of a text: a letter, then letters, digits and underscores.
fn identifier_length(text: &str) -> Option<usize> {
    text.starts_with(|letter: char| letter.is_ascii_alphabetic()).then(|| {
        text.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).unwrap_or(text.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        let error = condition(text).unwrap_err();
        format!("{}..{} {}", error.range.start, error.range.end, error.message)
    }

    #[test]
    fn parses_conditions() {
        for good in [
            "a.b = c",
            "a.b=c and(d.e exists)or f",
            "not not a",
            "not(a.b in (x, 'y z', \"q\\\"\"))",
            "tolower(basename(a.b)) = x",
            "a.b[/x/y] startswith anyof (a, b)",
            "a.b = val(c.d)",
            "len(a.b) > 0x10",
            "a.b in list",
            "a.b in ()",
            "join(\",\", a.b) contains x",
            "getopt(a.b, \"vo:\")[o] = out",
        ] {
            assert!(condition(good).is_ok(), "{good}: {:?}", condition(good));
        }
    }

    #[test]
    fn reports_errors_at_their_location() {
        insta::assert_snapshot!(message("a.b = c and"), @"11..11 `and` is not followed by a condition");
        insta::assert_snapshot!(message("a.b is c"), @"4..6 `is` is not an operator");
        insta::assert_snapshot!(message("(a.b = c"), @"0..1 unclosed parenthesis");
        insta::assert_snapshot!(message("a.b in (c d)"), @"10..11 the values of a list are separated by commas");
        insta::assert_snapshot!(message("a.b exists exists"), @"11..17 `exists` cannot follow here");
        insta::assert_snapshot!(message("a.b < x"), @"6..7 this operator compares numbers");
        insta::assert_snapshot!(message("1 = 1"), @"0..1 a comparison is missing");
        insta::assert_snapshot!(message("a.b = \"x\\q\""), @r#"8..10 `\q` is not an escape in a string in ""#);
        assert!(message(&"(".repeat(1000)).contains("nested deeper"));
        assert!(message(&format!("{}a.b", "tolower(".repeat(1000))).contains("nested deeper"));
    }
}
