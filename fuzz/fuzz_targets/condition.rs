//! Parses arbitrary text as a condition, an output and a regular expression: errors have a location inside of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pullwatch::internals::detection::rules::{parse, posix, template};

fuzz_target!(|text: &str| {
    if let Err(error) = parse::condition(text) {
        assert!(error.range.start <= error.range.end && error.range.end <= text.len());
        assert!(text.is_char_boundary(error.range.start) && text.is_char_boundary(error.range.end));
    }
    if let Err(error) = template::parse(text) {
        assert!(error.range.end <= text.len());
    }
    let _ = posix::compile(text);
});
