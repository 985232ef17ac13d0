//! Transformers of the rule language: functions that convert values.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::value::{Text, Value};
use crate::detection::rules::ast::Transformer;

/// Applies a transformer to its arguments.
pub fn apply<'a>(transformer: Transformer, arguments: &[&Value<'a>], option: Option<&str>) -> Value<'a> {
    let first = arguments.first().copied().unwrap_or(&Value::Missing);
    match transformer {
        Transformer::ToLower => one(first, |text| Some(text.to_ascii_lowercase())),
        Transformer::ToUpper => one(first, |text| Some(text.to_ascii_uppercase())),
        Transformer::Basename => one(first, |text| {
            let start = memchr::memrchr(b'/', text).map_or(0, |slash| slash + 1);
            Some(text[start..].to_vec())
        }),
        Transformer::Base64 => {
            one(first, |text| STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok())
        }
        Transformer::Len => {
            let length = match first {
                Value::Missing | Value::Number(_) => return Value::Missing,
                Value::Text(text) => text.len(),
                Value::List(texts) => texts.len(),
            };
            Value::Number(i64::try_from(length).unwrap_or(i64::MAX))
        }
        Transformer::Join => {
            let [Value::Text(separator), list] = arguments else { return Value::Missing };
            match list.texts() {
                [] => Value::Missing,
                texts => Value::Text(Cow::Owned(texts.join(&**separator))),
            }
        }
        Transformer::Concat => {
            let mut whole = Vec::new();
            for argument in arguments {
                let Value::Text(text) = argument else { return Value::Missing };
                whole.extend_from_slice(text);
            }
            Value::Text(Cow::Owned(whole))
        }
        Transformer::List => {
            let mut texts = Vec::new();
            for argument in arguments {
                match argument {
                    Value::Missing => return Value::Missing,
                    Value::Number(number) => texts.push(Cow::Owned(number.to_string().into_bytes())),
                    Value::Text(_) | Value::List(_) => texts.extend_from_slice(argument.texts()),
                }
            }
            Value::List(texts)
        }
        Transformer::GetOpt => {
            let (Some(Value::Text(options)), Some(wanted)) = (arguments.get(1), option) else {
                return Value::Missing;
            };
            Value::text(getopt(first.texts(), options, wanted).map(Cow::Owned))
        }
    }
}

/// Applies a function of one string. The result for a list is missing, so that every comparison with it is false.
fn one<'a>(value: &Value<'a>, apply: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Value<'a> {
    match value {
        Value::Text(text) => Value::text(apply(text).map(Cow::Owned)),
        _ => Value::Missing,
    }
}

/// Returns the argument of an option in a command line, parsed like `getopt(3)`: flags may be clustered, `--` ends them. An
/// option without an argument gives the empty string.
fn getopt(words: &[Text<'_>], options: &[u8], wanted: &str) -> Option<Vec<u8>> {
    let &[wanted] = wanted.as_bytes() else { return None };
    let takes_argument =
        |flag: u8| memchr::memchr(flag, options).map(|at| options.get(at + 1) == Some(&b':'));
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if **word == *b"--" {
            return None;
        }
        let Some(mut flags) = word.strip_prefix(b"-") else { continue };
        while let Some((&flag, rest)) = flags.split_first() {
            if takes_argument(flag) == Some(true) {
                let argument = if rest.is_empty() {
                    words.next().map(|word| word.to_vec())
                } else {
                    Some(rest.to_vec())
                };
                if flag == wanted {
                    return argument;
                }
                break;
            }
            if flag == wanted && takes_argument(flag).is_some() {
                return Some(Vec::new());
            }
            flags = rest;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value<'_> {
        Value::Text(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn functions_of_one_string() {
        assert_eq!(apply(Transformer::Basename, &[&text("/a/b")], None), text("b"));
        assert_eq!(apply(Transformer::Base64, &[&text("bG9vdA==")], None), text("loot"));
        assert_eq!(apply(Transformer::Base64, &[&text("no base64!")], None), Value::Missing);
        assert_eq!(apply(Transformer::Len, &[&text("äb")], None), Value::Number(3));
    }

    #[test]
    fn functions_of_several() {
        let list = Value::List(vec![Cow::Borrowed(b"a"), Cow::Borrowed(b"b")]);
        assert_eq!(apply(Transformer::Join, &[&text(", "), &list], None), text("a, b"));
        let of_fields = apply(Transformer::List, &[&text("prod"), &Value::Number(3), &list], None);
        assert_eq!(apply(Transformer::Join, &[&text("/"), &of_fields], None), text("prod/3/a/b"));
        assert_eq!(apply(Transformer::List, &[&text("a"), &Value::Missing], None), Value::Missing);
        assert_eq!(apply(Transformer::Concat, &[&text("a"), &text("b")], None), text("ab"));
        assert_eq!(apply(Transformer::Concat, &[&text("a"), &Value::Missing], None), Value::Missing);
        let line: Vec<Text<'_>> =
            ["-vo", "out", "-x", "--", "-n"].map(|word| Cow::Borrowed(word.as_bytes())).into();
        let line = Value::List(line);
        let get = |flag| apply(Transformer::GetOpt, &[&line, &text("vo:xn")], Some(flag));
        assert_eq!(
            (get("v"), get("o"), get("x"), get("n")),
            (text(""), text("out"), text(""), Value::Missing)
        );
    }
}
