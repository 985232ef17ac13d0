#!/usr/bin/env python3
"""Measures `pullwatch run` on a real Apache Kafka: one replica on one core beside `kcat -C` on the same topic, and one to four replicas on
all cores.

usage: kafka.py [--binary FILE] [--log BIG.log] [--times 4] [--runs 3] [--compression none,lz4] [--replicas 1,2,4]

Needs Java 17 and Maven (for the broker of tests/kafka), kcat and taskset (`apt-get install kcat util-linux`). The log is
benches/make_log.py's, written so many times into a topic of 8 partitions. For the first part the broker has the last core, and who reads the
first: each run reads the whole topic once with kcat and once with pullwatch, as a new group with the shipped rules and a new store, alerts to
/dev/null and, in a second row, to a topic. Its time counts from its first message, since kcat joins no group and
starts in 10 ms. CPU time is of the whole process. Each row is one run, the fastest; memory is the most of all runs.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time

from process import Process, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
BROKER = os.path.join(HERE, "..", "tests", "kafka", "broker.py")
PARTITIONS = 8
CONFIG = """\
state_dir: {folder}/state
sources: [{{type: kafka, brokers: "{bootstrap}", topics: [{topic}], group: {group}}}]
sinks: [{sink}]
server: {{listen: "127.0.0.1:{port}"}}
"""
STDOUT = "{type: stdout, format: json}"


class Replica(Process):
    """One pullwatch replica."""

    def __init__(self, options, bootstrap, topic, group, sink, cores):
        self.folder = tempfile.TemporaryDirectory()
        self.port = free_port()
        config = os.path.join(self.folder.name, "pullwatch.yaml")
        with open(config, "w") as file:
            file.write(CONFIG.format(folder=self.folder.name, bootstrap=bootstrap, topic=topic, group=group, sink=sink, port=self.port))
        # In an empty directory, so that the shipped rules are used.
        self.process = subprocess.Popen(["taskset", "-c", cores, options.binary, "run", "--config", config], cwd=self.folder.name,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def read(self):
        return self.metric("pullwatch_source_bytes_total")

    def stop(self):
        super().stop()
        self.folder.cleanup()


def catch_up(options, bootstrap, topic, size, replicas, sink, cores):
    """Measures the time from the first to the last message, and CPU and memory."""
    group = f"bench-{time.monotonic_ns()}"
    members = [Replica(options, bootstrap, topic, group, sink, cores) for _ in range(replicas)]
    began = None
    while (read := sum(member.read() for member in members)) < size:
        if began is None and read > 0:
            # Messages before the first sample are extrapolated.
            began, early = time.monotonic(), read
        if any(member.process.poll() is not None for member in members):
            sys.exit("a replica ended")
        time.sleep(0.01)
    took = (time.monotonic() - began) * size / (size - early)
    cpu, memory = sum(member.cpu_seconds() for member in members), max(member.peak_memory() for member in members)
    for member in members:
        member.stop()
    return took, cpu, memory


def kcat(bootstrap, topic, cores):
    """Measures kcat."""
    before, start = os.times(), time.monotonic()
    subprocess.run(["taskset", "-c", cores, "kcat", "-C", "-q", "-e", "-b", bootstrap, "-t", topic, "-o", "beginning", "-X",
                    # Respond at once at the end of a partition: the default wait of half a second would dominate.
                    "fetch.wait.max.ms=1"], stdout=subprocess.DEVNULL, check=True)
    took, after = time.monotonic() - start, os.times()
    return took, after.children_user + after.children_system - before.children_user - before.children_system


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.path.join(HERE, "..", "target", "release", "pullwatch"))
    parser.add_argument("--log")
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--compression", default="none,lz4")
    parser.add_argument("--replicas", default="1,2,4")
    options = parser.parse_args()
    options.binary = os.path.abspath(options.binary)
    log = os.path.abspath(options.log) if options.log else os.path.join(tempfile.mkdtemp(), "audit.log")
    if not options.log:
        subprocess.run([sys.executable, os.path.join(HERE, "make_log.py"), log], check=True)
    # An event and its line break.
    size = os.path.getsize(log) * options.times
    last = str(os.cpu_count() - 1)
    everywhere = f"0-{last}"
    with tempfile.TemporaryDirectory() as folder:
        broker = subprocess.Popen(["taskset", "-c", last, sys.executable, BROKER, "start", "--dir", os.path.join(folder, "kafka"), "--heap", "1g",
                                   # Replicas start together and are assigned partitions before they read.
                                   "--broker-config", "group.initial.rebalance.delay.ms=3000"],
                                  stdout=subprocess.PIPE, text=True)
        facts = {}
        for line in broker.stdout:
            if line == "ready\n":
                break
            name, _, value = line.strip().partition(" ")
            facts[name] = value
        else:
            sys.exit(broker.wait())
        bootstrap = facts["bootstrap"]

        def order(*words):
            subprocess.run([sys.executable, BROKER, *words, "--dir", os.path.join(folder, "kafka")], check=True, stdout=subprocess.DEVNULL)

        try:
            order("topic", "create", "alerts", "--partitions", str(PARTITIONS))
            for compression in options.compression.split(","):
                topic = f"audit-{compression}"
                order("topic", "create", topic, "--partitions", str(PARTITIONS))
                for _ in range(options.times):
                    subprocess.run(["kcat", "-P", "-b", bootstrap, "-t", topic, "-z", compression, "-X", "message.max.bytes=67108864", "-X",
                                    "linger.ms=20", "-X", "queue.buffering.max.kbytes=1000000", "-l", log], check=True)
                print(f"{size / 1e6:.0f} MB in {PARTITIONS} partitions, compression {compression}, one core, fastest of {options.runs}")
                topic_sink = f"{{type: kafka, brokers: '{bootstrap}', topic: alerts}}"
                rows = {"kcat -C": [], "pullwatch": [], "pullwatch, alerts to a topic": []}
                for _ in range(options.runs):
                    rows["kcat -C"].append((*kcat(bootstrap, topic, "0"), 0))
                    rows["pullwatch"].append(catch_up(options, bootstrap, topic, size, 1, STDOUT, "0"))
                    rows["pullwatch, alerts to a topic"].append(catch_up(options, bootstrap, topic, size, 1, topic_sink, "0"))
                peer = min(took for took, _, _ in rows["kcat -C"])
                for name, runs in rows.items():
                    took, cpu, _ = min(runs)
                    memory = max(run[2] for run in runs)
                    print(f"  {name:28} {size / took / 1e6:5.0f} MB/s, {peer / took:.2f} of kcat, {size / cpu / 1e6:5.0f} MB per second of CPU time"
                          + (f", {memory:.0f} MiB" if memory else ""), flush=True)
            # Broker and replicas share all cores.
            subprocess.run(["taskset", "-apc", everywhere, facts.get("pid", str(broker.pid))], stdout=subprocess.DEVNULL)
            for pid in subprocess.run(["pgrep", "-f", folder], capture_output=True, text=True).stdout.split():
                subprocess.run(["taskset", "-apc", everywhere, pid], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            print(f"replicas of one group on {os.cpu_count()} cores, which the broker shares, compression {options.compression.split(',')[-1]}")
            for count in map(int, options.replicas.split(",")):
                took, cpu, memory = min(catch_up(options, bootstrap, topic, size, count, STDOUT, everywhere) for _ in range(options.runs))
                print(f"  {count} {size / took / 1e6:6.0f} MB/s, {size / cpu / 1e6:5.0f} MB per second of CPU time, {memory:.0f} MiB each at most", flush=True)
        finally:
            broker.terminate()
            broker.wait()


main()
