//! The user named in a certificate signing request.
//!
//! The request is base64 of a PEM block of a PKCS #10 request, and its subject's common name is the user name that a client certificate
//! carries. Only the version and the subject are read. If there are several blocks or names, which one the apiserver uses depends on how Go
//! reads the others, so all of them count: a client cannot show its own name here and get a certificate for another one.

use base64::Engine as _;

use super::encodings::decode;
use super::login::{BASE64, MAX_VALUE_LEN};
use super::{RequestInfo, shown};
use crate::detection::audit::event::{Event, Member};

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE REQUEST-----";
const END: &[u8] = b"-----END CERTIFICATE REQUEST-----";

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// 2.5.4.3, in DER.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Placeholder for the name in a request without a readable one. No Kubernetes component sends such a request.
const UNREADABLE: &str = "(unreadable)";

/// Maximum number of blocks, and of names in each, that are read. With more, the request counts as unreadable.
const MAX_NAMES: usize = 16;

/// Returns the user name in a certificate signing request, or all names in it if they differ; none if the event does not contain the
/// request.
pub(crate) fn certificate_user(event: &mut Event<'_>, request: &RequestInfo<'_>) -> Option<String> {
    if request.resource != "certificatesigningrequests" || !request.subresource.is_empty() {
        return None;
    }
    let request = [Member::RequestObject, Member::ResponseObject]
        .into_iter()
        .find_map(|member| event.get(member)?.path(&["spec", "request"]))?;
    let text = request.string().filter(|text| text.len() <= MAX_VALUE_LEN);
    // Go's decoder ignores line breaks.
    text.map_or_else(|| Some(UNREADABLE.to_owned()), |text| names_in(&decode(&text)?))
}

/// The names of all blocks, without duplicates. None if there is no block, in which case the apiserver rejects the request.
fn names_in(pem: &[u8]) -> Option<String> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: Option<String>| {
        let name = name.map_or_else(|| UNREADABLE.to_owned(), shown);
        if !names.contains(&name) {
            names.push(name);
        }
    };
    let starts: Vec<usize> = memchr::memmem::find_iter(pem, BEGIN).take(MAX_NAMES + 1).collect();
    if starts.len() > MAX_NAMES {
        return Some(UNREADABLE.to_owned());
    }
    for (at, start) in starts.iter().enumerate() {
        let start = start + BEGIN.len();
        let next = starts.get(at + 1).copied().unwrap_or(pem.len());
        let block = &pem[start..next];
        let block = memchr::memmem::find(block, END).map_or(block, |length| &block[..length]);
        match der_of(block).map(|der| common_names(&der)) {
            Some(found) if (1..=MAX_NAMES).contains(&found.len()) => {
                for name in found {
                    add(Some(name));
                }
            }
            _ => add(None),
        }
    }
    match &names[..] {
        [] => None,
        [name] => Some(name.clone()),
        // Not the start of a name that a rule expects.
        several => Some(format!("several: {}", several.join(", "))),
    }
}

/// The content of a PEM block. Headers (RFC 1421) contain a colon, which base64 does not.
fn der_of(block: &[u8]) -> Option<Vec<u8>> {
    let lines = block.split(|byte| *byte == b'\n').filter(|line| !line.contains(&b':'));
    let body: Vec<u8> = lines.flatten().filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    BASE64.decode(body).ok()
}

/// Returns the common names of a PKCS #10 request. Go's crypto/x509 uses the last one that is a string.
fn common_names(der: &[u8]) -> Vec<String> {
    let sequence = |one: &Element<'_>| one.tag == SEQUENCE;
    let subject = Element::all(der)
        .next()
        .filter(sequence)
        .and_then(|request| Element::all(request.content).next().filter(sequence))
        .and_then(|info| Element::all(info.content).nth(1).filter(sequence));
    let Some(subject) = subject else { return Vec::new() };
    let sets = Element::all(subject.content).filter(|one| one.tag == SET);
    let attributes = sets.flat_map(|set| Element::all(set.content)).filter(sequence);
    let names = attributes.filter_map(|attribute| {
        let mut parts = Element::all(attribute.content);
        let is_name =
            parts.next().is_some_and(|one| one.tag == OBJECT_IDENTIFIER && one.content == COMMON_NAME);
        parts.next().filter(|_| is_name)
    });
    names.take(MAX_NAMES + 1).map(|name| String::from_utf8_lossy(name.content).into_owned()).collect()
}

/// An element of a DER encoding.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
}

impl<'a> Element<'a> {
    /// Returns the elements one after the other, up to the first truncated or invalid one.
    fn all(mut der: &'a [u8]) -> impl Iterator<Item = Element<'a>> {
        std::iter::from_fn(move || {
            let (element, rest) = Element::split(der)?;
            der = rest;
            Some(element)
        })
    }

    fn split(der: &'a [u8]) -> Option<(Element<'a>, &'a [u8])> {
        let (&[tag, first], rest) = der.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // A length of up to four bytes.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        Some((Element { tag, content }, rest))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let [.., high, low] = content.len().to_be_bytes();
        [&[tag, 0x82, high, low], content].concat()
    }

    fn attribute(oid: &[u8], tag: u8, text: &str) -> Vec<u8> {
        let pair = [element(OBJECT_IDENTIFIER, oid), element(tag, text.as_bytes())].concat();
        element(SET, &element(SEQUENCE, &pair))
    }

    /// A request with these common names, the organization system:nodes, and a common name in an attribute behind the subject.
    fn request(names: &[(u8, &str)]) -> Vec<u8> {
        let mut subject: Vec<u8> =
            names.iter().flat_map(|(tag, name)| attribute(COMMON_NAME, *tag, name)).collect();
        subject.extend(attribute(&[0x55, 0x04, 0x0a], 0x0c, "system:nodes"));
        let info = [
            element(0x02, &[0]),
            element(SEQUENCE, &subject),
            element(SEQUENCE, &attribute(COMMON_NAME, 0x0c, "system:node:c")),
        ];
        element(SEQUENCE, &element(SEQUENCE, &info.concat()))
    }

    fn pem(headers: &str, der: &[u8]) -> String {
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{headers}{}\n-----END CERTIFICATE REQUEST-----\n",
            BASE64.encode(der)
        )
    }

    #[test]
    fn every_common_name_of_the_subject_counts() {
        const TEXT: u8 = 0x0c;
        const INTEGER: u8 = 0x02;
        let one = request(&[(TEXT, "system:node:a")]);
        let two = request(&[(TEXT, "system:node:a"), (TEXT, "system:node:b")]);
        assert_eq!(common_names(&two), ["system:node:a", "system:node:b"]);
        for end in 0..two.len() {
            assert!(common_names(&two[..end]).is_empty());
        }
        assert!(common_names(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).is_empty());
        // Go ignores a name that is a number, and uses the one before it.
        let hidden = request(&[(TEXT, "system:node:b"), (INTEGER, "system:node:a")]);
        for (pem, expected) in [
            (pem("", &one), "system:node:a"),
            (pem("", &two), "several: system:node:a, system:node:b"),
            (pem("", &hidden), "several: system:node:b, system:node:a"),
            // Go skips headers, and text that is not at the start of a line.
            (pem("Proc-Type: 4,ENCRYPTED\na: b\n\n", &one), "system:node:a"),
            (format!("x{}{}", pem("", &one), pem("", &two)), "several: system:node:a, system:node:b"),
            (
                format!("-----BEGIN CERTIFICATE REQUEST-----\n{}", pem("", &one)),
                "several: (unreadable), system:node:a",
            ),
            (pem("", &request(&[])), "(unreadable)"),
            (pem("!", &one), "(unreadable)"),
            // More than the maximum.
            (pem("", &one).repeat(MAX_NAMES) + &pem("", &two), "(unreadable)"),
            (pem("", &request(&[(TEXT, "system:node:a"); MAX_NAMES + 1])), "(unreadable)"),
        ] {
            assert_eq!(names_in(pem.as_bytes()).unwrap(), expected, "{pem}");
        }
        assert_eq!(names_in(b"no request"), None);
        let mut in_lines = BASE64.encode(pem("", &one));
        in_lines.insert_str(64, "\\n");
        let event = format!(
            r#"{{"objectRef":{{"resource":"certificatesigningrequests"}},"requestObject":{{"spec":{{"request":"{in_lines}"}}}}}}"#
        );
        let mut event = Event::new(event.as_bytes());
        let request = RequestInfo::of(&mut event);
        assert_eq!(certificate_user(&mut event, &request).unwrap(), "system:node:a");
    }
}
