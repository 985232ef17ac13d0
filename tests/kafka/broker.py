#!/usr/bin/env python3
"""A real Apache Kafka on loopback for tests: one broker or three, made by Maven, stopped when its owner ends.

    broker.py fetch                              jars into target/kafka (once; later calls find them there)
    broker.py start [--brokers N] [--dir D]      starts, prints addresses, then «ready»; stays until it is ended (see below)
    broker.py status|stop [--dir D]              what runs; end everything
    broker.py kill N | term N | restart N        SIGKILL or SIGTERM to broker N; start it again and wait until it answers
    broker.py freeze N | thaw N                  SIGSTOP, SIGCONT
    broker.py topic create NAME [--partitions P] [--replication R] [--config k=v]...
    broker.py topic delete|describe NAME, topic list
    broker.py groups                             consumer groups, their offsets and lag
    broker.py produce TOPIC [FILE]               one record a line
    broker.py consume TOPIC [--count N] [--committed]
    broker.py java CLASS ARG...                  another of Kafka's own tools; {bootstrap} stands for the addresses

`start` is a supervisor. It ends brokers and removes the directory on SIGTERM, SIGINT, `stop`, and when the process that started it
dies (with --owner PID: when that one does); with --detach it goes into the background and lives until one of these. Killed itself,
it takes the brokers with it. Prints one `name value` a line, the last one is `ready`:

    bootstrap 127.0.0.1:PORT,…        no credentials
    sasl 127.0.0.1:PORT,…             with --sasl: SASL_PLAINTEXT with PLAIN, SCRAM-SHA-256, SCRAM-SHA-512
    user NAME, password_file FILE     with --sasl: a user made for this run
    tokens 127.0.0.1:PORT,…           with --sasl: SASL_PLAINTEXT with OAUTHBEARER, and tokens that nobody signed
    tls localhost:PORT,…              with --tls KEY_AND_CERTIFICATE.pem --client-ca CA.pem: TLS, and a certificate is asked for
    cluster DIR/cluster.json          all of this as JSON

Every broker is controller too (KRaft). Topics are not made by themselves (--auto-create changes that), records may have 64 MiB and
some. With three brokers everything has three replicas, of which two must have a write.

Exit codes: 0; 1 something failed; 2 usage; 77 Java 17 or Maven is missing, which one line on standard error says; 78 Maven is there
and cannot get the jars. Environment: CARGO_TARGET_DIR, PULLWATCH_KAFKA_JARS (a directory of jars to use as it is).
"""
import argparse
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys

from cluster import LARGEST, WORK, Cluster, Failure, ask, command, facts_of, jars, java


# The supervisor of the brokers.


def start(options):
    """Starts brokers and supervises them."""
    if os.path.exists(os.path.join(options.dir, "cluster.json")):
        try:
            ask(options.dir, order="status")
        except Failure:
            shutil.rmtree(options.dir)  # Its supervisor was killed.
        else:
            raise Failure(f"brokers of {options.dir} run already; `stop` ends them")
    if os.path.isdir(options.dir) and os.listdir(options.dir):
        raise Failure(f"{options.dir} is not empty and none of ours")
    java()
    jars()
    owner = options.owner or (0 if options.detach else os.getppid())
    if options.detach and not detached():
        return
    cluster = Cluster(options)
    control = socket.socket(socket.AF_UNIX)
    ended = lambda *_: sys.exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ended)
    try:
        cluster.prepare()
        # Relative to the directory: the path of a socket is limited in length.
        os.chdir(cluster.dir)
        control.bind("control")
        control.listen()
        for node in cluster.nodes:
            cluster.spawn(node)
        cluster.wait(cluster.nodes)
        for name, value in cluster.facts().items():
            if name not in ("brokers", "supervisor"):
                print(name, value)
        print("cluster", os.path.join(cluster.dir, "cluster.json"))
        print("ready", flush=True)
        if options.detach:
            silence = os.open(os.devnull, os.O_RDWR)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
        watch(cluster, control, owner)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        cluster.end()


def detached():
    """Detaches. The first process waits until the brokers are ready, signaled over the pipe of its output."""
    read, written = os.pipe()
    if os.fork():
        os.close(written)
        with os.fdopen(read) as lines:
            for line in lines:
                print(line, end="", flush=True)
                if line.strip() == "ready":
                    return False
        sys.exit(1)
    os.close(read)
    os.setsid()
    os.dup2(written, 1)
    os.close(written)
    return True


def watch(cluster, control, owner):
    """Serves commands until the owner ends or a stop command arrives."""
    waits = [control]
    if owner:
        try:
            waits.append(os.pidfd_open(owner))
        except ProcessLookupError:
            return
    reported = set()
    while True:
        ready, _, _ = select.select(waits, [], [], 1.0)
        for node, process in cluster.running.items():
            if process.poll() not in (None, -signal.SIGKILL) and (node, process.pid) not in reported:
                reported.add((node, process.pid))
                print(f"broker {node} ended ({process.returncode})", file=sys.stderr)
        if any(each is not control for each in ready):
            return
        if not ready:
            continue
        connection, _ = control.accept()
        with connection:
            connection.settimeout(5)
            try:
                order = json.loads(connection.makefile().readline())
                if order["order"] == "stop":
                    # Responds when it is done.
                    cluster.end()
                    connection.sendall(b'{"done": "stopped"}\n')
                    return
                answer = {"done": cluster.obey(order)}
            except (Failure, ValueError, KeyError) as failure:
                answer = {"failed": str(failure)}
            except OSError:
                continue
            try:
                connection.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                pass


# Kafka's own tools.


def tool(options, main, *arguments, stdin=None):
    """Runs a tool and exits with its status."""
    bootstrap = facts_of(options.dir)["bootstrap"]
    log4j = os.path.join(os.path.abspath(options.dir), "log4j2-tools.properties")
    arguments = [argument.replace("{bootstrap}", bootstrap) for argument in arguments]
    return subprocess.run(command(main, "1g", log4j, arguments), stdin=stdin).returncode


def topic(options):
    arguments = ["--bootstrap-server", "{bootstrap}", f"--{options.verb}"]
    if options.verb != "list":
        if not options.name:
            raise Failure(f"topic {options.verb}: which topic?", 2)
        arguments += ["--topic", options.name]
    if options.verb == "create":
        arguments += ["--partitions", str(options.partitions)]
        if options.replication:
            arguments += ["--replication-factor", str(options.replication)]
        for pair in options.config:
            arguments += ["--config", pair]
    return tool(options, "org.apache.kafka.tools.TopicCommand", *arguments)


def produce(options):
    limits = {"max.request.size": LARGEST, "buffer.memory": 2 * LARGEST, "acks": "all", "linger.ms": 5, "batch.size": 1 << 20}
    arguments = ["--bootstrap-server", "{bootstrap}", "--topic", options.topic]
    for name, value in limits.items():
        arguments += ["--command-property", f"{name}={value}"]
    with open(options.file or "/dev/stdin", "rb") as file:
        return tool(options, "org.apache.kafka.tools.ConsoleProducer", *arguments, stdin=file)


def consume(options):
    arguments = ["--bootstrap-server", "{bootstrap}", "--topic", options.topic, "--from-beginning",
                 "--timeout-ms", str(options.timeout * 1000), "--command-property", f"max.partition.fetch.bytes={LARGEST}"]
    if options.committed:
        arguments += ["--isolation-level", "read_committed"]
    if options.count:
        arguments += ["--max-messages", str(options.count)]
    return tool(options, "org.apache.kafka.tools.consumer.ConsoleConsumer", *arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb_", required=True, metavar="COMMAND")
    default = os.path.join(WORK, "run")

    def verb(name, does):
        made = verbs.add_parser(name)
        made.set_defaults(does=does)
        made.add_argument("--dir", default=default)
        return made

    verb("fetch", lambda options: (java(), print(jars()))[0] and 0)
    begin = verb("start", start)
    begin.add_argument("--brokers", type=int, default=1, choices=range(1, 8))
    begin.add_argument("--port", type=int, help="of the first broker; the others follow")
    begin.add_argument("--heap", default="384m")
    begin.add_argument("--sasl", action="store_true")
    begin.add_argument("--tls", metavar="PEM")
    begin.add_argument("--client-ca", metavar="PEM")
    begin.add_argument("--auto-create", action="store_true")
    begin.add_argument("--broker-config", action="append", default=[], metavar="k=v")
    begin.add_argument("--detach", action="store_true")
    begin.add_argument("--owner", type=int, metavar="PID")
    begin.add_argument("--keep", action="store_true", help="leave the directory")
    for order in ("status", "stop"):
        verb(order, lambda options, order=order: print(json.dumps(ask(options.dir, order=order))))
    for order in ("kill", "term", "restart", "freeze", "thaw"):
        made = verb(order, lambda options, order=order: print(ask(options.dir, order=order, node=options.node)))
        made.add_argument("node", type=int)
    made = verb("topic", topic)
    made.add_argument("verb", choices=["create", "delete", "describe", "list"])
    made.add_argument("name", nargs="?")
    made.add_argument("--partitions", type=int, default=8)
    made.add_argument("--replication", type=int)
    made.add_argument("--config", action="append", default=[], metavar="k=v")
    verb("groups", lambda options: tool(options, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
                                        "--bootstrap-server", "{bootstrap}", "--describe", "--all-groups"))
    made = verb("produce", produce)
    made.add_argument("topic")
    made.add_argument("file", nargs="?")
    made = verb("consume", consume)
    made.add_argument("topic")
    made.add_argument("--count", type=int)
    made.add_argument("--committed", action="store_true")
    made.add_argument("--timeout", type=int, default=10, help="seconds without a record")
    made = verb("java", lambda options: tool(options, options.main, *options.arguments))
    made.add_argument("main")
    made.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        return options.does(options) or 0
    except Failure as failure:
        print(f"broker.py: {failure}", file=sys.stderr)
        return failure.code


if __name__ == "__main__":
    sys.exit(main())
