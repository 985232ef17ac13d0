//! Which alerts are asked for.

use std::collections::HashMap;

use crate::detection::alert::Priority;
use crate::detection::alert::StoredAlert;

/// A page holds at most so many alerts.
pub const MOST_ALERTS: usize = 1000;

/// A page holds so many alerts unless it is said otherwise.
const USUAL_ALERTS: usize = 100;

/// Which alerts are asked for: those that everything given here goes for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertQuery {
    /// Only those with a lower place ([`StoredAlert::seq`]): the next page behind one that ended with it.
    pub before: Option<i64>,
    /// At most so many, from 1 to [`MOST_ALERTS`].
    pub limit: usize,
    /// Of the rule of this name.
    pub rule: Option<String>,
    /// At least that bad.
    pub priority: Option<Priority>,
    /// Of this user: who did it, or whom they posed as.
    pub user: Option<String>,
    /// Not before this time, in nanoseconds since 1970.
    pub since: Option<i64>,
    /// Before this time.
    pub until: Option<i64>,
}

impl Default for AlertQuery {
    fn default() -> Self {
        AlertQuery {
            before: None,
            limit: USUAL_ALERTS,
            rule: None,
            priority: None,
            user: None,
            since: None,
            until: None,
        }
    }
}

/// A parameter that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadQuery {
    /// Its name is not known.
    #[error("there is no such parameter; there are before, limit, rule, priority, user, since and until")]
    Name,
    /// Its value is no good.
    #[error("{0}")]
    Value(&'static str),
}

impl AlertQuery {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// When one is not known or its value is no good: a filter with a slip in it must not show everything.
    pub fn parse(parameters: &HashMap<String, String>) -> Result<Self, BadQuery> {
        let mut query = AlertQuery::default();
        for (name, value) in parameters {
            match name.as_str() {
                "before" => {
                    let before = value.parse().map_err(|_| BadQuery::Value("before is a number"))?;
                    query.before = Some(before);
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST_ALERTS).contains(limit));
                    query.limit = limit.ok_or(BadQuery::Value("limit is a number from 1 to 1000"))?;
                }
                "rule" => query.rule = Some(value.clone()),
                "priority" => {
                    let priority = Priority::parse(value);
                    query.priority = Some(priority.ok_or(BadQuery::Value(
                        "priority is one of Emergency, Alert, Critical, Error, Warning, Notice, Informational, Debug",
                    ))?);
                }
                "user" => query.user = Some(value.clone()),
                "since" => query.since = Some(time(value)?),
                "until" => query.until = Some(time(value)?),
                _ => return Err(BadQuery::Name),
            }
        }
        Ok(query)
    }

    /// Whether an alert is asked for. Whatever else answers a query, its answer must be the same.
    pub fn matches(&self, alert: &StoredAlert) -> bool {
        self.before.is_none_or(|before| alert.seq < before)
            && self.rule.as_ref().is_none_or(|rule| *rule == alert.rule)
            // The worst come first.
            && self.priority.is_none_or(|priority| alert.priority <= priority)
            && self.user.as_ref().is_none_or(|user| is_actor(&alert.actor, user))
            && self.since.is_none_or(|since| alert.time >= since)
            && self.until.is_none_or(|until| alert.time < until)
    }
}

/// Whether an actor, `user` or `user as other`, is or poses as that user.
fn is_actor(actor: &str, user: &str) -> bool {
    actor == user
        || actor.strip_prefix(user).is_some_and(|rest| rest.starts_with(" as "))
        || actor.strip_suffix(user).is_some_and(|rest| rest.ends_with(" as "))
}

/// A time like `2026-11-23T04:17:10Z`, or so many seconds since 1970.
fn time(text: &str) -> Result<i64, BadQuery> {
    let wrong = BadQuery::Value("since and until are times like 2026-11-23T04:17:10Z, or seconds since 1970");
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1_000_000_000).ok_or(wrong);
    }
    let timestamp: jiff::Timestamp = text.parse().map_err(|_| wrong.clone())?;
    i64::try_from(timestamp.as_nanosecond()).map_err(|_| wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(parameters: &[(&str, &str)]) -> Result<AlertQuery, BadQuery> {
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
    fn filters_mean_what_they_say() {
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
    fn slips_are_said() {
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
