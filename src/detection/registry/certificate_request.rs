//! The user in a certificate signing request.
//!
//! The request is base64 of a PEM block of a PKCS #10 request, and its subject's common name is the user name that a client
//! certificate carries. Only the version and the subject are read.

use base64::Engine as _;

use super::login::{BASE64, decode_base64};
use super::{RequestInfo, shown};
use crate::detection::audit::event::{Event, Member};

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE REQUEST-----";
const END: &[u8] = b"-----END CERTIFICATE REQUEST-----";

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// 2.5.4.3, in DER.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Returns the user name in a certificate signing request; none if the event does not show one.
pub(crate) fn certificate_user(event: &mut Event<'_>, request: &RequestInfo<'_>) -> Option<String> {
    if request.resource != "certificatesigningrequests" || !request.subresource.is_empty() {
        return None;
    }
    [Member::RequestObject, Member::ResponseObject].into_iter().find_map(|member| {
        let pem = decode_base64(event.get(member)?.path(&["spec", "request"]))?;
        let start = memchr::memmem::find(&pem, BEGIN)? + BEGIN.len();
        let length = memchr::memmem::find(&pem[start..], END)?;
        let mut body = pem[start..start + length].to_vec();
        body.retain(|byte| !byte.is_ascii_whitespace());
        common_name(&BASE64.decode(body).ok()?).map(shown)
    })
}

/// Returns the common name of a PKCS #10 request; the last one if there are several, as Go's crypto/x509 does.
fn common_name(der: &[u8]) -> Option<String> {
    let request = Element::all(der).next().filter(|one| one.tag == SEQUENCE)?;
    let info = Element::all(request.content).next().filter(|one| one.tag == SEQUENCE)?;
    let subject = Element::all(info.content).nth(1).filter(|one| one.tag == SEQUENCE)?;
    let sets = Element::all(subject.content).filter(|one| one.tag == SET);
    let attributes = sets.flat_map(|set| Element::all(set.content)).filter(|one| one.tag == SEQUENCE);
    let names = attributes.filter_map(|attribute| {
        let mut parts = Element::all(attribute.content);
        let is_name =
            parts.next().is_some_and(|one| one.tag == OBJECT_IDENTIFIER && one.content == COMMON_NAME);
        parts.next().filter(|_| is_name)
    });
    names.last().map(|name| String::from_utf8_lossy(name.content).into_owned())
}

/// An element of a DER encoding.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
}

impl<'a> Element<'a> {
    /// Returns the elements one after the other, up to the first that is cut or invalid.
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

    /// A request with the organization system:nodes and two common names, and one in an attribute behind the subject.
    #[test]
    fn the_last_common_name_of_the_subject_counts() {
        let element = |tag: u8, content: &[u8]| {
            [
                &[
                    tag,
                    0x82,
                    u8::try_from(content.len() >> 8).unwrap(),
                    u8::try_from(content.len() & 0xff).unwrap(),
                ],
                content,
            ]
            .concat()
        };
        let attribute = |oid: &[u8], text: &str| {
            let pair = [element(OBJECT_IDENTIFIER, oid), element(0x0c, text.as_bytes())].concat();
            element(SET, &element(SEQUENCE, &pair))
        };
        let subject = [
            attribute(COMMON_NAME, "system:node:a"),
            attribute(COMMON_NAME, "system:node:b"),
            attribute(&[0x55, 0x04, 0x0a], "system:nodes"),
        ];
        let info = [
            element(0x02, &[0]),
            element(SEQUENCE, &subject.concat()),
            element(SEQUENCE, &attribute(COMMON_NAME, "system:node:c")),
        ];
        let der = element(SEQUENCE, &element(SEQUENCE, &info.concat()));
        assert_eq!(common_name(&der).unwrap(), "system:node:b");
        for end in 0..der.len() {
            assert_eq!(common_name(&der[..end]), None);
        }
        assert_eq!(common_name(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
