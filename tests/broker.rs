//! The brokers that other tests use: a real Apache Kafka, if Java and Maven are installed (`tests/kafka/broker.py`).

#![allow(clippy::unwrap_used)]

#[path = "kafka/mod.rs"]
mod kafka;

use std::fs;

use kafka::Brokers;

#[test]
fn a_broker_keeps_messages_through_a_kill_and_ends_with_its_owner() {
    let Some(brokers) = Brokers::start(&["--sasl"]) else { return };
    brokers.order(&["topic", "create", "audit", "--partitions", "2"]);
    brokers.order_with(&["produce", "audit"], b"one\ntwo\n");
    brokers.order(&["kill", "1"]);
    assert_eq!(brokers.order(&["status"]).trim(), r#"{"1": "ended (-9)"}"#);
    brokers.order(&["restart", "1"]);
    let mut records: Vec<_> = brokers
        .order(&["consume", "audit", "--count", "2", "--timeout", "600"])
        .lines()
        .map(str::to_owned)
        .collect();
    records.sort();
    assert_eq!(records, ["one", "two"]);

    // Only the owner can read the password.
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
