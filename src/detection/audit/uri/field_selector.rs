//! Field selectors, as `k8s.io/apimachinery/pkg/fields.ParseSelector` reads them.
//!
//! Requirements are separated by `,`; the first of `!=`, `==` and `=` in a requirement is its operator; values escape `\`, `,`
//! and `=` with a `\`. Nothing is trimmed. All requirements have to hold.

/// The selector is malformed: the apiserver answers 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed field selector")]
pub(crate) struct Malformed;

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Requirement {
    field: Vec<u8>,
    is_equal: bool,
    value: Vec<u8>,
}

/// A parsed field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSelector {
    /// In the order of their text, as the apiserver sorts them.
    requirements: Vec<Requirement>,
}

impl FieldSelector {
    pub(crate) fn parse(selector: &[u8]) -> Result<Self, Malformed> {
        let mut terms: Vec<&[u8]> = split_terms(selector);
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms.into_iter().filter(|term| !term.is_empty()) {
            let at = term.iter().enumerate().position(|(at, byte)| match byte {
                b'=' => true,
                b'!' => term.get(at + 1) == Some(&b'='),
                _ => false,
            });
            let at = at.ok_or(Malformed)?;
            let is_equal = term[at] == b'=';
            let length = if is_equal && term.get(at + 1) != Some(&b'=') { 1 } else { 2 };
            let value = unescape(&term[at + length..])?;
            // The apiserver drops a requirement of no field and no value.
            if at > 0 || !value.is_empty() {
                requirements.push(Requirement { field: term[..at].to_vec(), is_equal, value });
            }
        }
        Ok(FieldSelector { requirements })
    }

    /// Whether an object whose `field` has this value can match. What the selector says of other fields is not considered.
    pub(crate) fn may_match(&self, field: &str, value: &[u8]) -> bool {
        self.requirements
            .iter()
            .filter(|requirement| requirement.field == field.as_bytes())
            .all(|requirement| (requirement.value == value) == requirement.is_equal)
    }

    /// The values that a field is required to have, in the order of the apiserver: its `RequiresExactMatch` is the first.
    pub(crate) fn required(&self, field: &str) -> impl Iterator<Item = &[u8]> {
        self.requirements
            .iter()
            .filter(move |requirement| requirement.is_equal && requirement.field == field.as_bytes())
            .map(|requirement| &*requirement.value)
    }
}

/// Splits at each `,` that no `\` escapes.
fn split_terms(selector: &[u8]) -> Vec<&[u8]> {
    let mut is_escaped = false;
    let is_separator = |byte: &u8| {
        let was_escaped = std::mem::take(&mut is_escaped);
        is_escaped = !was_escaped && *byte == b'\\';
        !was_escaped && *byte == b','
    };
    selector.split(is_separator).collect()
}

fn unescape(value: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(escaped @ (b'\\' | b',' | b'=')) => out.push(*escaped),
                _ => return Err(Malformed),
            },
            b',' | b'=' => return Err(Malformed),
            _ => out.push(*byte),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(selector: &str) -> Result<Vec<String>, Malformed> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let show = |requirement: &Requirement| {
            let operator = if requirement.is_equal { "is" } else { "not" };
            format!("{} {operator} {}", text(&requirement.field), text(&requirement.value))
        };
        Ok(FieldSelector::parse(selector.as_bytes())?.requirements.iter().map(show).collect())
    }

    #[test]
    fn selectors_are_read_as_the_apiserver_reads_them() {
        for (selector, expected) in [
            ("", vec![]),
            (",,", vec![]),
            ("=", vec![]),
            ("!=,==", vec![]),
            ("a=b", vec!["a is b"]),
            ("a==b,a!=c", vec!["a not c", "a is b"]),
            ("b=1,a=2", vec!["a is 2", "b is 1"]),
            (r"a=b\,c\=d\\", vec![r"a is b,c=d\"]),
            ("a=", vec!["a is "]),
            ("=a", vec![" is a"]),
            (" a = b ", vec![" a  is  b "]),
            ("a!b=c", vec!["a!b is c"]),
            (r"a\=b", vec![r"a\ is b"]),
        ] {
            assert_eq!(read(selector), Ok(expected.into_iter().map(str::to_owned).collect()), "{selector}");
        }
        for malformed in ["a", "a=b=c", "a===b", r"a=\b", r"a=b\", "a!b", r"a=b\,c=d", "a!==b"] {
            assert_eq!(read(malformed), Err(Malformed), "{malformed}");
        }
    }

    #[test]
    fn an_exact_match_is_the_first_in_the_order_of_the_text() {
        let selector = FieldSelector::parse(b"metadata.name=z,metadata.name=b,metadata.name==a").unwrap();
        assert_eq!(selector.required("metadata.name").next(), Some(&b"a"[..]));
        assert!(!selector.may_match("metadata.name", b"a") && selector.may_match("type", b"x"));
    }
}
