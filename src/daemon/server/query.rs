//! Query parameters of `/api/v1/alerts`.

use std::collections::HashMap;

use crate::detection::alert::{Priority, StoredAlert, push_hex};
use crate::detection::history::StoredFacts;
use crate::text::timespan;

/// Maximum number of alerts in a page.
const MAX_LIMIT: usize = 1000;

/// Number of alerts in a page without the parameter `limit`.
const DEFAULT_LIMIT: usize = 100;

/// Maximum length of a filter in bytes.
const MAX_FILTER_BYTES: usize = 1024;

/// A name, or a part of it: `*` matches any text, including none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(text: &str) -> Self {
        Pattern(text.to_owned())
    }

    /// The whole name, unless it contains `*`.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&self.0)
    }

    /// The longest text that every match contains.
    pub fn literal(&self) -> &str {
        self.0.split('*').max_by_key(|piece| piece.len()).unwrap_or_default()
    }

    /// Returns whether the whole name matches. Linear in the length of both for each piece of the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(last) = pieces.next_back() else { return name == first };
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        for piece in pieces {
            // The leftmost occurrence leaves the most text for the remaining pieces.
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }
}

/// Filters for alerts; an alert must match all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertQuery {
    /// Only alerts with a lower sequence number, for the next page.
    pub before: Option<i64>,
    /// Maximum number of alerts, from 1 to `MAX_LIMIT`.
    pub limit: usize,
    /// First hexadecimal digits of the alert's id, in lower case.
    pub id: Option<String>,
    pub rule: Option<Pattern>,
    /// Minimum priority.
    pub priority: Option<Priority>,
    /// The user, the impersonated user, or both (`user as impersonated`).
    pub actor: Option<Pattern>,
    /// A credential as `namespace/name`.
    pub credential: Option<Pattern>,
    /// Namespace of the request or of one of its credentials.
    pub namespace: Option<Pattern>,
    /// The host of a registry.
    pub registry: Option<Pattern>,
    /// A part of the output, the rule, the actor, or the target, in any case.
    pub text: Option<String>,
    /// Only acknowledged alerts, or only unacknowledged ones.
    pub acknowledged: Option<bool>,
    /// Inclusive start, in nanoseconds since 1970-01-01T00:00:00Z.
    pub since: Option<i64>,
    /// Exclusive end, in nanoseconds since 1970-01-01T00:00:00Z.
    pub until: Option<i64>,
}

impl Default for AlertQuery {
    fn default() -> Self {
        AlertQuery {
            before: None,
            limit: DEFAULT_LIMIT,
            id: None,
            rule: None,
            priority: None,
            actor: None,
            credential: None,
            namespace: None,
            registry: None,
            text: None,
            acknowledged: None,
            since: None,
            until: None,
        }
    }
}

/// An invalid query parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidQuery {
    #[error(
        "unknown parameter: expected before, limit, id, rule, priority, actor, credential, namespace, registry, text, acknowledged, \
         since or until"
    )]
    Name,
    /// Describes the expected value.
    #[error("{0}")]
    Value(&'static str),
}

impl AlertQuery {
    /// Parses the parameters of a request at a time (nanoseconds since 1970-01-01T00:00:00Z). Unknown parameters are errors, because a
    /// misspelled filter must not match everything.
    pub(crate) fn parse(parameters: &HashMap<String, String>, now: i64) -> Result<Self, InvalidQuery> {
        let mut query = AlertQuery::default();
        for (name, value) in parameters {
            if value.len() > MAX_FILTER_BYTES {
                return Err(InvalidQuery::Value("invalid parameter: longer than 1024 bytes"));
            }
            let pattern = || Some(Pattern::new(value));
            match name.as_str() {
                "before" => {
                    let before = value
                        .parse()
                        .map_err(|_| InvalidQuery::Value("invalid before: expected a number"))?;
                    query.before = Some(before);
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    query.limit = limit
                        .ok_or(InvalidQuery::Value("invalid limit: expected a number from 1 to 1000"))?;
                }
                "id" => query.id = Some(id_prefix(value)?),
                "rule" => query.rule = pattern(),
                "priority" => {
                    let priority = Priority::parse(value);
                    query.priority = Some(priority.ok_or(InvalidQuery::Value(
                        "invalid priority: expected Emergency, Alert, Critical, Error, Warning, Notice, Informational or Debug",
                    ))?);
                }
                "actor" => query.actor = pattern(),
                "credential" => query.credential = pattern(),
                "namespace" => query.namespace = pattern(),
                "registry" => query.registry = pattern(),
                "text" => query.text = Some(value.to_lowercase()),
                "acknowledged" => {
                    query.acknowledged = Some(match value.as_str() {
                        "true" => true,
                        "false" => false,
                        _ => {
                            return Err(InvalidQuery::Value("invalid acknowledged: expected true or false"));
                        }
                    });
                }
                "since" => query.since = Some(time(value, now)?),
                "until" => query.until = Some(time(value, now)?),
                _ => return Err(InvalidQuery::Name),
            }
        }
        Ok(query)
    }

    /// Returns whether an alert matches, except for `acknowledged`, which is not part of the alert. Every implementation of `AlertLog`
    /// must agree with it.
    pub fn matches(&self, alert: &StoredAlert) -> bool {
        self.before.is_none_or(|before| alert.seq < before)
            && self.rule.as_ref().is_none_or(|rule| rule.matches(&alert.rule))
            // Higher priorities compare as less.
            && self.priority.is_none_or(|priority| alert.priority <= priority)
            && self.actor.as_ref().is_none_or(|actor| involves(&alert.actor, actor))
            && self.since.is_none_or(|since| alert.time >= since)
            && self.until.is_none_or(|until| alert.time < until)
            && self.id.as_ref().is_none_or(|id| hex(&alert.id).starts_with(id.as_str()))
            && self.text.as_ref().is_none_or(|text| contains(alert, text))
            && self.matches_facts(alert)
    }

    /// The filters that need the alert's JSON.
    fn matches_facts(&self, alert: &StoredAlert) -> bool {
        if self.credential.is_none() && self.namespace.is_none() && self.registry.is_none() {
            return true;
        }
        let facts = StoredFacts::parse(&alert.json);
        let exposure = &facts.exposure;
        self.credential.as_ref().is_none_or(|filter| exposure.secrets.iter().any(|name| filter.matches(name)))
            && self
                .namespace
                .as_ref()
                .is_none_or(|filter| facts.namespaces().any(|name| filter.matches(name)))
            && self
                .registry
                .as_ref()
                .is_none_or(|filter| exposure.logins.hosts.iter().any(|host| filter.matches(host)))
    }
}

/// An alert's id in hexadecimal digits.
pub(super) fn hex(id: &[u8]) -> String {
    let mut text = Vec::with_capacity(2 * id.len());
    push_hex(id, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Checks the first digits of an id.
pub(super) fn id_prefix(text: &str) -> Result<String, InvalidQuery> {
    let is_valid = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let invalid = InvalidQuery::Value("invalid id: expected 1 to 32 hexadecimal digits");
    if is_valid { Ok(text.to_ascii_lowercase()) } else { Err(invalid) }
}

/// Returns whether an actor (`user`, or `user as impersonated`) matches, or its user or impersonated user does.
fn involves(actor: &str, filter: &Pattern) -> bool {
    // A user name may itself contain ` as `, so each occurrence is tried.
    let ends = actor.match_indices(" as ");
    filter.matches(actor)
        || ends.into_iter().any(|(at, separator)| {
            filter.matches(&actor[..at]) || filter.matches(&actor[at + separator.len()..])
        })
}

fn contains(alert: &StoredAlert, text: &str) -> bool {
    [&alert.message, &alert.rule, &alert.actor, &alert.target]
        .into_iter()
        .any(|member| member.to_lowercase().contains(text))
}

/// Parses `2026-11-23T04:17:10Z`, a Unix time in seconds, or an age such as `5m`.
pub(super) fn time(text: &str, now: i64) -> Result<i64, InvalidQuery> {
    let invalid = InvalidQuery::Value(
        "invalid time: expected 2026-11-23T04:17:10Z, a Unix time in seconds, or an age such as 5m or 7d",
    );
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1_000_000_000).ok_or(invalid);
    }
    if let Ok(age) = timespan::parse(text) {
        return Ok(now.saturating_sub(age));
    }
    let timestamp: jiff::Timestamp = text.parse().map_err(|_| invalid.clone())?;
    i64::try_from(timestamp.as_nanosecond()).map_err(|_| invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nanoseconds.
    const NOW: i64 = 1_060_000_000_000;

    fn query(parameters: &[(&str, &str)]) -> Result<AlertQuery, InvalidQuery> {
        let parameters =
            parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        AlertQuery::parse(&parameters, NOW)
    }

    fn alert() -> StoredAlert {
        StoredAlert {
            seq: 7,
            id: [0xab; 16],
            time: 1_000_000_000_000,
            stored: 0,
            rule: "Read".to_owned(),
            priority: Priority::Warning,
            actor: "eve as system:admin".to_owned(),
            target: "secrets prod/regcred".to_owned(),
            json: br#"{"event":{"objectRef":{"namespace":"prod"}},"registry":{"exposure":"payload","secrets":["prod/regcred","dev/pull"],"hosts":["ghcr.io"]}}"#.to_vec(),
            message: "user=Eve read".to_owned(),
        }
    }

    #[test]
    fn matches_filters() {
        for (parameters, matches) in [
            (&[][..], true),
            (&[("before", "8")], true),
            (&[("before", "7")], false),
            (&[("rule", "Read")], true),
            (&[("rule", "read")], false),
            (&[("rule", "R*d")], true),
            (&[("priority", "notice")], true),
            (&[("priority", "warning")], true),
            (&[("priority", "error")], false),
            (&[("actor", "eve")], true),
            (&[("actor", "system:admin")], true),
            (&[("actor", "eve as system:admin")], true),
            (&[("actor", "ev")], false),
            (&[("actor", "*admin*")], true),
            (&[("actor", "admin")], false),
            (&[("credential", "prod/regcred")], true),
            (&[("credential", "dev/*")], true),
            (&[("credential", "regcred")], false),
            (&[("namespace", "prod")], true),
            (&[("namespace", "dev")], true),
            (&[("namespace", "pro")], false),
            (&[("registry", "ghcr.io")], true),
            (&[("registry", "*.io")], true),
            (&[("registry", "quay.io")], false),
            (&[("text", "USER=eve")], true),
            (&[("text", "regcred")], true),
            (&[("text", "mallory")], false),
            (&[("id", "ABab")], true),
            (&[("id", "abac")], false),
            (&[("since", "1000")], true),
            (&[("since", "1970-01-01T00:16:41Z")], false),
            (&[("since", "1m")], true),
            (&[("since", "59s")], false),
            (&[("until", "1000")], false),
            (&[("until", "59s")], true),
            (&[("until", "1001"), ("actor", "bob")], false),
        ] {
            assert_eq!(query(parameters).unwrap().matches(&alert()), matches, "{parameters:?}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, matches) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*b*c", "abcbc", true),
            ("*b*c", "abcb", false),
            ("**", "x", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "ac", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), matches, "{pattern} {name}");
        }
        assert_eq!(Pattern::new("a*bcd*").literal(), "bcd");
        assert_eq!((Pattern::new("a*").exact(), Pattern::new("a").exact()), (None, Some("a")));
    }

    #[test]
    fn rejects_invalid_parameters() {
        for wrong in [
            ("limit", "0"),
            ("limit", "1001"),
            ("limit", "-1"),
            ("before", "x"),
            ("priority", "bad"),
            ("since", "yesterday"),
            ("since", "5 minutes"),
            ("since", "9223372036854775807"),
            ("id", "xyz"),
            ("id", ""),
            ("acknowledged", "yes"),
            ("usr", "eve"),
            ("text", &"x".repeat(1025)),
        ] {
            assert!(query(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
