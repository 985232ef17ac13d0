"""Brokers of Apache Kafka as processes: their jars, their configuration, and health. broker.py is the entry point."""
import base64
import ctypes
import fcntl
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(HERE, "..", "..", "target")
WORK = os.path.abspath(os.path.join(TARGET, "kafka"))
JAVA = 17
MISSING = 77
UNFETCHED = 78
LARGEST = 80 << 20
STARTUP = 600
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}
LOG4J = """\
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.target = {target}
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{{1}} %m%n
logger.noise.name = org.apache.kafka.clients
logger.noise.level = {noise}
"""


class Failure(Exception):
    """An error message and the exit status."""

    def __init__(self, text, code=1):
        super().__init__(text)
        self.code = code


# Java and the jars.


def java():
    """The path of a sufficiently new Java."""
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=os.path.join(home, "bin") if home else None) or shutil.which("java")
    if not path:
        raise Failure(f"no Java here: install Java {JAVA} or later to run tests on a real Kafka", MISSING)
    says = subprocess.run([path, "-version"], capture_output=True, text=True).stderr
    version = re.search(r'version "(\d+)', says)
    if not version or int(version[1]) < JAVA:
        raise Failure(f"Java {JAVA} or later is needed to run tests on a real Kafka; {path} is older", MISSING)
    return path


def jars():
    """The directory of the jars, downloaded if missing."""
    given = os.environ.get("PULLWATCH_KAFKA_JARS")
    if given:
        if not os.path.isdir(given):
            raise Failure(f"PULLWATCH_KAFKA_JARS: there is no directory {given}", MISSING)
        return given
    with open(os.path.join(HERE, "pom.xml"), "rb") as pom:
        version = re.search(rb"<kafka.version>([^<]+)<", pom.read())[1].decode()
    there = os.path.join(WORK, f"jars-{version}")
    os.makedirs(WORK, exist_ok=True)
    # Tests run concurrently: one downloads, the others wait.
    with open(os.path.join(WORK, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(there):
            fetch(there)
    return there


def fetch(there):
    """Copies the jars into a directory, all or none."""
    maven = shutil.which("mvn")
    if not maven:
        raise Failure("no Maven here: install it (mvn) to fetch the Kafka that tests run on", MISSING)
    print("fetching Apache Kafka by Maven", file=sys.stderr, flush=True)
    part = tempfile.mkdtemp(prefix="jars-part-", dir=WORK)
    command = [maven, "-B", "-q", "-f", os.path.join(HERE, "pom.xml"), "dependency:copy-dependencies",
               "-DincludeScope=runtime", f"-DoutputDirectory={part}"]
    # Downloads fail for a moment now and then.
    for wait in (5, 20, 60, None):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode == 0 or wait is None:
            break
        print(f"failed, again in {wait} s: {done.stdout.strip()[-300:]}", file=sys.stderr, flush=True)
        time.sleep(wait)
    if done.returncode or not any(name.startswith("kafka_") for name in os.listdir(part)):
        shutil.rmtree(part)
        raise Failure("Maven cannot fetch Apache Kafka: " + done.stdout.strip()[-2000:], UNFETCHED)
    os.rename(part, there)


def command(main, heap, log4j, arguments):
    """How to run one of Kafka's classes."""
    # A small garbage collector: several JVMs share a machine.
    return [java(), f"-Xmx{heap}", "-XX:+UseSerialGC", "-Xshare:auto", f"-Dlog4j2.configurationFile={log4j}",
            "-Djava.awt.headless=true", "-cp", os.path.join(jars(), "*"), main, *arguments]


LIBC = ctypes.CDLL(None)


def with_parent():
    """Run in a new process: kills it when its parent ends in any way."""
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def write(path, text, mode=0o600):
    """Writes a file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
    return path


# Requests to a broker, in the Kafka protocol.


def known_brokers(address, timeout=3.0):
    """Ids of the live brokers according to this one; empty if it does not answer."""
    def string(text):
        return struct.pack(">h", len(text)) + text
    # A Metadata request, version 1, without topics.
    body = struct.pack(">hhi", 3, 1, 1) + string(b"broker.py") + struct.pack(">i", 0)
    try:
        with socket.create_connection(address, timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            answer = connection.makefile("rb")
            size, = struct.unpack(">i", answer.read(4))
            data = answer.read(size)
        at = 8
        count, = struct.unpack_from(">i", data, 4)
        found = set()
        for _ in range(count):
            node, length = struct.unpack_from(">ih", data, at)
            at += 6 + length + 4
            rack, = struct.unpack_from(">h", data, at)
            at += 2 + max(rack, 0)
            found.add(node)
        return found
    except (OSError, struct.error):
        return set()


def free_ports(count):
    """Free ports, below the ephemeral range, so that the port of a stopped broker stays free."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            end = int(file.read().split()[0])
    except OSError:
        end = 32768
    found = []
    for port in random.sample(range(max(1025, end - 12000), end), 2000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Failure("no free ports on 127.0.0.1")


# The cluster.


class Cluster:
    """Brokers of one directory."""

    def __init__(self, options):
        self.dir = os.path.abspath(options.dir)
        self.options = options
        self.nodes = list(range(1, options.brokers + 1))
        ports = free_ports(5 * options.brokers)
        if options.port:
            ports[:options.brokers] = range(options.port, options.port + options.brokers)
        self.plain, self.controller, self.sasl, self.tokens, self.tls = (
            dict(zip(self.nodes, ports[i * options.brokers:])) for i in range(5))
        self.running = {}
        self.frozen = set()
        self.cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.user, self.password = "pullwatch", secrets.token_urlsafe(18)

    def prepare(self):
        """Makes the directory, configures and formats each broker."""
        os.makedirs(self.dir, exist_ok=True)
        self.log4j = write(os.path.join(self.dir, "log4j2.properties"), LOG4J.format(target="SYSTEM_OUT", noise="INFO"))
        write(os.path.join(self.dir, "log4j2-tools.properties"), LOG4J.format(target="SYSTEM_ERR", noise="ERROR").replace("INFO", "WARN"))
        formats = []
        for node in self.nodes:
            home = self.home(node)
            os.makedirs(home)
            properties = write(os.path.join(home, "server.properties"), self.properties(node))
            # One argument with its option: an id may start with a dash.
            arguments = ["format", f"--cluster-id={self.cluster}", "-c", properties]
            if self.options.sasl:
                for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                    arguments += ["--add-scram", f"{mechanism}=[name={self.user},password={self.password}]"]
            run = command("kafka.tools.StorageTool", "128m", self.log4j, arguments)
            formats.append(subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        for each in formats:
            says, _ = each.communicate()
            if each.returncode:
                raise Failure("the storage of a broker cannot be formatted: " + says[-2000:])
        with open(os.path.join(self.dir, "cluster.json"), "x") as file:
            json.dump(self.facts(), file, indent=1)

    def home(self, node):
        return os.path.join(self.dir, f"broker-{node}")

    def facts(self):
        def addresses(ports, host="127.0.0.1"):
            return ",".join(f"{host}:{port}" for port in ports.values())
        facts = {"bootstrap": addresses(self.plain), "brokers": self.nodes, "supervisor": os.getpid()}
        if self.options.sasl:
            path = write(os.path.join(self.dir, "password"), self.password)
            facts |= {"sasl": addresses(self.sasl), "user": self.user, "password_file": path, "tokens": addresses(self.tokens)}
        if self.options.tls:
            facts["tls"] = addresses(self.tls, "localhost")
        return facts

    def properties(self, node):
        """The configuration of one broker."""
        replicas = min(3, len(self.nodes))
        insync = 2 if replicas == 3 else 1
        voters = ",".join(f"{n}@127.0.0.1:{port}" for n, port in self.controller.items())
        listeners = {"PLAINTEXT": self.plain[node], "CONTROLLER": self.controller[node]}
        if self.options.sasl:
            listeners |= {"CLIENTS": self.sasl[node], "TOKENS": self.tokens[node]}
        said = [f"{name}://127.0.0.1:{port}" for name, port in listeners.items()]
        if self.options.tls:
            # The name in its certificate.
            said.append(f"TLS://localhost:{self.tls[node]}")
        lines = {
            "process.roles": "broker,controller",
            "node.id": node,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join(said),
            "advertised.listeners": ",".join(said[:1] + said[2:]),
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,CLIENTS:SASL_PLAINTEXT,TOKENS:SASL_PLAINTEXT,TLS:SSL",
            "log.dirs": os.path.join(self.home(node), "data"),
            "auto.create.topics.enable": str(self.options.auto_create).lower(),
            "default.replication.factor": replicas,
            "min.insync.replicas": insync,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": insync,
            "transaction.state.log.num.partitions": 8,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": insync,
            # Short rebalance delays and broker session timeouts for tests.
            "group.initial.rebalance.delay.ms": 0,
            "broker.session.timeout.ms": 6000,
            "broker.heartbeat.interval.ms": 1000,
            "message.max.bytes": LARGEST,
            "replica.fetch.max.bytes": LARGEST,
            "socket.request.max.bytes": LARGEST + (20 << 20),
            # Fits into the small heap.
            "log.cleaner.dedupe.buffer.size": 8 << 20,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "num.recovery.threads.per.data.dir": 2,
        }
        if self.options.sasl:
            plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
            scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            prefix = "listener.name.clients."
            lines |= {
                prefix + "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                prefix + "plain.sasl.jaas.config": f'{plain} required user_{self.user}="{self.password}";',
                prefix + "scram-sha-256.sasl.jaas.config": scram,
                prefix + "scram-sha-512.sasl.jaas.config": scram,
                "listener.name.tokens.sasl.enabled.mechanisms": "OAUTHBEARER",
                "listener.name.tokens.oauthbearer.sasl.jaas.config":
                    "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;",
            }
        if self.options.tls:
            prefix = "listener.name.tls."
            lines |= {
                prefix + "ssl.keystore.type": "PEM",
                prefix + "ssl.keystore.location": os.path.abspath(self.options.tls),
                prefix + "ssl.truststore.type": "PEM",
                prefix + "ssl.truststore.location": os.path.abspath(self.options.client_ca),
                prefix + "ssl.client.auth": "required",
            }
        for pair in self.options.broker_config:
            name, _, value = pair.partition("=")
            lines[name] = value
        return "".join(f"{name}={value}\n" for name, value in lines.items())

    def spawn(self, node):
        """Starts a broker, unless it is running."""
        if node in self.running and self.running[node].poll() is None:
            return
        home = self.home(node)
        run = command("kafka.Kafka", self.options.heap, self.log4j, [os.path.join(home, "server.properties")])
        with open(os.path.join(home, "log"), "ab") as log:
            self.running[node] = subprocess.Popen(
                run, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=home, preexec_fn=with_parent)

    def wait(self, nodes):
        """Waits until these brokers answer and know all running brokers."""
        deadline = time.monotonic() + STARTUP
        for node in nodes:
            while True:
                alive = {n for n, process in self.running.items() if process.poll() is None} - self.frozen
                if node not in alive:
                    raise Failure(f"broker {node} ended while it started; the end of its log:\n" + self.tail(node))
                if alive <= known_brokers(("127.0.0.1", self.plain[node])):
                    break
                if time.monotonic() > deadline:
                    raise Failure(f"broker {node} does not answer; the end of its log:\n" + self.tail(node))
                time.sleep(0.1)

    def tail(self, node):
        with open(os.path.join(self.home(node), "log"), "rb") as log:
            log.seek(max(0, os.path.getsize(log.name) - 4000))
            return log.read().decode(errors="replace")

    def end(self):
        """Kills all brokers and removes their files."""
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
        for process in self.running.values():
            process.wait()
        if not self.options.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def obey(self, order):
        """Serves a command of another process."""
        what, node = order["order"], order.get("node")
        if what == "status":
            return {n: "running" if p.poll() is None else f"ended ({p.returncode})" for n, p in self.running.items()}
        process = self.running.get(node)
        if not process:
            raise Failure(f"there is no broker {node}; there are {', '.join(map(str, self.nodes))}")
        if what == "restart":
            self.spawn(node)
            self.wait([node])
            return f"broker {node} answers"
        if process.poll() is not None:
            raise Failure(f"broker {node} does not run")
        (self.frozen.add if what == "freeze" else self.frozen.discard)(node)
        process.send_signal(SIGNALS[what])
        if what in ("kill", "term"):
            process.wait()
        return f"broker {node}: {what}"


# Client side.


def ask(directory, **order):
    """Sends a command to the supervisor of a directory and returns its response."""
    before = os.getcwd()
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(STARTUP + 20)
    try:
        os.chdir(directory)
        connection.connect("control")
        os.chdir(before)
        connection.sendall(json.dumps(order).encode() + b"\n")
        answer = json.loads(connection.makefile().readline() or "{}")
    except (OSError, ValueError) as error:
        raise Failure(f"nobody runs brokers in {directory}: {error}") from None
    finally:
        os.chdir(before)
        connection.close()
    if "done" not in answer:
        raise Failure(answer.get("failed", "the supervisor ended"))
    return answer["done"]


def facts_of(directory):
    try:
        with open(os.path.join(directory, "cluster.json")) as file:
            return json.load(file)
    except OSError:
        raise Failure(f"no brokers run in {directory}; `broker.py start --dir {directory}` starts some") from None
