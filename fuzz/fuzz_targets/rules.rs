//! Loads arbitrary text as a rule file: it loads or gives diagnostics, which can be rendered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pullwatch::internals::detection::detector::{Detector, Options};
use pullwatch::internals::detection::rules::{self, SourceFile};

/// The YAML parser panics on some malformed texts, which `text::yaml` catches and reports. Those are no findings.
fn allow_caught_panics() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|location| location.file().contains("libyaml-safer")) {
            abort(info);
        }
    }));
}

fuzz_target!(init: allow_caught_panics(), |text: &str| {
    let file = SourceFile { name: "r.yaml".into(), text: text.to_owned() };
    let loaded = rules::load(std::slice::from_ref(&file), &rules::Options { matching: rules::Matching::First });
    let _ = rules::render(&loaded.diagnostics, &[file], false);
    let _ = Detector::new(&loaded.rules, Options::default());
});
