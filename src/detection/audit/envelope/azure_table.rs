//! Audit events in Azure tables that have a column for each member: AKSAudit, AKSAuditAdmin and ArcK8sAudit.
//!
//! Takes a record of such a table; returns the event with the names and member order of the apiserver.

use super::super::event::Member;
use super::super::json::Raw;

/// The columns by which such a record is recognized.
pub(super) const COLUMNS: [&[u8]; 4] = [b"AuditId", b"RequestUri", b"Stage", b"Verb"];

/// The names of columns, in the apiserver's order of members.
const NAMES: [(&str, Member); 16] = [
    ("Level", Member::Level),
    ("AuditId", Member::AuditId),
    ("Stage", Member::Stage),
    ("RequestUri", Member::RequestUri),
    ("Verb", Member::Verb),
    ("User", Member::User),
    ("ImpersonatedUser", Member::ImpersonatedUser),
    ("SourceIps", Member::SourceIps),
    ("UserAgent", Member::UserAgent),
    ("ObjectRef", Member::ObjectRef),
    ("ResponseStatus", Member::ResponseStatus),
    ("RequestObject", Member::RequestObject),
    ("ResponseObject", Member::ResponseObject),
    ("RequestReceivedTime", Member::RequestReceivedTimestamp),
    ("StageReceivedTime", Member::StageTimestamp),
    ("Annotations", Member::Annotations),
];

/// The event of a record. If the record was truncated, so is the event.
pub(super) fn event(record: Raw<'_>) -> Vec<u8> {
    let mut event = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1""#.to_vec();
    let values = record.get_all(NAMES.map(|(column, _)| column));
    for ((_, member), value) in NAMES.iter().zip(values) {
        // A table has a cell for each column.
        let Some(value) = value.filter(|value| !matches!(value.bytes(), b"null" | b"\"\"")) else { continue };
        event.extend_from_slice(format!(",\"{}\":", member.name()).as_bytes());
        event.extend_from_slice(&value.compact());
    }
    if Raw::first(record.bytes()).is_ok() {
        event.push(b'}');
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_members_in_the_order_of_the_apiserver() {
        let record = r#"{"Annotations":{"a":"b"},"AuditId":"i","Verb":"get","RequestObject":null,"Stage":"Panic","RequestUri":"/api","StageReceivedTime":"t","ImpersonatedUser":"","PodName":"x","User":{"username":"m"}"#;
        let whole = format!("{record}}}");
        let expected = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"i","stage":"Panic","requestURI":"/api","verb":"get","user":{"username":"m"},"stageTimestamp":"t","annotations":{"a":"b"}}"#;
        assert_eq!(String::from_utf8_lossy(&event(Raw::assume(whole.as_bytes()))), expected);
        let cut = event(Raw::assume(record.as_bytes()));
        assert_eq!(String::from_utf8_lossy(&cut), expected[..expected.len() - 1]);
    }
}
