//! Determines from the last bytes of a line whether it ends like an audit event.

/// Whether a line that starts with an event visibly ends like a complete event of the apiserver: with its annotations, or with
/// `stageTimestamp`. If not, it may be complete nevertheless. An event that is truncated before `objectRef` never ends like this, whatever
/// a client chooses: inside a string every quote is escaped, and no object before `objectRef` contains an object of strings.
#[inline]
pub(crate) fn ends_like_an_event(line: &[u8]) -> bool {
    const TIMESTAMP: &[u8] = br#""stageTimestamp":""#;
    const TIMESTAMP_LEN: usize = r#"2026-11-23T04:15:07.230739Z"}"#.len();
    match line.trim_ascii_end() {
        // The quote closes a string: it is not escaped, and does not open a string.
        [.., before, b'"', b'}', b'}'] => {
            !matches!(before, b'\\' | b':' | b',' | b'[' | b'{' | b' ' | b'\t' | b'\r' | b'\n')
        }
        text @ [.., b'Z', b'"', b'}'] => {
            let end = text.len().saturating_sub(TIMESTAMP_LEN);
            text[..end].ends_with(TIMESTAMP)
        }
        _ => false,
    }
}

/// Whether a line ends like an event of the stage RequestReceived: with two equal times. In later stages the times differ, so that the end
/// of an event of a later stage is not taken for the end of this one, if that was lost. Some events of this stage have annotations, and do
/// not end like this.
#[inline]
pub(crate) fn ends_like_a_received_event(line: &[u8]) -> bool {
    const TIME_LEN: usize = "2026-11-23T04:15:07.230739Z".len();
    let times = || {
        let text = line.trim_ascii_end().strip_suffix(br#"Z"}"#)?;
        let (text, stage) = text.split_last_chunk::<{ TIME_LEN - 1 }>()?;
        let text = text.strip_suffix(br#"Z","stageTimestamp":""#)?;
        let (text, received) = text.split_last_chunk::<{ TIME_LEN - 1 }>()?;
        text.ends_with(br#","requestReceivedTimestamp":""#).then_some((received, stage))
    };
    times().is_some_and(|(received, stage)| received == stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_that_is_cut_before_its_object_looks_complete() {
        let event = concat!(
            r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"}}x\"}}","stage":"ResponseComplete","requestURI":"/x","verb":"get","#,
            r#""user":{"username":"2026-11-23T04:15:07.230739Z","groups":["}}"],"extra":{"a":["}}"]}},"impersonatedUser":{"username":"\"stageTimestamp\":\"2026-11-23T04:15:07.230739Z"},"sourceIPs":["1"],"userAgent":"}}","objectRef":"#,
        );
        for end in 0..event.len() {
            assert!(!ends_like_an_event(&event.as_bytes()[..end]), "{}", &event[..end]);
        }
        assert!(ends_like_an_event(br#"{"code":200},"stageTimestamp":"2026-11-23T04:15:07.230739Z"}"#));
        assert!(ends_like_an_event(b"{\"annotations\":{\"a\":\"b\"}}\r\n"));
    }
    #[test]
    fn an_answered_event_does_not_end_like_a_received_one() {
        let line = |received: &str, stage: &str, rest: &str| {
            let end =
                format!(r#""requestReceivedTimestamp":"{received}","stageTimestamp":"{stage}"{rest}}}"#);
            ends_like_a_received_event(format!(r#"{{"objectRef":{{"resource":"pods"}},{end}"#).as_bytes())
        };
        let (early, late) = ("2026-11-23T04:15:07.230739Z", "2026-11-23T04:15:07.230740Z");
        assert!(line(early, early, ""));
        assert!(!line(early, late, ""));
        assert!(!line(early, early, r#","annotations":{"a":"b"}"#));
        assert!(!line("2026", "2026", "") && !ends_like_a_received_event(b""));
    }
}
