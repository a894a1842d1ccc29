#!/usr/bin/env python3
"""Holds deploy/scale-out against a real webhook, a real Alertmanager and a real haproxy.

  scripts/lib/scaleout.py      about one minute

Alerts come from amtool, the requests from Alertmanager with deploy/alertmanager/scale-out.yml, in which only addresses and
intervals are others. The command that starts an instance is a script that counts; the instances are small servers, which
haproxy with deploy/proxy/haproxy.cfg finds by their name, from a server of names that answers as Docker's does.
"""

import concurrent.futures
import contextlib
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402
from harness import Failure, say  # noqa: E402

DEPLOY = harness.ROOT / "deploy"
HOOK = DEPLOY / "scale-out"
COOLDOWN_S = 4
# Alertmanager tells at once; the rest is what a busy machine may take.
SOON_S = 20.0
COMMAND = """\
#!/bin/sh
case "$1" in
    count) cat "$INSTANCES/count" ;;
    to)
        if [ -e "$INSTANCES/broken" ]; then echo "no such image" >&2; exit 1; fi
        if [ -e "$INSTANCES/blind" ]; then exit 0; fi
        if [ -e "$INSTANCES/slow" ]; then sleep 2; fi
        echo "$2" >>"$INSTANCES/calls"
        echo "$2" >"$INSTANCES/count.new"
        mv "$INSTANCES/count.new" "$INSTANCES/count"
        ;;
esac
"""


def expect(condition, what):
    if not condition:
        raise Failure(what)


def wait_for(condition, what, timeout_s=SOON_S):
    """The seconds until `condition` holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise Failure(f"not within {timeout_s:.0f} s: {what() if callable(what) else what}")
        time.sleep(0.05)
    return time.monotonic() - began


class Hook:
    """webhook, as deploy/scale-out/serve starts it, with instances that are a number in a file."""

    def __init__(self, work, token_file, **settings):
        self.work, self.port = work, harness.free_port()
        self.token = token_file.read_text()
        self.instances = work / "instances"
        self.instances.mkdir(exist_ok=True)
        command = work / "command"
        command.write_text(COMMAND)
        command.chmod(0o755)
        self.log_path = work / "webhook.log"
        env = {key: value for key, value in os.environ.items() if not key.startswith(("SCALE_", "BOXOFFICE_"))}
        self.env = {**env, "INSTANCES": str(self.instances), "SCALE_OUT_COMMAND": str(command), "SCALE_OUT_STATE": str(work / "state"),
                    "SCALE_OUT_TOKEN_FILE": str(token_file), "SCALE_OUT_LISTEN": f"127.0.0.1:{self.port}",
                    "SCALE_OUT_MIN": "2", "SCALE_OUT_MAX": "4", "SCALE_OUT_COOLDOWN_S": str(COOLDOWN_S)}
        self.begin(2)
        self.start(**settings)

    def start(self, **settings):
        with open(self.log_path, "ab") as log:
            self.child = harness.spawn([HOOK / "serve"], env={**self.env, **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(lambda: harness.listens(self.port), lambda: f"webhook listens:\n{self.log()[-2000:]}")

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(10)

    def begin(self, count):
        """So many instances, of which none was changed yet."""
        shutil.rmtree(self.work / "state", ignore_errors=True)
        for name in ("broken", "blind", "slow", "calls"):
            (self.instances / name).unlink(missing_ok=True)
        (self.instances / "count").write_text(f"{count}\n")
        self.from_here = len(self.log()) if self.log_path.exists() else 0

    def log(self):
        return self.log_path.read_text(errors="replace")

    def said(self, text):
        """How often it has said that since the last beginning."""
        return self.log()[self.from_here:].count(text)

    def count(self):
        return int((self.instances / "count").read_text())

    def calls(self):
        path = self.instances / "calls"
        return path.read_text().split() if path.exists() else []

    def post(self, body, *, token=None, method="POST", scheme="Bearer"):
        """(status, answer) of a request by hand."""
        token = self.token if token is None else token
        headers = {"Content-Type": "application/json", **({"Authorization": f"{scheme} {token}"} if scheme else {})}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/hooks/scale-out", data=data if method == "POST" else None,
                                         headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def payload(status="firing", alert="BoxofficeCpuSaturated"):
    return {"version": "4", "status": status, "receiver": "scale-out", "commonLabels": {"alertname": alert, "scale": "out"}, "alerts": []}


def replaced(text, *pairs):
    for old, new in pairs:
        if old not in text:
            raise Failure(f"the file has no longer {old!r}; teach scripts/lib/scaleout.py")
        text = text.replace(old, new)
    return text


# ---------------------------------------------------------------- by hand

def check_requests(hook):
    for what, options in (("no token", {"scheme": None}), ("a wrong token", {"token": "x" * 64}), ("an empty token", {"token": ""}),
                          ("a part of the token", {"token": hook.token[:-1]}), ("another scheme", {"scheme": "Basic"})):
        status, _ = hook.post(payload(), **options)
        expect(status == 403, f"with {what} the answer is {status}, and not 403")
    status, _ = hook.post(payload(), method="GET")
    expect(status == 405, f"a GET is answered {status}")
    for what, body in (("no JSON", b"{"), ("no status", {}), ("another status", payload("pending"))):
        status, answer = hook.post(body)
        expect(status >= 400, f"a body with {what} is answered {status}: {answer}")
    expect(hook.calls() == [] and not (hook.work / "state").exists(), "a request that is refused does something")
    # What stands in an alert is no command, and no second line of the log.
    status, answer = hook.post(payload(alert="$(touch /tmp/x)\nscale-out: 1 -> 2"))
    expect(status == 200 and answer == "scale-out: 2 -> 3 instances: touchtmpxscaleout12 is firing\n", f"{status}: {answer!r}")
    say("ok: only with the token, only by POST, and only what Alertmanager sends")

    hook.begin(2)
    (hook.instances / "slow").touch()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = [future.result() for future in [pool.submit(hook.post, payload()) for _ in range(2)]]
    expect(all(status == 200 for status, _ in answers) and hook.calls() == ["3"], f"two at once: {answers}, {hook.calls()}")
    expect(any("another change is under way" in answer for _, answer in answers), f"two at once: {answers}")
    (hook.instances / "slow").unlink()
    for _ in range(10):
        status, answer = hook.post(payload())
        expect(status == 200 and "SCALE_OUT_COOLDOWN_S" in answer, f"in the cool-down: {status} {answer}")
    expect(hook.calls() == ["3"], f"ten more have started {hook.calls()}")
    hook.begin(4)
    status, answer = hook.post(payload())
    expect(status == 200 and "SCALE_OUT_MAX is 4" in answer and hook.calls() == [], f"at the maximum: {status} {answer}")
    hook.begin(2)
    (hook.instances / "blind").touch()
    status, answer = hook.post(payload())
    expect(status == 500 and "FAILED" in answer and "2 instances run" in answer, f"a command that does nothing: {status} {answer}")
    say("ok: two at once are one, ten in a row are one, the maximum is told, and so is a command that does nothing")


def check_serve(work, token_file):
    short = work / "short"
    short.write_text("")
    for what, env in (("an empty token", {"SCALE_OUT_TOKEN_FILE": str(short)}), ("no token", {"SCALE_OUT_TOKEN_FILE": str(work / "none")}),
                      ("no port", {"SCALE_OUT_TOKEN_FILE": str(token_file), "SCALE_OUT_LISTEN": "127.0.0.1"})):
        done = subprocess.run([HOOK / "serve"], env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=10, check=False)
        expect(done.returncode == 1 and "deploy/scale-out/serve:" in done.stdout, f"serve with {what}: {done.returncode} {done.stdout}")
    say("ok: serve does not start with a token that lets everybody in")


def check_compose(work):
    """The commands for compose, as far as that goes without Docker: it is asked, and its absence is told."""
    copy = work / "compose" / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns(".env", ".secrets"))
    subprocess.run([copy / "secrets"], check=True, stderr=subprocess.DEVNULL)
    programs = work / "programs"
    programs.mkdir()
    docker = programs / "docker"
    docker.write_text(f'#!/bin/sh\nshift\nexec "{harness.tool("docker-compose")}" "$@"\n')
    docker.chmod(0o755)
    # Never the Docker of this machine.
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "DOCKER_HOST": f"unix://{work}/no-docker"}
    for arguments in (["count"], ["to", "3"]):
        done = subprocess.run([copy / "scale-out" / "compose", *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, check=False)
        expect(done.returncode != 0 and "connect" in done.stdout and "unknown" not in done.stdout,
               f"deploy/scale-out/compose {' '.join(arguments)} without Docker: {done.returncode} {done.stdout}")
    state = {"SCALE_OUT_STATE": str(work / "compose-state")}
    done = subprocess.run([copy / "scale-out" / "scale-out", "firing"], env={**env, **state}, stdout=subprocess.PIPE, text=True, check=False)
    expect(done.returncode == 1 and done.stdout.startswith("scale-out: FAILED:"), f"without Docker: {done.returncode} {done.stdout}")
    say("ok: compose knows the commands that it is given, and says loudly that there is no Docker")


# ---------------------------------------------------------------- with Alertmanager

class Alerts:
    def __init__(self, work, hook, token_file):
        port = harness.free_port()
        self.url = f"http://127.0.0.1:{port}"
        text = (DEPLOY / "alertmanager" / "scale-out.yml").read_text()
        expect(set((DEPLOY / "alertmanager" / "alertmanager.yml").read_text().splitlines()) <= set(text.splitlines()),
               "deploy/alertmanager/scale-out.yml lacks lines that alertmanager.yml has")
        text = replaced(text, ("host.docker.internal:9095", f"127.0.0.1:{hook.port}"), ("/run/secrets/scale_out_token", str(token_file)),
                        ("group_interval: 15s", "group_interval: 1s"), ("repeat_interval: 1m", "repeat_interval: 2s"))
        configuration = work / "alertmanager.yml"
        configuration.write_text(text)
        self.engine = harness.Engine(
            "alertmanager", [harness.program("prometheus-alertmanager", "prometheus-alertmanager"), f"--config.file={configuration}",
                             f"--storage.path={work / 'alerts'}", f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="],
            work / "alertmanager.log", lambda: harness.listens(port))
        self.amtool = harness.program("amtool", "prometheus-alertmanager")

    def add(self, *labels, over=False):
        """An alert that fires, or one that is over."""
        times = [f"--end={time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}"] if over else []
        subprocess.run([self.amtool, f"--alertmanager.url={self.url}", "alert", "add", *times, *labels], check=True)

    def failed(self):
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines()
                   if line.startswith("alertmanager_notification_requests_failed_total") and 'integration="webhook"' in line)


SATURATED = ("alertname=BoxofficeCpuSaturated", "severity=warning", "scale=out", "instance=a:8080")


def check_alerts(hook, alerts):
    hook.begin(2)
    alerts.add("alertname=BoxofficeSlow", "severity=warning")
    alerts.add(*SATURATED)
    took = wait_for(lambda: hook.count() == 3, lambda: f"one more instance:\n{hook.log()[-2000:]}")
    say(f"an instance more {took:.1f} s after the alert")
    wait_for(lambda: hook.said("SCALE_OUT_COOLDOWN_S is"), "the cool-down is told")
    # It goes on, so another one is started when the cool-down is over, and none beyond the maximum.
    wait_for(lambda: hook.count() == 4, "a second one after the cool-down")
    wait_for(lambda: hook.said("nothing done: 4 instances run, and SCALE_OUT_MAX is 4"), "the maximum is told")
    expect(hook.calls() == ["3", "4"], f"it was told to run {hook.calls()}")
    expect(not hook.said("BoxofficeSlow"), "an alert that is none of saturation has come to the hook")
    alerts.add(*SATURATED, over=True)
    wait_for(lambda: hook.said("and SCALE_IN is not true"), "the end of the alert is told")
    expect(hook.calls() == ["3", "4"], "the end of the alert has stopped an instance")
    say("ok: one more at a time, up to the maximum, and nothing stops by itself")

    hook.begin(2)
    (hook.instances / "broken").touch()
    failed = alerts.failed()
    alerts.add(*SATURATED)
    wait_for(lambda: hook.said("scale-out: FAILED:") and hook.said("no such image"), "the failure is told, with its cause")
    wait_for(lambda: alerts.failed() > failed, "Alertmanager knows of the failure")
    (hook.instances / "broken").unlink()
    wait_for(lambda: hook.count() == 3, "once it is mended, the instance is started without being asked for")
    alerts.add(*SATURATED, over=True)
    say("ok: a failure is told to the log and to Alertmanager, which asks again")

    wait_for(lambda: hook.said("and SCALE_IN is not true"), "the end of the alert is told")
    hook.stop()
    hook.begin(3)
    hook.start(SCALE_IN="true")
    alerts.add(*SATURATED)
    wait_for(lambda: hook.count() == 4, "one more with SCALE_IN")
    alerts.add(*SATURATED, over=True)
    wait_for(lambda: hook.count() == 3, "one fewer after the cool-down, though the alert ended in it")
    expect(hook.said("SCALE_OUT_COOLDOWN_S is"), "it was stopped in the cool-down")
    hook.begin(2)
    status, answer = hook.post(payload("resolved"))
    expect(status == 200 and "SCALE_OUT_MIN is 2" in answer and hook.calls() == [], f"at the minimum: {status} {answer}")
    say("ok: with SCALE_IN one is stopped, after the cool-down and not below the minimum")


# ---------------------------------------------------------------- the proxy finds what was started

def names(addresses):
    """A server of names on a port of its own, which answers as Docker's: an address for each instance, none of IPv6."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def answer():
        while True:
            query, peer = server.recvfrom(4096)
            end = query.index(b"\0", 12) + 5
            kind = struct.unpack("!H", query[end - 4:end - 2])[0]
            found = addresses() if kind == 1 else []
            records = b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(address) for address in found)
            server.sendto(query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(found), 0, 0) + query[12:end] + records, peer)

    threading.Thread(target=answer, daemon=True).start()
    return server.getsockname()[1]


class Instance(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):  # noqa: N802
        body = self.server.server_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        # A check hangs up when it has seen the status.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def check_proxy(work, hook):
    port, watch, behind = harness.free_port(), harness.free_port(), harness.free_port()
    running = {}

    def addresses():
        """Those of the instances that run; one that was not there is started."""
        wanted = [f"127.0.0.{number + 2}" for number in range(hook.count())]
        for address in wanted:
            if address not in running:
                running[address] = http.server.ThreadingHTTPServer((address, behind), Instance)
                threading.Thread(target=running[address].serve_forever, daemon=True).start()
        return wanted

    hook.begin(2)
    addresses()
    text = replaced((DEPLOY / "proxy" / "haproxy.cfg").read_text(), ("127.0.0.11:53", f"127.0.0.1:{names(addresses)}"),
                    ("maxconn 20000", "maxconn 2000"), ("bind :8080", f"bind 127.0.0.1:{port}"), ("bind :8405", f"bind 127.0.0.1:{watch}"),
                    ("boxoffice:8080", f"boxoffice.invalid:{behind}"))
    configuration = work / "haproxy.cfg"
    configuration.write_text(text)
    engine = harness.Engine("haproxy", [harness.program("haproxy", "haproxy"), "-db", "-f", configuration], work / "haproxy.log",
                            lambda: harness.listens(port))
    answered, failed = set(), []

    def ask():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/concerts", timeout=5) as answer:
                answered.add(answer.read().decode())
        except OSError as error:
            failed.append(str(error))
        return answered

    wait_for(lambda: len(ask()) == 2, "the proxy finds two instances")
    failed.clear()
    hook.post(payload())
    took = wait_for(lambda: "127.0.0.4" in ask(), "the proxy finds the instance that was started")
    expect(not failed, f"requests failed while an instance was added: {failed}")
    engine.stop()
    for server in running.values():
        server.shutdown()
    say(f"ok: the proxy gives the instance requests {took:.1f} s after it was started, and none failed")


def main():
    work = harness.make_temp_dir("boxoffice-scale-out-")
    expect(shutil.which("webhook"), "webhook is missing; `scripts/tools webhook` gets it")
    token_file = work / "token"
    token_file.write_text(os.urandom(32).hex())
    check_serve(work, token_file)
    check_compose(work)
    hook = Hook(work, token_file)
    check_requests(hook)
    check_proxy(work, hook)
    alerts = Alerts(work, hook, token_file)
    check_alerts(hook, alerts)
    expect(hook.token not in hook.log(), "the token is in the log")
    alerts.engine.stop()
    hook.stop()
    say("deploy/scale-out is in order")
    return 0


if __name__ == "__main__":
    harness.run_main(main)
