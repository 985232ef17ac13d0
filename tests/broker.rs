//! The brokers that other tests run on: a real Apache Kafka, where Java and Maven are there (`tests/kafka/broker.py`).

#![allow(clippy::unwrap_used)]

#[path = "kafka/mod.rs"]
mod kafka;

use std::fs;

use kafka::Brokers;

#[test]
fn a_broker_keeps_what_was_written_through_a_kill_and_is_gone_in_the_end() {
    let Some(brokers) = Brokers::start(&["--sasl"]) else { return };
    brokers.order(&["topic", "create", "audit", "--partitions", "2"]);
    brokers.order_with(&["produce", "audit"], b"one\ntwo\n");
    brokers.order(&["kill", "1"]);
    assert_eq!(brokers.order(&["status"]).trim(), r#"{"1": "ended (-9)"}"#);
    brokers.order(&["restart", "1"]);
    let mut records: Vec<_> =
        brokers.order(&["consume", "audit", "--count", "2"]).lines().map(str::to_owned).collect();
    records.sort();
    assert_eq!(records, ["one", "two"]);

    // Nobody else reads the password.
    let file = brokers.password_file.clone().unwrap();
    assert!(!fs::read_to_string(&file).unwrap().is_empty());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0);
    }
    let address: std::net::SocketAddr = brokers.bootstrap.parse().unwrap();
    drop(brokers);
    assert!(!file.exists());
    assert!(std::net::TcpStream::connect(address).is_err());
}
