//! Reads JSON objects and lists: one value, or several concatenated.

use serde::de::IgnoredAny;

use super::{Error, line_at};
use crate::detection::audit::json::{Raw, Type};
use crate::detection::registry::declared_objects::{AddResult, Builder, ImportPass};

pub(super) fn read(text: &str, builder: &mut Builder<'_>) -> Result<(), Error> {
    let values = values(text)?;
    for phase in [ImportPass::Objects, ImportPass::Bindings] {
        for &(start, value) in &values {
            add(value, start, text, phase, builder)?;
        }
    }
    Ok(())
}

/// The values of a text with their positions. Checks the syntax and the nesting of each.
fn values(text: &str) -> Result<Vec<(usize, Raw<'_>)>, Error> {
    let mut values = Vec::new();
    let mut start = 0;
    loop {
        let rest = &text[start..];
        let blank = rest.len() - rest.trim_ascii_start().len();
        start += blank;
        if start == text.len() {
            return Ok(values);
        }
        let mut stream = serde_json::Deserializer::from_str(&text[start..]).into_iter::<IgnoredAny>();
        match stream.next() {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let line = line_at(text.as_bytes(), start) + error.line().saturating_sub(1);
                // The library appends its own position to the message.
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or_default();
                return Err(Error::new(line, format!("not valid JSON: {message}")));
            }
            None => return Ok(values),
        }
        let end = start + stream.byte_offset();
        values.push((start, Raw::assume(&text.as_bytes()[start..end])));
        start = end;
    }
}

fn add(
    value: Raw<'_>,
    start: usize,
    text: &str,
    phase: ImportPass,
    builder: &mut Builder<'_>,
) -> Result<(), Error> {
    let line = || line_at(text.as_bytes(), start);
    if value.kind() == Type::Array {
        for item in value.items().map_while(Result::ok) {
            builder.add(item, phase).map_err(|full| Error::full(line(), full))?;
        }
        return Ok(());
    }
    if value.kind() != Type::Object {
        return Err(Error::new(
            line(),
            "expected an object or a list of objects, as `kubectl get -o json` prints them",
        ));
    }
    match builder.add(value, phase).map_err(|full| Error::full(line(), full))? {
        AddResult::NoKind => {
            let message = "an object without `kind`: expected objects as `kubectl get -o json` prints them";
            Err(Error::new(line(), message))
        }
        AddResult::Known | AddResult::Ignored => Ok(()),
    }
}
