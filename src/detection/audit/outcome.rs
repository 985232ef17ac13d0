//! Whether a request succeeded: the one definition, for rules and for what is learned from events.
//!
//! Takes `responseStatus` and returns an [`Outcome`]. Long-running requests (watch, exec, attach, port-forward, proxy) of
//! WebSocket and SPDY clients end with 101 Switching Protocols, which is a success like 2xx.

use super::event::{Event, Member};
use super::json::Raw;

/// What `responseStatus` says about a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 2xx or 101.
    Success,
    Failure,
    /// The request may have succeeded: no code is logged, as in a truncated line, or the apiserver answered 504 after the timeout, which a
    /// client can choose (`?timeout=1s`) and which does not tell whether a write succeeded.
    #[default]
    Unknown,
}

impl Outcome {
    /// Returns the value of `audit.outcome`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Unknown => "unknown",
        }
    }

    pub(crate) fn of(event: &mut Event<'_>) -> Self {
        Self::with_code(event).0
    }

    /// Also returns the HTTP status, which may be a number or a string; none if it is missing or not an HTTP status.
    pub(crate) fn with_code(event: &mut Event<'_>) -> (Self, Option<u16>) {
        let Some(status) = event.get(Member::ResponseStatus) else { return (Outcome::Unknown, None) };
        let code = status_code(status);
        let outcome = match code {
            Some(101 | 200..=299) => Outcome::Success,
            Some(504) => Outcome::Unknown,
            Some(_) => Outcome::Failure,
            None => match status.get("status").and_then(Raw::string).as_deref() {
                Some(b"Success") => Outcome::Success,
                Some(b"Failure") => Outcome::Failure,
                _ => Outcome::Unknown,
            },
        };
        (outcome, code)
    }
}

fn status_code(status: Raw<'_>) -> Option<u16> {
    let text = status.get("code")?.text();
    let code = std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()?;
    (100..600).contains(&code).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switching_protocols_is_a_success_and_a_code_may_be_text() {
        for (status, expected) in [
            (r#"{"code":200}"#, Outcome::Success),
            (r#"{"code":299}"#, Outcome::Success),
            (r#"{"code":101}"#, Outcome::Success),
            (r#"{"code":"101"}"#, Outcome::Success),
            (r#"{"code":" 200 "}"#, Outcome::Success),
            (r#"{"code":100}"#, Outcome::Failure),
            (r#"{"code":304}"#, Outcome::Failure),
            (r#"{"code":"404"}"#, Outcome::Failure),
            (r#"{"code":504}"#, Outcome::Unknown),
            (r#"{"code":2000}"#, Outcome::Unknown),
            (r#"{"code":"ok"}"#, Outcome::Unknown),
            (r#"{"status":"Failure"}"#, Outcome::Failure),
            (r#"{"status":"Success","message":"Connection closed early"}"#, Outcome::Success),
            ("{}", Outcome::Unknown),
            ("null", Outcome::Unknown),
        ] {
            let text = format!(r#"{{"responseStatus":{status}}}"#);
            assert_eq!(Outcome::of(&mut Event::new(text.as_bytes())), expected, "{status}");
        }
        assert_eq!(Outcome::of(&mut Event::new(b"{}")), Outcome::Unknown);
        let mut event = Event::new(br#"{"responseStatus":{"code":"404"}}"#);
        assert_eq!(Outcome::with_code(&mut event), (Outcome::Failure, Some(404)));
    }
}
