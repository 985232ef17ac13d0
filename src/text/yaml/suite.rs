//! The YAML test suite (`tests/data/yaml`, with its source and license).
//!
//! Each case is a text with the equivalent JSON, or with the expectation that it is rejected. Deviations of the parser are listed with the
//! reason, and the list must be exact.

use std::collections::BTreeSet;

use serde_json::Value;

use super::parse;

/// Cases that are read in another way, by reason.
const DEVIATIONS: [(&str, &[&str]); 8] = [
    (
        "a key must be a scalar and must not be absent: every key of a rule, policy or configuration file is text",
        &[
            "2JQS", "4FJ6", "6BFJ", "6M2F", "6PBE", "9MMW", "CFD4", "KK5P", "LX3P", "M2N8/00", "M2N8/01",
            "M5DY", "NHX8", "NKF9", "Q9WF", "RZP5", "S3PD", "SBG9", "SM9W/01", "UKK6/00", "V9D5", "X38W",
            "XW4D",
        ],
    ),
    (
        "as libyaml, tabs are not accepted where they could be taken for indentation",
        &[
            "6BCT", "6CA3", "96NN/00", "96NN/01", "A2M4", "DK95/00", "DK95/03", "DK95/04", "Q5MG", "R4YG",
            "Y79Y/001", "Y79Y/010",
        ],
    ),
    (
        "as libyaml, unknown directives and versions are refused",
        &["2LFX", "6LVF", "BEC7", "MUS6/05", "MUS6/06"],
    ),
    (
        "as libyaml, a colon in a flow collection directly precedes its value and is on the line of its key",
        &[
            "4ABK", "4MUZ/00", "4MUZ/01", "4MUZ/02", "58MP", "5MUD", "5T43", "652Z", "9SA2", "DBG4", "FRK4",
            "HM87/00", "HM87/01", "K3WX", "NJ66", "UT92", "VJP3/01",
        ],
    ),
    ("as libyaml, names of anchors are letters, digits, `-` and `_`", &["2SXE", "8XYN", "W5VH", "Y2GN"]),
    (
        "as libyaml, a document that follows `...`, or has a block scalar without indentation, is refused",
        &["7Z25", "DK3J", "FP8R", "HWV9", "M7A3", "QT73", "W4TN"],
    ),
    (
        "as libyaml, wrong indentation, comments without a space and directives without `...` are accepted; and a last line of \
         blanks in a literal is dropped",
        &[
            "9C9N", "9HCY", "9JBA", "CVW2", "DK95/01", "EB22", "G5U8", "L24T/01", "MUS6/00", "MUS6/01",
            "QB6E", "RHX7", "S98Z", "SU5Z", "X4QW", "Y79Y/003", "YJV2",
        ],
    ),
    (
        "tags are ignored (the type of a value follows from its place), and one before a comma is refused",
        &["C4HZ", "LE5A", "S4JQ", "UGM3", "WZ62"],
    ),
];

#[test]
fn the_yaml_test_suite_is_read_as_claimed() {
    let suite = include_str!("../../../tests/data/yaml/suite.jsonl");
    let mut deviating = BTreeSet::new();
    for line in suite.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let is_as_expected = match (parse(case["yaml"].as_str().unwrap()), case["error"].is_null()) {
            (Ok(documents), true) => {
                let documents: Vec<Value> = documents.roots.iter().map(|root| root.to_json()).collect();
                case["json"].as_array().is_none_or(|expected| *expected == documents)
            }
            (result, is_valid) => result.is_ok() == is_valid,
        };
        if !is_as_expected {
            deviating.insert(case["id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(suite.lines().count(), 402);
    let listed = DEVIATIONS.iter().flat_map(|(_, ids)| ids.iter().map(|id| (*id).to_owned()));
    assert_eq!(deviating, listed.collect());
}
