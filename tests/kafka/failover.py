#!/usr/bin/env python3
"""Fail-over stress test on a real Apache Kafka: no alert may be lost, and none be duplicated in exactly-once mode.

usage: failover.py [--mode at-least-once|exactly-once] [--events N] [--seconds S] [--replicas N] [--binary PATH] [--config FILE]
       failover.py --short                        20,000 events, 60 seconds, three replicas: for every change
       failover.py --command 'python3 standin.py' another program in pullwatch's place (standin.py tests this harness)

Three brokers, a topic of 8 partitions, replicas of `pullwatch run` in one consumer group, each with a state directory of its own. While
events arrive, replicas join, are killed (SIGKILL), stopped (SIGTERM), frozen (SIGSTOP, longer than the group waits for them) and
started again, and one broker of three is killed or stopped and started again. Which and when is random; --seed repeats it.

The configuration is --config (failover.yaml) with these in the environment: PW_BOOTSTRAP (the brokers, PW_BROKER_1 … are each of
them), PW_GROUP, PW_INPUT, PW_OUTPUT (topics), PW_EXACTLY_ONCE (true or false), PW_REPLICA (a name), PW_INSTANCE_ID (empty, or with
--static-members the same name), PW_STATE_DIR, PW_RULES. Each event is unique, every tenth matches one rule,
every hundredth two and with them a correlation, whose matches go over a topic between the replicas, so what has to come out is known: each (event, rule) at least once; in exactly-once mode, read with read_committed,
once. Also: nobody but this script ends a replica, SIGTERM ends it with 0, and the group's offsets reach the end of the topic.

Exit codes: 0 all of that held; 1 it did not; 77 Java, Maven or what pip should fetch is missing.
"""
import argparse
import collections
import gzip
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time

from cluster import MISSING, WORK, Failure, ask, with_parent

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
CLIENT = "confluent-kafka==2.16.1"
INPUT, OUTPUT, GROUP = "audit", "alerts", "pullwatch"
EVERY = 10
RULES = ("Failover Read", "Failover Read, One in Ten", "Failover Read by Two Rules")


def say(*words):
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


def with_client():
    """Re-executes in a virtual environment with a Kafka client, created in target/kafka if missing."""
    try:
        return __import__("confluent_kafka")
    except ImportError:
        if os.environ.get("PULLWATCH_FAILOVER_VENV"):
            raise
    place = os.path.join(WORK, "venv")
    python = os.path.join(place, "bin", "python3")
    if not os.path.exists(os.path.join(place, "done")):
        say("fetching a Kafka client by pip")
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", place], stdout=subprocess.DEVNULL).returncode
        # Downloads fail for a moment now and then.
        fetched = made == 0 and any(
            subprocess.run([python, "-m", "pip", "-q", "--disable-pip-version-check", "install", CLIENT]).returncode == 0 or time.sleep(wait)
            for wait in (5, 20, 60, 0))
        if not fetched:
            raise Failure(f"no Kafka client for Python here, and pip cannot fetch {CLIENT}", MISSING)
        open(os.path.join(place, "done"), "w").close()
    os.execve(python, [python, os.path.abspath(__file__), *sys.argv[1:]], os.environ | {"PULLWATCH_FAILOVER_VENV": "1"})


class Events:
    """Unique events derived from the sample: mostly noise, every tenth a read that the rules match."""

    def __init__(self, total):
        self.total = total
        lines = gzip.open(os.path.join(ROOT, "samples", "audit", "request-response.log.gz")).read().splitlines()
        # Short ones: the number of events matters, not their size.
        self.noise = [self.cut(line) for line in lines if len(line) < 2000][:4000]
        read = next(line for line in lines if b'"verb":"get"' in line and b"/secrets/registry-credentials" in line)
        self.read = self.cut(read.replace(b"registry-credentials", b"\0"))

    @staticmethod
    def cut(line):
        """The parts of the event before and after its audit id."""
        head, tail = re.split(rb'(?<="auditID":")[^"]*', line, maxsplit=1)
        return head, tail

    def __getitem__(self, number):
        audit_id = b"%08x-0000-4000-8000-%012x" % (number * 2654435761 % 2**32, number)
        head, tail = self.read if number % EVERY == 0 else self.noise[number % len(self.noise)]
        event = head + audit_id + tail
        return event.replace(b"\0", b"failover-%d" % (number // EVERY)) if number % EVERY == 0 else event

    def expected(self, correlates):
        """Every (secret, rule) that has to be in the output, with the correlation's or without."""
        for number in range((self.total + EVERY - 1) // EVERY):
            yield f"failover-{number}", RULES[0]
            if number % 10 == 0:
                yield f"failover-{number}", RULES[1]
                if correlates:
                    yield f"failover-{number}", RULES[2]


class Feeder(threading.Thread):
    """Produces all events: a fifth at once, the rest over most of the duration."""

    def __init__(self, bootstrap, events, partitions, seconds):
        super().__init__(daemon=True)
        self.events, self.partitions, self.seconds = events, partitions, seconds
        self.bootstrap, self.sent, self.acknowledged, self.failed = bootstrap, 0, 0, None

    def run(self):
        from confluent_kafka import KafkaError, Producer
        producer = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True, "compression.type": "lz4",
                             "linger.ms": 20, "delivery.timeout.ms": 600_000, "log_level": 2,
                             "error_cb": lambda error: setattr(self, "failed", str(error)) if error.fatal() else None})

        def delivered(error, _):
            if error and error.code() != KafkaError.NO_ERROR:
                self.failed = str(error)
            self.acknowledged += 1

        began, total = time.monotonic(), self.events.total
        for number in range(total):
            while True:
                due = total // 5 + (time.monotonic() - began) / (0.8 * self.seconds) * (total - total // 5)
                if number < due:
                    break
                producer.poll(0.02)
            while True:
                try:
                    producer.produce(INPUT, self.events[number], partition=number % self.partitions, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
            self.sent += 1
            if number % 200 == 0:
                producer.poll(0)
        while producer.flush(5) and not self.failed:
            pass


class Output(threading.Thread):
    """Reads the output topic from its beginning, and counts each alert."""

    def __init__(self, bootstrap, partitions):
        super().__init__(daemon=True)
        self.bootstrap, self.partitions = bootstrap, partitions
        self.seen, self.ids, self.odd = collections.Counter(), {}, []
        self.ends, self.stopping = {}, False

    def run(self):
        from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "failover-reader", "enable.auto.commit": False,
                             "isolation.level": "read_committed", "log_level": 2, "enable.partition.eof": True})
        consumer.assign([TopicPartition(OUTPUT, p, OFFSET_BEGINNING) for p in range(self.partitions)])
        while not self.stopping:
            for message in consumer.consume(500, timeout=0.5):
                if not message.error():
                    self.take(message)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    # Skip transaction markers, which are not messages.
                    self.ends[message.partition()] = message.offset()
        consumer.close()

    def take(self, message):
        try:
            alert = json.loads(message.value())
            pair = alert["output_fields"]["ka.target.name"], alert["rule"]
            # Ids and alerts correspond one to one.
            if self.ids.setdefault(alert["id"], pair) != pair:
                self.odd.append(f"id {alert['id']} is that of {self.ids[alert['id']]} and of {pair}")
        except (ValueError, KeyError, TypeError) as error:
            self.odd.append(f"no alert at {message.partition()}/{message.offset()}: {error!r}")
            return
        self.seen[pair] += 1


class Replica:
    """One pullwatch replica."""

    def __init__(self, number, command, environment, directory):
        self.name = f"replica-{number}"
        self.command, self.log = command, os.path.join(directory, f"{self.name}.log")
        self.environment = environment | {"PW_REPLICA": self.name, "PW_STATE_DIR": os.path.join(directory, self.name),
                                          "PW_INSTANCE_ID": self.name if environment["PW_STATIC"] else ""}
        os.makedirs(self.environment["PW_STATE_DIR"])
        self.process, self.frozen, self.wake = None, False, 0.0

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, env=os.environ | self.environment, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, preexec_fn=with_parent)
        self.frozen = False

    def runs(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def tail(self):
        with open(self.log, "rb") as log:
            return b"\n".join(log.read().splitlines()[-8:]).decode(errors="replace")


class Torture:
    """Injects failures and checks the result."""

    def __init__(self, options, random_, facts, directory):
        self.options, self.random, self.directory = options, random_, directory
        self.bootstrap, self.brokers = facts["bootstrap"], facts["brokers"]
        self.cluster = os.path.join(directory, "kafka")
        self.done, self.wrong = collections.Counter(), []
        self.down, self.broker_due, self.asks = None, 0.0, None

    def asking(self):
        """A client for queries that never joins its group. (Futures of an AdminClient never complete when
        the broker that was asked disappears.)"""
        from confluent_kafka import Consumer
        if not self.asks:
            self.asks = Consumer({"bootstrap.servers": self.bootstrap, "group.id": GROUP, "enable.auto.commit": False, "log_level": 2,
                                  "isolation.level": "read_uncommitted"})
        return self.asks

    def topics(self):
        from confluent_kafka.admin import AdminClient, NewTopic
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        made = admin.create_topics([NewTopic(INPUT, self.options.partitions, 3), NewTopic(OUTPUT, self.options.partitions, 3)])
        for each in made.values():
            each.result(60)

    def replicas(self):
        environment = {"PW_BOOTSTRAP": self.bootstrap, "PW_GROUP": GROUP, "PW_INPUT": INPUT, "PW_OUTPUT": OUTPUT,
                       "PW_STATIC": "yes" if self.options.static_members else "",
                       "PW_RULES": os.path.join(HERE, "failover.rules.yaml"),
                       "PW_EXACTLY_ONCE": str(self.options.mode == "exactly-once").lower()}
        environment |= {f"PW_BROKER_{i}": broker for i, broker in enumerate(self.bootstrap.split(","), start=1)}
        command = shlex.split(self.options.command) if self.options.command else [
            self.options.binary, "run", "--config", self.options.config]
        return [Replica(i, command, environment, self.directory) for i in range(1, self.options.replicas + 1)]

    def end_replica(self, replica):
        """Sends SIGTERM and checks the exit status."""
        replica.signal(signal.SIGTERM)
        try:
            code = replica.process.wait(300)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"{replica.name} did not end 300 s after SIGTERM\n{replica.tail()}")
            replica.process.kill()
            replica.process.wait()
            return
        if code:
            self.wrong.append(f"{replica.name} ended with {code} after SIGTERM\n{replica.tail()}")

    def disturb(self, replica, now):
        """Injects the next failure of a replica if it is due."""
        if now < replica.wake:
            return
        pause = self.random.uniform
        if replica.frozen:
            replica.signal(signal.SIGCONT)
            replica.frozen, replica.wake = False, now + pause(1, 8)
        elif replica.process is None:
            replica.start()
            self.done["joined or restarted"] += 1
            replica.wake = now + pause(2, 15)
        elif not replica.runs():
            self.wrong.append(f"{replica.name} ended by itself with {replica.process.returncode}\n{replica.tail()}")
            replica.process, replica.wake = None, now + 1
        else:
            what = self.random.choices(["kill", "term", "freeze"], [6, 2, 2])[0]
            self.done[f"replica: {what}"] += 1
            if what == "freeze":
                replica.signal(signal.SIGSTOP)
                replica.frozen, replica.wake = True, now + pause(0.5, self.options.freeze)
                return
            if what == "kill":
                replica.process.kill()
                replica.process.wait()
            else:
                self.end_replica(replica)
            replica.process, replica.wake = None, now + pause(0.2, 5)

    def disturb_brokers(self, now):
        """Stops and restarts one of three brokers; the next one once all replicas are in sync."""
        if now < self.broker_due:
            return
        if self.down:
            ask(self.cluster, order="restart", node=self.down)
            self.down, self.broker_due = None, now + self.random.uniform(5, 15)
        elif self.whole():
            self.down = self.random.choice(self.brokers)
            what = self.random.choice(["kill", "term"])
            ask(self.cluster, order=what, node=self.down)
            self.done[f"broker: {what}"] += 1
            self.broker_due = now + self.random.uniform(3, 12)
        else:
            self.broker_due = now + 2

    def asked(self, question):
        """The response to a query, or None. After a failure a new client is created, because the old one may keep asking a stale broker."""
        from confluent_kafka import KafkaException
        try:
            return question(self.asking())
        except KafkaException:
            self.asks.close()
            self.asks = None
            return None

    def whole(self):
        """Whether every partition has three in-sync replicas."""
        metadata = self.asked(lambda client: client.list_topics(timeout=5))
        return metadata is not None and all(
            len(partition.isrs) == 3 for topic in metadata.topics.values() for partition in topic.partitions.values())

    def ends(self, topic):
        """The end offset of each partition, including transaction markers; None if unknown."""
        from confluent_kafka import TopicPartition
        return self.asked(lambda client: {p: client.get_watermark_offsets(TopicPartition(topic, p), timeout=5)[1]
                                          for p in range(self.options.partitions)})

    def lag(self):
        """The lag of the group on the input topic; None if unknown."""
        from confluent_kafka import TopicPartition
        partitions = [TopicPartition(INPUT, p) for p in range(self.options.partitions)]
        committed, ends = self.asked(lambda client: client.committed(partitions, timeout=5)), self.ends(INPUT)
        if committed is None or ends is None:
            return None
        return sum(ends[p.partition] - max(0, p.offset) for p in committed)


def run(options, torture, events):
    """Runs the test and returns the report."""
    torture.topics()
    expected = set(events.expected(correlates=not options.command))
    feeder = Feeder(torture.bootstrap, events, options.partitions, options.seconds)
    output = Output(torture.bootstrap, options.partitions)
    replicas = torture.replicas()
    feeder.start()
    output.start()
    began = time.monotonic()
    # They join one by one.
    for number, replica in enumerate(replicas):
        replica.wake = began + number * min(5.0, options.seconds / 10)
    torture.broker_due = began + min(15.0, options.seconds / 6)
    last_report = 0.0

    def progress():
        nonlocal last_report
        if time.monotonic() - last_report > 10:
            last_report = time.monotonic()
            say(f"{feeder.sent} sent, {len(output.seen)} of {len(expected)} alerts, lag {torture.lag()}, "
                f"{sum(r.runs() for r in replicas)} replicas, broker down: {torture.down}")

    try:
        while time.monotonic() - began < options.seconds:
            now = time.monotonic()
            torture.disturb_brokers(now)
            for replica in replicas:
                torture.disturb(replica, now)
            progress()
            time.sleep(0.1)
        say("failure injection finished; processing the backlog")
        if torture.down:
            ask(torture.cluster, order="restart", node=torture.down)
            torture.down = None
        for replica in replicas:
            if replica.frozen:
                replica.signal(signal.SIGCONT)
                replica.frozen = False
            if not replica.runs():
                replica.start()
        # Until everything arrived, as long as there is progress.
        moved, before = time.monotonic(), None
        while True:
            feeder.join(0.5)
            lag = torture.lag()
            if not feeder.is_alive() and lag == 0 and expected <= output.seen.keys():
                break
            state = feeder.acknowledged, lag, sum(output.seen.values())
            if state != before:
                moved, before = time.monotonic(), state
            if feeder.failed or time.monotonic() - moved > options.patience:
                break
            for replica in replicas:
                if not replica.runs():
                    torture.wrong.append(f"{replica.name} ended by itself with {replica.process.returncode}\n{replica.tail()}")
                    replica.start()
            progress()
        took = time.monotonic() - began
        lag = torture.lag()
        for replica in replicas:
            if replica.runs():
                torture.end_replica(replica)
        unread, deadline = None, time.monotonic() + options.patience
        while unread != {} and time.monotonic() < deadline:
            time.sleep(0.5)
            ends = torture.ends(OUTPUT)
            if ends is not None:
                unread = {p: end - output.ends.get(p, 0) for p, end in ends.items() if output.ends.get(p, 0) < end}
        if unread != {}:
            torture.wrong.append(f"records at the end of the output stay uncommitted: {unread}")
        output.stopping = True
        output.join()
    finally:
        for replica in replicas:
            if replica.runs():
                replica.process.kill()
                replica.process.wait()
    return compare(options, torture, feeder, output, expected, lag, took)


def compare(options, torture, feeder, output, expected, lag, took):
    """Errors and measurements."""
    wrong = torture.wrong
    missing = sorted(expected - output.seen.keys())
    unexpected = sorted(output.seen.keys() - expected)
    doubled = {pair: count for pair, count in output.seen.items() if count > 1}
    if feeder.failed or feeder.acknowledged != options.events:
        wrong.append(f"not all events could be produced: {feeder.acknowledged} of {options.events}; {feeder.failed}")
    if missing:
        wrong.append(f"{len(missing)} alerts are missing, as {missing[:5]}")
    if unexpected:
        wrong.append(f"{len(unexpected)} alerts that nothing asked for, as {unexpected[:5]}")
    if doubled and options.mode == "exactly-once":
        wrong.append(f"{len(doubled)} alerts came more than once, as {list(doubled.items())[:5]}")
    if lag != 0:
        wrong.append(f"the group's offsets are {lag} records short of the end")
    wrong.extend(output.odd[:5])
    return {"mode": options.mode, "events": options.events, "expected": len(expected), "missing": len(missing),
            "delivered": sum(output.seen.values()), "repeated": sum(doubled.values()) - len(doubled), "seconds": round(took, 1),
            "seed": options.seed, "done": dict(torture.done), "wrong": wrong}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["at-least-once", "exactly-once"], default="at-least-once")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=300, help="how long the torture lasts")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--freeze", type=float, default=20, help="seconds that a replica is frozen at most")
    parser.add_argument("--patience", type=float, default=180, help="give up after this many seconds without progress")
    parser.add_argument("--static-members", action="store_true", help="replicas keep their partitions over a restart")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--binary", default=os.path.join(ROOT, "target", "release", "pullwatch"))
    parser.add_argument("--config", default=os.path.join(HERE, "failover.yaml"))
    parser.add_argument("--command", help="instead of the binary and its configuration")
    parser.add_argument("--keep", action="store_true", help="leave logs and stores")
    options = parser.parse_args()
    if options.short:
        options.events, options.seconds, options.replicas = 20_000, 60, 3
    try:
        with_client()
        if not options.command and not os.path.exists(options.binary):
            raise Failure(f"there is no {options.binary}; build it or name another one with --binary", 2)
        say(f"{options.mode}, {options.events} events, {options.seconds:.0f} s, --seed {options.seed}")
        directory = tempfile.mkdtemp(prefix="failover-", dir=WORK)
        brokers = subprocess.Popen([sys.executable, os.path.join(HERE, "broker.py"), "start", "--brokers", "3", "--dir",
                                    os.path.join(directory, "kafka")], stdout=subprocess.PIPE, text=True)
        try:
            if not any(line == "ready\n" for line in brokers.stdout):
                raise Failure("no brokers", brokers.wait())
            with open(os.path.join(directory, "kafka", "cluster.json")) as file:
                facts = json.load(file)
            torture = Torture(options, random.Random(options.seed), facts, directory)
            report = run(options, torture, Events(options.events))
        finally:
            brokers.terminate()
            brokers.wait()
        print(json.dumps(report, indent=1))
        if report["wrong"] or options.keep:
            say(f"logs and stores are in {directory}")
        else:
            subprocess.run(["rm", "-r", directory])
        return 1 if report["wrong"] else 0
    except Failure as failure:
        print(f"failover.py: {failure}", file=sys.stderr)
        return failure.code


if __name__ == "__main__":
    sys.exit(main())
