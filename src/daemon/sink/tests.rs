//! Shared code of sink tests.

use crate::detection::alert::Priority;
use crate::detection::alert::StoredAlert;

/// Text that a client can put into names.
pub const HOSTILE: &str = "a\n\r\t\0\u{1b}[2J\u{2028}\u{2029}\u{202e}\u{85}\u{7f}|=\\\"]' ä";

/// An alert.
pub fn alert(seq: i64) -> StoredAlert {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&seq.to_be_bytes());
    let json = format!(
        "{{\"output\":\"alice read b\",\"output_fields\":{{\"evt.time\":1}},\"priority\":\"Warning\",\"rule\":\"Secret Read\",\
         \"time\":\"2026-11-23T03:45:32.270783000Z\",\"seq\":{seq},\
         \"event\":{{\"verb\":\"get\",\"userAgent\":\"kubectl\",\"sourceIPs\":[\"1.2.3.4\",\"10.0.0.1\"]}}}}"
    );
    StoredAlert {
        seq,
        id,
        time: 1_795_405_532_270_783_000,
        stored: 1_795_405_532_280_000_000,
        rule: "Secret Read".to_owned(),
        priority: Priority::Warning,
        actor: "alice".to_owned(),
        target: "secrets a/b".to_owned(),
        json: json.into_bytes(),
        message: "alice read b".to_owned(),
    }
}
