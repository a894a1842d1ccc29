#!/usr/bin/env python3
"""A real Kafka broker for tests: one node in KRaft mode, on free ports of 127.0.0.1.

  scripts/lib/kafka.py fetch                 get the jars (pinned, checked) into .tools/
  scripts/lib/kafka.py run --dir D --port P  be the broker: formats D on the first run, then replaces
                                             this process by the JVM, so its pid is the broker's
  scripts/lib/kafka.py with -- COMMAND…      run a command beside a fresh broker, whose address is in
                                             BOXOFFICE_TEST_KAFKA

Needs a Java runtime, version 17 or later: `scripts/tools java` installs one on Debian.
"""

import argparse
import concurrent.futures
import ctypes
import hashlib
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402
from harness import Failure, say  # noqa: E402

VERSION = "4.1.1"
JAVA_NEEDED = 17
# A mirror of Maven Central can be named instead.
REPOSITORY = os.environ.get("MAVEN_REPOSITORY", "https://repo1.maven.org/maven2").rstrip("/")
LIST = pathlib.Path(__file__).resolve().with_name("kafka.jars")
JARS = harness.ROOT / ".tools" / f"kafka-{VERSION}"
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0

# A broker of a test is small and short-lived: a quick start counts for more than its throughput.
JVM_OPTIONS = ["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
               "-Djava.awt.headless=true"]

LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


# ---------------------------------------------------------------- what it is made of

def pinned():
    """(file name, path in the repository, SHA-256) of each jar."""
    jars = []
    for line in LIST.read_text().splitlines():
        if line and not line.startswith("#"):
            digest, group, artifact, version = line.split()
            name = f"{artifact}-{version}.jar"
            jars.append((name, f"{group.replace('.', '/')}/{artifact}/{version}/{name}", digest))
    return jars


def fetched():
    """Whether the jars of exactly this list are there."""
    try:
        return (JARS / "complete").read_text() == LIST.read_text()
    except OSError:
        return False


def fetch_one(jar):
    name, path, digest = jar
    target = JARS / name
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == digest:
        return
    url = f"{REPOSITORY}/{path}"
    last = None
    for attempt in range(4):
        time.sleep(attempt)
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                body = answer.read()
            break
        except (urllib.error.URLError, OSError) as error:
            last = error
    else:
        raise Failure(f"cannot fetch {url}: {last}. Check that this machine reaches Maven Central, or name a "
                      "mirror in MAVEN_REPOSITORY")
    found = hashlib.sha256(body).hexdigest()
    if found != digest:
        raise Failure(f"{url} is not the file that scripts/lib/kafka.jars names: its SHA-256 is {found}. Nothing of "
                      "it was kept; check what is between this machine and Maven Central")
    part = target.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(body)
    part.replace(target)


def fetch():
    """The directory of the jars, filled if it is not yet."""
    if not fetched():
        JARS.mkdir(parents=True, exist_ok=True)
        say(f"fetching Kafka {VERSION} from {REPOSITORY} …")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(fetch_one, pinned()))
        (JARS / "complete").write_text(LIST.read_text())
    return JARS


def java():
    path = shutil.which("java")
    if path is None:
        raise Failure("Kafka needs a Java runtime; `scripts/tools java` installs one "
                      "(Debian: default-jre-headless)")
    said = subprocess.run([path, "-version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False).stdout
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version.group(1)) < JAVA_NEEDED:
        raise Failure(f"Kafka {VERSION} needs Java {JAVA_NEEDED} or later, and {path} says: {said.strip()[:200]}")
    return path


def command(directory, *main_class_and_arguments):
    jars = fetch()
    classpath = ":".join(str(jars / name) for name, _, _ in pinned())
    return [java(), *JVM_OPTIONS, f"-Dlog4j2.configurationFile={directory}/log4j2.properties", "-cp", classpath,
            *main_class_and_arguments]


# ---------------------------------------------------------------- a broker

def prepare(directory, port, settings):
    """Writes the configuration and formats the storage, unless that was done before; the configuration file."""
    directory = pathlib.Path(directory).resolve()
    configuration = directory / "server.properties"
    if configuration.exists():
        return configuration
    directory.mkdir(parents=True, exist_ok=True)
    controller = harness.free_port()
    properties = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "log.dirs": directory / "log",
        "num.partitions": 3,
        # One node has one replica of everything, also of Kafka's own topics.
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 3,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # As where somebody runs Kafka with care.
        "auto.create.topics.enable": "false",
        **settings,
    }
    def with_ports(value):
        return str(value).replace("{port}", str(port)).replace("{controller}", str(controller))

    (directory / "log4j2.properties").write_text(LOGGING)
    written = directory / "server.properties.new"
    written.write_text("".join(f"{key}={with_ports(value)}\n" for key, value in properties.items()))
    identity = subprocess.run(command(directory, "kafka.tools.StorageTool", "format", "--cluster-id",
                                      "Ym94b2ZmaWNlLXRlc3RzAA", "--config", str(written)),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if identity.returncode != 0:
        raise Failure(f"the storage of the broker cannot be formatted:\n{identity.stdout[-2000:]}")
    # Its presence says that the storage is formatted.
    written.rename(configuration)
    return configuration


def answers(port):
    """Whether a broker answers the first request of every client (ApiVersions). It does so only once it serves."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as s:
            s.sendall(struct.pack(">i", len(request)) + request)
            head = s.recv(10)
            return len(head) == 10 and struct.unpack(">iih", head)[1:] == (1, 0)
    except OSError:
        return False


class Kafka:
    """One running broker, with a directory of its own."""

    def __init__(self, directory, *, port=None, settings=None, cpus=None):
        self.directory = pathlib.Path(directory)
        self.port = port or harness.free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log_path = self.directory / "kafka.log"
        self.cpus = cpus
        self.configuration = prepare(self.directory, self.port, settings or {})
        self.start()

    def start(self):
        """Starts it, also again after a stop or a kill, and waits until it serves."""
        with open(self.log_path, "ab") as log:
            self.child = harness.spawn(command(self.directory, "kafka.Kafka", str(self.configuration)),
                                       cpus=self.cpus, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.child.pid
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not answers(self.port):
            if self.child.poll() is not None:
                raise Failure(f"Kafka ended with code {self.child.returncode} before it was ready:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise Failure(f"Kafka was not ready within {READY_TIMEOUT_S:.0f} s:\n{self.log_tail()}")
            time.sleep(0.05)

    def log_tail(self):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-20:])

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                harness.kill(self.child)


# ---------------------------------------------------------------- the program

def arguments():
    parser = argparse.ArgumentParser(prog="scripts/lib/kafka.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="get the jars into .tools/ and print where they are")
    run = commands.add_parser("run", help="be the broker")
    run.add_argument("--dir", required=True, type=pathlib.Path, help="its directory; made and formatted where missing")
    run.add_argument("--port", required=True, type=int, help="its port on 127.0.0.1; kept on later runs of the directory")
    beside = commands.add_parser("with", help="run a command beside a fresh broker")
    beside.add_argument("program", nargs=argparse.REMAINDER, metavar="-- COMMAND…")
    for part in (run, beside):
        part.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
                          help="a setting of the broker, where {port} and {controller} stand for its ports; may be repeated")
    return parser.parse_args()


def main():
    options = arguments()
    if options.command == "fetch":
        print(fetch())
        return 0
    settings = dict(pair.split("=", 1) for pair in options.settings)
    if options.command == "run":
        configuration = prepare(options.dir, options.port, settings)
        line = command(options.dir.resolve(), "kafka.Kafka", str(configuration))
        # Whoever started this may be killed; the broker must not stay behind.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, signal.SIG_DFL)
        sys.stdout.flush()
        os.execv(line[0], line)
    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        raise Failure("a command is needed: scripts/lib/kafka.py with -- COMMAND…")
    broker = Kafka(harness.make_temp_dir(), settings=settings)
    child = harness.spawn(program, env={**os.environ, "BOXOFFICE_TEST_KAFKA": broker.address},
                          stdin=subprocess.DEVNULL)
    code = child.wait()
    broker.stop()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    harness.run_main(main)
