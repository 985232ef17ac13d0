//! Reads log records out of an OTLP request, as far as the tests need them.

use std::collections::HashMap;

/// The fields of a protobuf message that have a length: number and content. `None` if it is invalid.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let length = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            5 => 4,
            2 => usize::try_from(varint(&mut bytes)?).ok()?,
            _ => return None,
        };
        let (content, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        found.push((key >> 3, content));
    }
    Some(found)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn inner<'a>(messages: &[&'a [u8]], number: u64) -> Option<Vec<&'a [u8]>> {
    let mut found = Vec::new();
    for message in messages {
        found
            .extend(fields(message)?.into_iter().filter(|(of, _)| *of == number).map(|(_, content)| content));
    }
    Some(found)
}

/// The text of an `AnyValue`.
fn string(value: &[u8]) -> Option<String> {
    let texts = inner(&[value], 1)?;
    texts.first().map(|text| String::from_utf8_lossy(text).into_owned())
}

/// Calls with the text attributes of each record, and its body as `body`. `None` if the request is invalid.
pub fn records(request: &[u8], mut take: impl FnMut(&HashMap<String, String>)) -> Option<()> {
    // resource_logs, scope_logs, log_records
    for record in inner(&inner(&inner(&[request], 1)?, 2)?, 2)? {
        let mut values = HashMap::from([("body".to_owned(), String::new())]);
        for body in inner(&[record], 5)? {
            values.insert("body".to_owned(), string(body)?);
        }
        for attribute in inner(&[record], 6)? {
            let key = inner(&[attribute], 1)?;
            let value = inner(&[attribute], 2)?;
            if let Some(text) = string(value.first()?) {
                values.insert(String::from_utf8_lossy(key.first()?).into_owned(), text);
            }
        }
        take(&values);
    }
    Some(())
}
