#!/usr/bin/env python3
"""Holds everything in deploy/ against the real thing, as far as that goes without Docker.

  scripts/lib/dashboards.py            all of it, about two minutes
  scripts/lib/dashboards.py --static   only what needs no server

Static: the Dockerfile (hadolint, deploy/check --static), compose.yaml (docker compose config), the configuration of the
proxy, of Prometheus and Alertmanager, the rules with their tests, the dashboards' shape, and that every metric that they
name is one that the service has.

Then a cluster of two instances, an InfluxDB, a Prometheus with our rules and an Alertmanager are started, k6 runs, and
every query of every panel but those of Loki, every variable and every recording rule is asked of the real server. One that gives no data is
a failure, and so is one that gives nothing but zeros unless its panel says that zero is its ordinary state.
"""

import argparse
import http.client
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402
from harness import Failure, say  # noqa: E402

DEPLOY = harness.ROOT / "deploy"
DASHBOARDS = DEPLOY / "grafana" / "dashboards"
PROMETHEUS = DEPLOY / "prometheus"
K6_SCRIPTS = harness.ROOT / "load" / "k6"
# Metrics that are not the service's own.
OTHERS = {"up", "ALERTS"}
# What the process collector of metrics.rs gives.
PROCESS = {"process_start_time_seconds", "process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total",
           "boxoffice_cpus", "boxoffice_cpu_throttled_seconds_total", "boxoffice_run_queue_wait_seconds_total"}
# Iterations that are due while every virtual user is busy: k6 drops them, and says so in a metric of its own.
DROPPING = """\
import http from 'k6/http';
import { sleep } from 'k6';
export const options = { scenarios: { late: {
    executor: 'constant-arrival-rate', rate: 20, timeUnit: '1s', duration: '3s', preAllocatedVUs: 1, maxVUs: 1 } } };
export default function () {
    http.get(`${__ENV.HOST}/api/v1/concerts`, { tags: { name: 'concerts' } });
    sleep(0.3);
}
"""


class Problems(list):
    def add(self, text):
        say(f"PROBLEM: {text}")
        self.append(text)


def run(problems, what, command, **options):
    """Runs a checker; its output is shown where it complains."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **options)
    if done.returncode != 0:
        problems.add(f"{what} (code {done.returncode}):\n{done.stdout.strip()[-3000:]}")
    else:
        say(f"ok: {what}")
    return done


# ---------------------------------------------------------------- without servers

def check_files(problems, work):
    run(problems, "hadolint deploy/Dockerfile", [harness.tool("hadolint"), DEPLOY / "Dockerfile"])
    run(problems, "deploy/check --static", [DEPLOY / "check", "--static"])
    run(problems, "dashboards are what dashboards.py writes", [DEPLOY / "grafana" / "dashboards.py", "--check"])
    check_compose(problems, work)
    haproxy = harness.program("haproxy", "haproxy")
    run(problems, "haproxy -c", [haproxy, "-c", "-f", DEPLOY / "proxy" / "haproxy.cfg"])
    promtool, amtool = harness.program("promtool", "prometheus"), harness.program("amtool", "prometheus-alertmanager")
    run(problems, "promtool check config", [promtool, "check", "config", PROMETHEUS / "prometheus.yml"])
    run(problems, "promtool check rules", [promtool, "check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yml"))])
    run(problems, "promtool test rules", [promtool, "test", "rules", *sorted((PROMETHEUS / "tests").glob("*.yml"))])
    run(problems, "amtool check-config", [amtool, "check-config", *sorted((DEPLOY / "alertmanager").glob("*.yml"))])
    tests = "".join(path.read_text() for path in sorted((PROMETHEUS / "tests").glob("*.yml")))
    for alert in re.findall(r"- alert: (\w+)", (PROMETHEUS / "rules" / "alerts.yml").read_text()):
        if alert not in tests:
            problems.add(f"alert {alert} has no test in deploy/prometheus/tests")


def check_compose(problems, work):
    """With a copy, because the secrets that it asks for are not made in the repository."""
    compose = harness.tool("docker-compose")
    copy = work / "compose" / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns(".env", ".secrets"))
    asked = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (DEPLOY / "compose.yaml").read_text()))
    offered = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    for name in sorted(set(asked) ^ (set(offered) - {"SECRETS_DIR"})):
        problems.add(f"{name} stands in only one of compose.yaml and .env.example")
    for name in sorted(name for name in set(asked) & set(offered) if asked[name] != offered[name]):
        problems.add(f"{name} is {asked[name]} in compose.yaml and {offered[name]} in .env.example")
    # Nothing that stands in the caller's environment may decide what is checked.
    env = {key: value for key, value in os.environ.items() if key not in {*asked, *offered} and not key.startswith(("BOXOFFICE_", "COMPOSE_"))}
    without = subprocess.run([compose, "-f", copy / "compose.yaml", "config", "-q"], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, check=False, env=env)
    if without.returncode == 0 or "deploy/secrets" not in without.stdout:
        problems.add(f"compose.yaml without secrets does not say that deploy/secrets makes them: {without.stdout[-500:]}")
    if subprocess.run([copy / "secrets", "--check"], check=False, stderr=subprocess.DEVNULL).returncode == 0:
        problems.add("deploy/secrets --check is content where there are none")
    run(problems, "deploy/secrets", [copy / "secrets"])
    made = {path.name: path.read_text() for path in (copy / ".secrets").iterdir()}
    run(problems, "deploy/secrets again", [copy / "secrets"])
    if made != {path.name: path.read_text() for path in (copy / ".secrets").iterdir()} or len(set(made.values())) != len(made):
        problems.add("deploy/secrets changes what is there, or gives two secrets one value")
    if (copy / ".secrets").stat().st_mode & 0o077:
        problems.add("deploy/.secrets can be entered by others")
    run(problems, "docker compose config", [compose, "-f", copy / "compose.yaml", "--profile", "k6", "config", "-q"], env=env)
    shown = subprocess.run([compose, "-f", copy / "compose.yaml", "--profile", "k6", "config", "--format", "json"],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False, env=env)
    if shown.returncode != 0:
        return
    whole = json.loads(shown.stdout)
    secrets = set(whole["secrets"])
    if secrets != set(made):
        problems.add(f"compose.yaml wants the secrets {sorted(secrets)}, deploy/secrets makes {sorted(made)}")
    for name, service in whole["services"].items():
        tag = service["image"].rpartition(":")[2]
        if not re.search(r"\d+\.\d+|^local$", tag):
            problems.add(f"compose.yaml: {name} has the image {service['image']}, which is no exact version")
        for port in service.get("ports", []):
            if port.get("host_ip") != "127.0.0.1":
                problems.add(f"compose.yaml: port {port} of {name} is open to more than this machine")
        # That of boxoffice is in its image; compose.yaml says why fluent-bit has none.
        if name not in ("k6", "boxoffice", "fluent-bit") and "healthcheck" not in service:
            problems.add(f"compose.yaml: {name} has no health check")
        for key in ("logging", "cap_drop", "security_opt", "stop_grace_period", "deploy"):
            if key not in service:
                problems.add(f"compose.yaml: {name} has no {key}")
        published = bool(service.get("ports"))
        if published != ("front" in service["networks"]):
            problems.add(f"compose.yaml: {name}: who has a port is on the network front, and nobody else")
        leaked = [key for key in service.get("environment") or {} if re.search(r"PASSWORD$|TOKEN$|_KEY$", key)]
        if leaked:
            problems.add(f"compose.yaml: {name} has a secret in its environment: {leaked}")
    # The service must know every variable that it is given.
    environment = {**env, **{k: str(v) for k, v in whole["services"]["boxoffice"]["environment"].items()}}
    for key in [key for key in environment if key.endswith("_FILE") and key.startswith("BOXOFFICE_")]:
        environment[key] = str(copy / ".secrets" / pathlib.Path(environment[key]).name)
    run(problems, "boxoffice config check, with the environment of compose.yaml",
        [harness.binary("boxoffice"), "config", "check"], env=environment, cwd=work)


def known_metrics():
    """The names of metrics.rs as Prometheus sees them."""
    text = (harness.ROOT / "crates/server/src/metrics.rs").read_text()
    body = text[text.index("\nmetrics! {"):]
    body = body[:body.index("\n}\n")]
    names = {"boxoffice_build_info", *OTHERS, *PROCESS}
    for kind, name in re.findall(r'^    \w+: ([^=]+?) = "(\w+)"', body, re.MULTILINE):
        if "Histogram" in kind or "Durations" in kind:
            names.update(f"{name}_{suffix}" for suffix in ("bucket", "sum", "count"))
        elif "Counter" in kind:
            names.add(f"{name}_total")
        else:
            names.add(name)
    if len(names) < 40:
        raise Failure("the list of metrics in crates/server/src/metrics.rs cannot be read any more; teach scripts/lib/dashboards.py")
    return names


def recorded():
    return re.findall(r"- record: (\S+)", (PROMETHEUS / "rules" / "recording.yml").read_text())


def boards():
    return [json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))]


def panels_of(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def check_boards(problems):
    """Names that a metric must have, and the shape that Grafana asks for."""
    names = known_metrics() | set(recorded())
    texts = [(f"dashboard \"{board['title']}\", panel \"{panel['title']}\"", target["expr"])
             for board in boards() for panel in panels_of(board) for target in panel["targets"] if "expr" in target]
    for rules in sorted((PROMETHEUS / "rules").glob("*.yml")):
        bare = re.sub(r"^ *(#|summary:|runbook(?:_url)?:|- record:|- alert:|- name:).*$", "", rules.read_text(), flags=re.MULTILINE)
        texts.append((f"deploy/prometheus/rules/{rules.name}", bare))
    for where, text in texts:
        used = re.findall(r"\b(?:boxoffice[_:][\w:]+|http_server_\w+|process_\w+|up(?=\{)|ALERTS)", re.sub(r'"[^"]*"', '""', text))
        for name in sorted(set(used) - names):
            problems.add(f"{where}: the service has no metric {name}")
    sources = set(re.findall(r"^    uid: (\S+)", (DEPLOY / "grafana/provisioning/datasources/boxoffice.yaml").read_text(), re.MULTILINE))
    uids = [board["uid"] for board in boards()]
    if len(set(uids)) != len(uids) or not uids:
        problems.add(f"the dashboards' uids are not unique: {uids}")
    for board in boards():
        taken = {}
        ids = [panel["id"] for panel in board["panels"]]
        titles = [panel["title"] for panel in panels_of(board)]
        if len(set(ids)) != len(ids) or len(set(titles)) != len(titles):
            problems.add(f"dashboard \"{board['title']}\": ids or titles of panels are not unique")
        for panel in board["panels"]:
            at = panel["gridPos"]
            for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
                if cell in taken or cell[0] >= 24:
                    problems.add(f"dashboard \"{board['title']}\": {panel['title']} lies over {taken.get(cell, 'the edge')}")
                    break
                taken[cell] = panel["title"]
            for source in [panel.get("datasource"), *(target["datasource"] for target in panel.get("targets", []))]:
                if source is not None and source["uid"] not in sources:
                    problems.add(f"dashboard \"{board['title']}\", panel \"{panel['title']}\": no data source {source['uid']} is provisioned")
    say(f"ok: the shape of {len(uids)} dashboards, and the names in {len(texts)} queries and files")


# What the parser finds wrong in each query of a list.
LOGQL = """\
import { parser } from '@grafana/lezer-logql';
const found = JSON.parse(process.argv[1]).map((query) => {
    let wrong = null;
    parser.parse(query).iterate({ enter: (node) => { if (node.type.isError && wrong === null) wrong = node.from; } });
    return wrong;
});
console.log(JSON.stringify(found));
"""


def derived_fields():
    """(pattern, query) by which an id in a line of the log leads to the lines that have it."""
    text = (DEPLOY / "grafana/provisioning/datasources/boxoffice.yaml").read_text()
    patterns, links = re.findall(r"matcherRegex: '(.+)'", text), re.findall(r"^ +url: '(.+)'$", text, re.MULTILINE)
    if len(patterns) != len(links) or not links:
        raise Failure("deploy/grafana/provisioning/datasources/boxoffice.yaml has no derived fields; teach scripts/lib/dashboards.py")
    return list(zip(patterns, links))


def check_logql(problems):
    """What is asked of Loki, by Grafana's own grammar of its language."""
    queries = [(f"panel \"{panel['title']}\"", target["expr"]) for board in boards() for panel in panels_of(board)
               for target in panel["targets"] if target["datasource"]["type"] == "loki"]
    queries += [("a derived field", link.replace("$${__value.raw}", "0af7")) for _, link in derived_fields()]
    texts = [text.replace("$__auto", "1m") for _, text in queries]
    # The last ones are wrong.
    wrong = ['{job="boxoffice"', 'sum by (level) (rate({job="boxoffice"}))', '{job="boxoffice"} |= boxoffice']
    done = subprocess.run([harness.tool("node"), "--input-type=module", "--eval", LOGQL, json.dumps([*texts, *wrong])],
                          cwd=harness.tool("logql"), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"the parser of LogQL ended with code {done.returncode}")
    found = json.loads(done.stdout)
    for (where, _), text, at in zip(queries, texts, found):
        if at is not None:
            problems.add(f"{where}: Loki does not understand this from character {at} on: {text}")
        if '{job="boxoffice"' not in text:
            problems.add(f"{where} asks for lines of others: {text}")
    if None in found[len(texts):]:
        problems.add(f"a query that is wrong is not found, so that this test finds nothing: {found[len(texts):]}")
    say(f"ok: the grammar of {len(texts)} queries of Loki")


# ---------------------------------------------------------------- servers

def check_lines(problems, service):
    """That what the files about logs say of a line is so: its time, its level, and the ids that are links."""
    one = service.instances[0]
    trace = "0af7651916cd43dd8448eb211c80319c"
    one.request("POST", "/admin/v1/queues", body={"queue": "logged"}, headers={
        "Authorization": f"Bearer {one.admin_token()}", "X-Request-Id": "an-id.1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    lines = [line for line in one.log_path.read_text().splitlines() if "an-id.1" in line]
    if len(lines) != 1:
        problems.add(f"the log has {len(lines)} lines of a request that changes something, and not one")
        return
    values = [re.search(pattern, lines[0]) for pattern, _ in derived_fields()]
    if [value and value[1] for value in values] != ["an-id.1", trace]:
        problems.add(f"the derived fields of Grafana do not find their ids in {lines[0]}")
    # Fluent Bit writes the line anew, in the form that the patterns and the links ask for.
    again = json.dumps(json.loads(lines[0]), separators=(",", ":"))
    for (pattern, link), value in zip(derived_fields(), values):
        part = re.search(r"`(.+)`", link)[1].replace("$${__value.raw}", value[1] if value else "")
        if part not in again or not re.search(pattern, again):
            problems.add(f"the link {link} does not find {again}")
    collected = (DEPLOY / "logs" / "fluent-bit.yaml").read_text()
    key, form = re.search(r"time_key: (\w+)", collected)[1], re.search(r'time_format: "(.+)"', collected)[1]
    line = json.loads(lines[0])
    try:
        time.strptime(line[key].split(".")[0] + "Z", form.replace(".%L", ""))
    except (KeyError, ValueError) as error:
        problems.add(f"Fluent Bit does not find the time of {lines[0]}: {error}")
    labels = re.search(r"label_keys: (.+)", collected)[1].replace("$", "").split(",")
    if not set(labels) - {"container_name"} <= set(line):
        problems.add(f"Fluent Bit makes labels of {labels}, of which the line lacks some: {lines[0]}")
    say("ok: a line of the log has the time, the level and the ids that collecting it relies on")


class Stage:
    """Instances behind haproxy, on a MariaDB, a Redis and a Kafka of their own, which `lab stage` starts and stops."""

    def __init__(self, *, instances, settings):
        given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        self.child = harness.spawn([harness.binary("lab"), "stage", "--instances", instances, *given],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.child.stdout.readline()
        if not line:
            raise Failure(f"lab stage ended with code {self.child.wait()}")
        said = json.loads(line)
        self.url = said["url"]
        self.instances = [harness.Server.of_stage(**one) for one in said["instances"]]

    def issue_tokens(self, count):
        self.instances[0].admin("POST", "/admin/v1/tokens", expect=201, body={
            "count": count, "format": "queue_token_{n}", "activated": True, "guessable": True})
        # The others hear of them within a tick or two.
        time.sleep(1)

    def alive(self):
        return all(pathlib.Path(f"/proc/{one.pid}/exe").exists() for one in self.instances)

    def log_tail(self):
        return "\n".join(f"{one.label}:\n{one.log_tail()}" for one in self.instances)

    def close(self):
        self.child.stdin.close()
        code = self.child.wait(harness.ENGINE_TIMEOUT_S)
        if code != 0:
            raise Failure(f"lab stage ended with code {code}")


def get(url, **parameters):
    """The JSON answer of a GET; a refusal is told in its own words."""
    try:
        with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return {"error": error.read().decode("utf-8", "replace")[:500]}


def influxdb(work):
    directory = work / "influxdb"
    directory.mkdir()
    port, inner = harness.free_port(), harness.free_port()
    configuration = directory / "influxdb.conf"
    configuration.write_text(f"""\
reporting-disabled = true
bind-address = "127.0.0.1:{inner}"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
  query-log-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  log-enabled = false
[monitor]
  store-enabled = false
""")
    engine = harness.Engine("influxd", [harness.program("influxd", "influxdb"), "run", "-config", configuration],
                            directory / "log", lambda: harness.listens(port))
    return engine, f"http://127.0.0.1:{port}"


def replaced(text, old, new):
    if old not in text:
        raise Failure(f"deploy/prometheus/prometheus.yml has no longer {old!r}; teach scripts/lib/dashboards.py")
    return text.replace(old, new)


def prometheus(work, instances):
    """Prometheus with our file, in which only addresses and intervals are others, and an Alertmanager with ours."""
    directory = work / "prometheus"
    shutil.copytree(PROMETHEUS, directory)
    port, alert_port = harness.free_port(), harness.free_port()
    text = (PROMETHEUS / "prometheus.yml").read_text()
    # What is not here: its targets would be down.
    for job in ("fluent-bit", "loki"):
        text, found = re.subn(rf"  - job_name: {job}\n(?:    .*\n)+\n", "", text)
        if found != 1:
            raise Failure(f"deploy/prometheus/prometheus.yml has no longer one job {job}; teach scripts/lib/dashboards.py")
    names = re.compile(r"    dns_sd_configs:\n(?:      .*\n)+")
    if len(names.findall(text)) != 1:
        raise Failure("deploy/prometheus/prometheus.yml has no longer one dns_sd_configs; teach scripts/lib/dashboards.py")
    targets = ", ".join(f"'{one.address}'" for one in instances)
    text = names.sub(f"    static_configs:\n      - targets: [{targets}]\n", text)
    text = replaced(text, "alertmanager:9093", f"127.0.0.1:{alert_port}")
    text = replaced(text, "localhost:9090", f"127.0.0.1:{port}")
    for name, values in (("scrape_interval", ("2s", "5s")), ("scrape_timeout", ("2s", "4s")), ("evaluation_interval", ("2s",))):
        for value in values:
            text = replaced(text, f"{name}: {value}", f"{name}: 1s")
    (directory / "prometheus.yml").write_text(text)
    alertmanager = harness.Engine(
        "alertmanager", [harness.program("prometheus-alertmanager", "prometheus-alertmanager"),
                         f"--config.file={DEPLOY / 'alertmanager' / 'alertmanager.yml'}", f"--storage.path={work / 'alerts'}",
                         f"--web.listen-address=127.0.0.1:{alert_port}", "--cluster.listen-address="],
        work / "alertmanager.log", lambda: harness.listens(alert_port))
    engine = harness.Engine(
        "prometheus", [harness.program("prometheus", "prometheus"), f"--config.file={directory / 'prometheus.yml'}",
                       f"--storage.tsdb.path={work / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"],
        work / "prometheus.log", lambda: harness.listens(port))
    return [engine, alertmanager], f"http://127.0.0.1:{port}"


def k6(service, influx, script, *settings):
    """One run of k6. What it checks about speed is not the matter here, so that its thresholds are left out."""
    command = [harness.tool("k6"), "run", "--quiet", "--no-color", "--no-usage-report", "--no-thresholds", "--out", f"influxdb={influx}/k6",
               "-e", f"HOST={service.url}", *(part for setting in settings for part in ("-e", setting)), str(script)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("K6_")}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=env, timeout=90)
    if done.returncode != 0:
        raise Failure(f"k6 run {script} ended with code {done.returncode}:\n{done.stdout[-3000:]}")
    say(f"k6: {pathlib.Path(script).name} {' '.join(settings)}")


def others(service, stop):
    """What the k6 scripts do not do: points are charged, people leave the line, an operator looks."""
    one = service.instances[0]
    user = 900
    while not stop.is_set():
        user += 1
        one.call("PATCH", f"/api/v1/users/{user}/points/charge", body={"amount": 10}, expect=(200, 201))
        token = one.call("POST", "/api/v1/waiting-queues", body={"userId": user}, expect=201)["token"]
        one.request("DELETE", "/api/v1/waiting-queues", headers={"QUEUE-TOKEN": token})
        one.admin("GET", "/admin/v1/audit", expect=200)
        stop.wait(1.2)
        if user >= 990:
            user = 900


def wait_for_scrapes(prom):
    """Until every target was scraped, which Prometheus begins some seconds after its start: what a count has grown by
    before its first scrape is in no rate."""
    deadline = time.monotonic() + harness.ENGINE_TIMEOUT_S
    targets = []
    while time.monotonic() < deadline:
        # While it starts it answers that it is not available.
        targets = get(f"{prom}/api/v1/targets").get("data", {}).get("activeTargets", [])
        if targets and all(one["health"] == "up" for one in targets):
            return
        time.sleep(0.2)
    raise Failure(f"Prometheus has not scraped all of its targets within {harness.ENGINE_TIMEOUT_S:.0f} s: "
                  f"{[(one['labels']['job'], one['health'], one['lastError']) for one in targets]}")


def check_proxy(problems, work, instances):
    """The proxy with our file, in which only addresses are others: the API goes through, what is for operators does not."""
    port, watch = harness.free_port(), harness.free_port()
    text = (DEPLOY / "proxy" / "haproxy.cfg").read_text()
    # The names of instances are found by Docker's own server of names, which is not here.
    for old, new in ((" resolvers docker init-addr libc,none", ""), ("maxconn 20000", "maxconn 2000"),
                     ("bind :8080", f"bind 127.0.0.1:{port}"), ("bind :8405", f"bind 127.0.0.1:{watch}"),
                     ("    server-template instance 16 boxoffice:8080\n",
                      "".join(f"    server {one.label} {one.address}\n" for one in instances))):
        if old not in text:
            raise Failure(f"deploy/proxy/haproxy.cfg has no longer {old!r}; teach scripts/lib/dashboards.py")
        text = text.replace(old, new)
    configuration = work / "proxy.cfg"
    configuration.write_text(text)
    engine = harness.Engine("haproxy", [harness.program("haproxy", "haproxy"), "-db", "-f", configuration], work / "proxy.log",
                            lambda: harness.listens(port))
    token = {"Authorization": f"Bearer {instances[0].admin_token()}"}
    for at, path, expected in ((port, "/api/v1/concerts", 200), (port, "/health/ready", 200), (watch, "/up", 200),
                               (port, "/admin/v1/queues", 404), (port, "/ADMIN/v1/queues", 404), (port, "/%61dmin/v1/queues", 404),
                               (port, "//admin/v1/queues", 404), (port, "/x/../admin/v1/queues", 404), (port, "/metrics", 404),
                               (port, "/%6detrics", 404), (port, "/actuator/prometheus", 404)):
        connection = http.client.HTTPConnection("127.0.0.1", at, timeout=10)
        connection.request("GET", path, headers=token)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != expected:
            problems.add(f"the proxy answers {answer.status} to {path}, and not {expected}")
    engine.stop()
    say("ok: the proxy lets fans through, and nobody to the admin API or the metrics")


# ---------------------------------------------------------------- asking what the panels ask

class Asked:
    """The answer to one query: how many series, how many numbers, whether one is not zero; or what went wrong."""

    def __init__(self, values, error=None):
        finite = [value for value in values if value is not None and math.isfinite(value)]
        self.count, self.nonzero, self.error = len(finite), any(finite), error


class Sources:
    def __init__(self, influx, prom, began, ended):
        self.influx, self.prom, self.began, self.ended = influx, prom, began, ended

    def ask(self, target):
        if target["datasource"]["type"] == "influxdb":
            return self.ask_influxdb(target["query"])
        return self.ask_prometheus(target["expr"], instant=target.get("instant", False))

    def ask_influxdb(self, query):
        query = query.replace("$timeFilter", f"time >= {int(self.began * 1000)}ms and time <= {int(self.ended * 1000)}ms")
        query = query.replace("$__interval", "1s").replace("/^$name$/", "/^.*$/")
        if re.search(r"\$\w", query):
            return Asked([], f"a variable is left that the test does not know: {query}")
        answer = get(f"{self.influx}/query", db="k6", q=query, epoch="ms")
        result = (answer.get("results") or [{}])[0]
        error = answer.get("error") or result.get("error")
        rows = [row for series in result.get("series", []) for row in series["values"]]
        # The first column is the time, or in a list of tags the key.
        values = [float(value) if isinstance(value, (int, float)) else (1.0 if value else None) for row in rows for value in row[1:]]
        return Asked(values, error)

    def ask_prometheus(self, query, *, instant=False):
        # As Grafana has it with a scrape interval of 1 s.
        query = query.replace("$__rate_interval", "10s").replace("$__range", f"{int(self.ended - self.began)}s")
        query = query.replace("$__interval", "1s").replace("$instance", ".*")
        if re.search(r"\$\w", query):
            return Asked([], f"a variable is left that the test does not know: {query}")
        if instant:
            answer = get(f"{self.prom}/api/v1/query", query=query, time=self.ended)
        else:
            answer = get(f"{self.prom}/api/v1/query_range", query=query, start=self.began, end=self.ended, step=1)
        result = answer.get("data", {}).get("result", [])
        return Asked([float(pair[1]) for series in result for pair in (series.get("values") or [series["value"]])], answer.get("error"))

    def ask_variable(self, variable):
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        if match is None:
            return self.ask_influxdb(variable["query"])
        answer = get(f"{self.prom}/api/v1/label/{match[2]}/values", **{"match[]": match[1]})
        return Asked([1.0 for _ in answer.get("data", [])], answer.get("error"))


def check_panels(problems, sources, rests):
    asked = 0
    for board in boards():
        for panel in panels_of(board):
            for target in panel["targets"]:
                # There is no Loki here: check_logql reads what it would be asked.
                if target["datasource"]["type"] == "loki":
                    continue
                asked += 1
                where = f"dashboard \"{board['title']}\", panel \"{panel['title']}\", query {target['refId']}"
                text = target.get("expr") or target.get("query")
                answer = sources.ask(target)
                if answer.error:
                    problems.add(f"{where} is refused: {answer.error}\n    {text}")
                elif not answer.count:
                    problems.add(f"{where} returns no data\n    {text}")
                elif not answer.nonzero and (board["uid"], panel["title"], target["refId"]) not in rests:
                    problems.add(f"{where} returns nothing but zeros\n    {text}")
        for variable in board["templating"]["list"]:
            asked += 1
            answer = sources.ask_variable(variable)
            if answer.error or not answer.count:
                problems.add(f"dashboard \"{board['title']}\", variable {variable['name']} has no values: {answer.error or variable['query']}")
    return asked


def check_rules(problems, sources):
    for name in recorded():
        if not sources.ask_prometheus(name).count:
            problems.add(f"recording rule {name} has no series")
    groups = get(f"{sources.prom}/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    for rule in rules:
        if rule["health"] != "ok":
            problems.add(f"rule {rule['name']} is {rule['health']}: {rule.get('lastError')}")
    targets = get(f"{sources.prom}/api/v1/targets")["data"]["activeTargets"]
    for one in targets:
        if one["health"] != "up":
            problems.add(f"target {one['labels']} is {one['health']}: {one['lastError']}")
    # k6 and the engines may well have all CPUs of the machine that this runs on; then purchases wait, too.
    firing = 'ALERTS{alertstate="firing", alertname!~"BoxofficeCpu.*|BoxofficeAdmissionSlowed"}'
    if sources.ask_prometheus(firing).count:
        names = get(f"{sources.prom}/api/v1/label/alertname/values", **{"match[]": firing})["data"]
        problems.add(f"a service that is well fires {', '.join(names)}")
    jobs = sorted(one["labels"]["job"] for one in targets)
    if jobs != ["alertmanager", "boxoffice", "boxoffice", "prometheus"]:
        problems.add(f"the targets are {jobs}")
    if len(get(f"{sources.prom}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]) != 1:
        problems.add("Prometheus has not found the Alertmanager")
    return len(rules)


def check_that_it_can_fail(problems, sources):
    """A name that is wrong must be noticed: in a query, and behind a query's own zero."""
    for query, ask in (("max(boxoffice_queue_waitin)", sources.ask_prometheus),
                       ('SELECT mean("value") FROM "http_req_duratio" WHERE $timeFilter GROUP BY time($__interval) fill(0)', sources.ask_influxdb)):
        if ask(query).count:
            problems.add(f"a wrong name gives data, so that this test finds nothing: {query}")
    hidden = sources.ask_prometheus('sum(rate(boxoffice_paymnts_total[10s])) or on () 0 * count(up{job="boxoffice"} == 1)')
    if hidden.nonzero or not hidden.count:
        problems.add("a wrong name behind a zero is not seen as a zero")


def live(problems, work):
    sys.path.insert(0, str(DEPLOY / "grafana"))
    import dashboards as written  # noqa: E402, PLC0415  # The generator, which knows which queries may rest.
    influx_engine, influx = influxdb(work)
    # So few are let in that a line is seen by whoever looks once a second.
    service = Stage(instances=2, settings={"queue.admit_per_second": 10})
    engines, prom = prometheus(work, service.instances)
    wait_for_scrapes(prom)
    began = time.time()
    stop = threading.Event()
    beside = threading.Thread(target=others, args=(service, stop), daemon=True)
    beside.start()
    try:
        script = work / "dropping.js"
        script.write_text(DROPPING)
        k6(service, influx, K6_SCRIPTS / "smoke.js", "ITERATIONS=2")
        service.issue_tokens(60)
        k6(service, influx, K6_SCRIPTS / "scenario4.js", "VUS=60", "THINK=0.7")
        k6(service, influx, script)
        k6(service, influx, K6_SCRIPTS / "scenario1.js", "VUS=50", "DURATION=12s")
        # Seats that were sold meanwhile: lists are rendered anew.
        k6(service, influx, K6_SCRIPTS / "smoke.js", "ITERATIONS=2", "VUS=10")
    finally:
        stop.set()
        beside.join(60)
    # The last figures of k6 are a second old, and rules follow scrapes.
    time.sleep(4)
    if not service.alive():
        raise Failure(f"an instance died:\n{service.log_tail()}")
    sources = Sources(influx, prom, began, time.time())
    check_proxy(problems, work, service.instances)
    check_lines(problems, service)
    asked = check_panels(problems, sources, written.may_rest())
    rules = check_rules(problems, sources)
    check_that_it_can_fail(problems, sources)
    say(f"asked: {asked} queries of {len(boards())} dashboards, {rules} rules")
    service.close()
    for engine in (*engines, influx_engine):
        engine.stop()


def main():
    parser = argparse.ArgumentParser(prog="scripts/lib/dashboards.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--static", action="store_true", help="only what needs no server")
    parser.add_argument("--live", action="store_true", help="only what needs servers")
    options = parser.parse_args()
    problems = Problems()
    work = harness.make_temp_dir("boxoffice-dashboards-")
    if not options.live:
        check_files(problems, work)
        check_boards(problems)
        check_logql(problems)
    if not options.static:
        live(problems, work)
    if problems:
        say(f"deploy/ is not in order; problems: {len(problems)}")
        for problem in problems:
            say(f"- {problem.splitlines()[0]}")
        return 1
    say("deploy/ is in order")
    return 0


if __name__ == "__main__":
    harness.run_main(main)
