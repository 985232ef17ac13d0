#!/usr/bin/env python3
"""A minimal replacement of pullwatch that tests the harness failover.py: reads, matches, produces, commits.

PW_FAULT makes it wrong in a way that the harness has to find: `commit-first` (what was read counts before its alerts are out, so a kill
loses them) or `no-transaction` (exactly-once without it, so a kill repeats them).
"""
import hashlib
import json
import os
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer

ENV = {name: os.environ["PW_" + name] for name in ("BOOTSTRAP", "GROUP", "INPUT", "OUTPUT", "EXACTLY_ONCE", "REPLICA")}
FAULT = os.environ.get("PW_FAULT", "")
TRANSACTIONS = ENV["EXACTLY_ONCE"] == "true" and FAULT != "no-transaction"
running = True


def stop(*_):
    global running
    running = False


def alerts(event):
    name = event["objectRef"].get("name", "") if event.get("objectRef") else ""
    if event.get("verb") == "get" and name.startswith("failover-"):
        for rule in ["Failover Read"] + ["Failover Read, One in Ten"] * name.endswith("0"):
            id_ = hashlib.sha256(f"{name} {rule}".encode()).hexdigest()
            yield json.dumps({"id": id_, "rule": rule, "output_fields": {"ka.target.name": name}})


def work():
    """Runs until it is stopped or fails."""
    consumer = Consumer({"bootstrap.servers": ENV["BOOTSTRAP"], "group.id": ENV["GROUP"], "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", "session.timeout.ms": 6000, "isolation.level": "read_committed"})
    settings = {"bootstrap.servers": ENV["BOOTSTRAP"], "enable.idempotence": True}
    if TRANSACTIONS:
        settings |= {"transactional.id": ENV["REPLICA"], "transaction.timeout.ms": 20000}
    producer = Producer(settings)
    if TRANSACTIONS:
        producer.init_transactions(60)
    consumer.subscribe([ENV["INPUT"]])
    try:
        while running:
            batch = [message for message in consumer.consume(500, timeout=0.3) if not message.error()]
            if not batch:
                continue
            if FAULT == "commit-first":
                consumer.commit(asynchronous=False)
                time.sleep(0.5)  # Where a kill hits.
            if TRANSACTIONS:
                producer.begin_transaction()
            for message in batch:
                for alert in alerts(json.loads(message.value())):
                    producer.produce(ENV["OUTPUT"], alert)
            if TRANSACTIONS:
                positions = consumer.position(consumer.assignment())
                producer.send_offsets_to_transaction([p for p in positions if p.offset >= 0], consumer.consumer_group_metadata(), 30)
                producer.commit_transaction(30)
            else:
                while producer.flush(10):
                    pass
                if FAULT == "no-transaction":
                    time.sleep(0.5)
                if FAULT != "commit-first":
                    consumer.commit(asynchronous=False)
    finally:
        consumer.close()


signal.signal(signal.SIGTERM, stop)
while running:
    try:
        work()
    except KafkaException as error:
        # Uncommitted messages are read again.
        print(error, file=sys.stderr, flush=True)
