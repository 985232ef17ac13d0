//! A Kafka cluster in this process (the mock cluster of librdkafka), and a consumer of the alerts.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::received::{Mood, Received};

pub const TOPIC: &str = "alerts";

/// The mock keeps 5 MiB of each partition.
const PARTITIONS: i32 = 8;

/// Starts the cluster and its consumer; returns its address.
pub fn start(received: Arc<Received>) -> String {
    let (address, started) = mpsc::channel();
    std::thread::spawn(move || {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
        address.send(cluster.bootstrap_servers()).unwrap();
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("group.id", "receiver")
            .set("enable.auto.commit", "false")
            .set("reconnect.backoff.max.ms", "200")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            assignment.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let mut present = Mood::Accept;
        let mut next = HashMap::new();
        loop {
            let mood = received.mood();
            if mood != present {
                match mood {
                    Mood::Down | Mood::Refuse => cluster.broker_down(1).unwrap(),
                    _ => cluster.broker_up(1).unwrap(),
                }
                let delay = if mood == Mood::Slow { Duration::from_millis(50) } else { Duration::ZERO };
                cluster.broker_round_trip_time(1, delay).unwrap();
                present = mood;
            }
            let Some(Ok(record)) = consumer.poll(Duration::from_millis(20)) else { continue };
            let expected = next.insert(record.partition(), record.offset() + 1).unwrap_or(0);
            if record.offset() != expected {
                received.wrong(format!("the mock cluster removed records from {expected}"));
            }
            let id = record.headers().and_then(|headers| {
                headers.iter().find(|header| header.key == "alert_id").and_then(|header| header.value)
            });
            if id.is_none() || record.key() != id {
                received.wrong("no id in the headers, or another key");
            }
            received.accept_message(record.payload().unwrap_or_default());
        }
    });
    started.recv().unwrap()
}
