//! Query parameters of `/api/v1/alerts`.

use std::collections::HashMap;

use crate::detection::alert::Priority;
use crate::detection::alert::StoredAlert;

/// Maximum number of alerts in a page.
const MAX_LIMIT: usize = 1000;

/// Number of alerts in a page without the parameter `limit`.
const DEFAULT_LIMIT: usize = 100;

/// Filters for alerts; an alert must match all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertQuery {
    /// Only alerts with a lower sequence number, for the next page.
    pub before: Option<i64>,
    /// Maximum number of alerts, from 1 to `MAX_LIMIT`.
    pub limit: usize,
    /// Exact rule name.
    pub rule: Option<String>,
    /// Minimum priority.
    pub priority: Option<Priority>,
    /// Exact name of the user or of the impersonated user.
    pub user: Option<String>,
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
            rule: None,
            priority: None,
            user: None,
            since: None,
            until: None,
        }
    }
}

/// An invalid query parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidQuery {
    #[error("unknown parameter: expected before, limit, rule, priority, user, since or until")]
    Name,
    /// Describes the expected value.
    #[error("{0}")]
    Value(&'static str),
}

impl AlertQuery {
    /// Parses the parameters of a request. Unknown parameters are errors: a misspelled filter must not match everything.
    pub(crate) fn parse(parameters: &HashMap<String, String>) -> Result<Self, InvalidQuery> {
        let mut query = AlertQuery::default();
        for (name, value) in parameters {
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
                "rule" => query.rule = Some(value.clone()),
                "priority" => {
                    let priority = Priority::parse(value);
                    query.priority = Some(priority.ok_or(InvalidQuery::Value(
                        "invalid priority: expected Emergency, Alert, Critical, Error, Warning, Notice, Informational or Debug",
                    ))?);
                }
                "user" => query.user = Some(value.clone()),
                "since" => query.since = Some(time(value)?),
                "until" => query.until = Some(time(value)?),
                _ => return Err(InvalidQuery::Name),
            }
        }
        Ok(query)
    }

    /// Returns whether an alert matches. Every implementation of `AlertLog` must agree with it.
    pub fn matches(&self, alert: &StoredAlert) -> bool {
        self.before.is_none_or(|before| alert.seq < before)
            && self.rule.as_ref().is_none_or(|rule| *rule == alert.rule)
            // Higher priorities compare as less.
            && self.priority.is_none_or(|priority| alert.priority <= priority)
            && self.user.as_ref().is_none_or(|user| involves(&alert.actor, user))
            && self.since.is_none_or(|since| alert.time >= since)
            && self.until.is_none_or(|until| alert.time < until)
    }
}

/// Returns whether an actor (`user`, or `user as impersonated`) is or impersonates this user.
fn involves(actor: &str, user: &str) -> bool {
    actor == user
        || actor.strip_prefix(user).is_some_and(|rest| rest.starts_with(" as "))
        || actor.strip_suffix(user).is_some_and(|rest| rest.ends_with(" as "))
}

/// Parses `2026-11-23T04:17:10Z` or a Unix time in seconds.
fn time(text: &str) -> Result<i64, InvalidQuery> {
    let invalid =
        InvalidQuery::Value("invalid time: expected 2026-11-23T04:17:10Z or a Unix time in seconds");
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1_000_000_000).ok_or(invalid);
    }
    let timestamp: jiff::Timestamp = text.parse().map_err(|_| invalid.clone())?;
    i64::try_from(timestamp.as_nanosecond()).map_err(|_| invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(parameters: &[(&str, &str)]) -> Result<AlertQuery, InvalidQuery> {
        AlertQuery::parse(
            &parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        )
    }

    fn alert() -> StoredAlert {
        StoredAlert {
            seq: 7,
            id: [0; 16],
            time: 1_000_000_000_000,
            stored: 0,
            rule: "Read".to_owned(),
            priority: Priority::Warning,
            actor: "eve as system:admin".to_owned(),
            target: String::new(),
            json: Vec::new(),
            message: String::new(),
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
            (&[("priority", "notice")], true),
            (&[("priority", "warning")], true),
            (&[("priority", "error")], false),
            (&[("user", "eve")], true),
            (&[("user", "system:admin")], true),
            (&[("user", "ev")], false),
            (&[("user", "admin")], false),
            (&[("since", "1000")], true),
            (&[("since", "1970-01-01T00:16:41Z")], false),
            (&[("until", "1000")], false),
            (&[("until", "1001"), ("user", "bob")], false),
        ] {
            assert_eq!(query(parameters).unwrap().matches(&alert()), matches, "{parameters:?}");
        }
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
            ("since", "9223372036854775807"),
            ("usr", "eve"),
        ] {
            assert!(query(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
