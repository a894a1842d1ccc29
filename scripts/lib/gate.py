#!/usr/bin/env python3
"""Runs the examples of deploy/gate for real: nginx, Caddy and haproxy, each before a plain site and a boxoffice of its
own, with a fan in a browser who comes, waits, is let in, returns, is out after the end, and tries a copied cookie; and the
verifier in JavaScript against the real service.

  scripts/lib/gate.py [--binary FILE] [nginx] [caddy] [haproxy] [verifier]
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
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

GATE = harness.ROOT / "deploy" / "gate"
# Short enough to wait for the end, long enough to see all else before it.
ACTIVE_S = 8
# A fan of each kind is done in about fifteen seconds.
TIMEOUT_S = 60
FILES = {"nginx": ["nginx.conf"], "caddy": ["Caddyfile"], "haproxy": ["haproxy.cfg", "gate.lua"]}


def command_of(proxy, directory):
    """How a proxy is started in the foreground, with all that it writes in the directory."""
    program = harness.tool(proxy)
    if proxy == "nginx":
        for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
            (directory / name).mkdir()
        paths = "".join(f"{name}_temp_path {directory}/{name}; " for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
        # What an installed nginx says in a configuration of its own.
        config = directory / "nginx.conf"
        text = config.read_text().replace(
            "http {", f"http {{ access_log off; client_body_temp_path {directory}/body; {paths}", 1)
        config.write_text(text)
        return [program, "-p", directory, "-e", directory / "error.log", "-c", config,
                "-g", f"daemon off; pid {directory}/pid; worker_processes 1;"]
    if proxy == "caddy":
        return [program, "run", "--adapter", "caddyfile", "--config", directory / "Caddyfile"]
    return [program, "-db", "-f", directory / "haproxy.cfg"]


def wait_for(url, child, log):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if child.poll() is not None:
            break
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=2).close()
            return
        time.sleep(0.05)
    raise Failure(f"nothing answers at {url}:\n{log.read_text(errors='replace')[-2000:]}")


class Stand:
    """A boxoffice, a site and a proxy before both."""

    def __init__(self, work, proxy, build):
        self.directory = work / proxy
        self.directory.mkdir()
        self.children = []
        settings = {"queue.active_ttl_seconds": ACTIVE_S, "queue.claim_window_seconds": ACTIVE_S}
        self.server = harness.Server(self.directory, settings=settings, label=f"boxoffice-{proxy}", build=build)
        site, front = harness.free_port(), harness.free_port()
        self.url = f"http://127.0.0.1:{front}"
        files = [sys.executable, "-m", "http.server", str(site), "--bind", "127.0.0.1", "--directory", GATE / "site"]
        self.start("site", files, f"http://127.0.0.1:{site}/")
        # The configuration is the one that is shown, but for the ports.
        for name in FILES[proxy]:
            text = (GATE / name).read_text()
            for port, here in (("8080", self.server.port), ("8082", site), ("8081", front)):
                text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{here}")
            for shown, here in (("listen 8081", f"listen 127.0.0.1:{front}"), ("bind :8081", f"bind 127.0.0.1:{front}"),
                                (":8081 {", f"http://127.0.0.1:{front} {{\n\tbind 127.0.0.1")):
                text = text.replace(shown, here)
            (self.directory / name).write_text(text)
        self.start(proxy, command_of(proxy, self.directory), f"{self.url}/wait/main")

    def start(self, name, command, url):
        log = self.directory / f"{name}.log"
        env = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.directory), "XDG_DATA_HOME": str(self.directory),
               "XDG_CONFIG_HOME": str(self.directory)}
        with open(log, "wb") as out:
            child = harness.spawn(command, cwd=self.directory, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.children.append(child)
        wait_for(url, child, log)

    def refuses_without_service(self):
        """Nobody passes while boxoffice is away."""
        with contextlib.suppress(urllib.error.HTTPError):
            with urllib.request.urlopen(f"{self.url}/index.html", timeout=15) as answer:
                raise Failure(f"the site is open while boxoffice is away: {answer.status}")

    def stop(self):
        for child in reversed(self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(5)
                except subprocess.TimeoutExpired:
                    harness.kill(child)


def run_node(server, *arguments):
    env = {**os.environ, "BOXOFFICE_TEST_ADMIN_TOKEN": server.admin_token(), "NODE_NO_WARNINGS": "1",
           "CHROMIUM": harness.tool("chromium")}
    script = pathlib.Path(__file__).resolve().parent / "gate.mjs"
    child = harness.spawn([harness.tool("node"), script, *arguments, server.url], env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = child.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        harness.kill(child)
        raise Failure(f"not done after {TIMEOUT_S} s") from None
    if child.returncode != 0:
        raise Failure(f"failed:\n{output[-4000:]}")


def end(server):
    clean, output = server.audit()
    code = server.stop()
    if code != 0 or not clean:
        raise Failure(f"the server ended with code {code}; its audit: {output[-1000:]}\n{server.log_tail()}")


def behind(work, proxy, build):
    stand = Stand(work, proxy, build)
    try:
        run_node(stand.server, "fan", stand.url)
        end(stand.server)
        stand.refuses_without_service()
    except Failure:
        for log in sorted(stand.directory.glob("*.log")):
            say(f"--- the end of {log.name} of {proxy}:\n{log.read_text(errors='replace')[-1500:]}")
        raise
    finally:
        stand.stop()
        stand.server.stop()


def verifier(work, _name, build):
    server = harness.Server(work, settings={"queue.active_ttl_seconds": 3_000}, label="boxoffice-verifier", build=build)
    server.admin("POST", "/admin/v1/queues", expect=201, body={"queue": "vip"})
    try:
        run_node(server, "verifier")
        end(server)
    finally:
        server.stop()


def main():
    parser = argparse.ArgumentParser(prog="scripts/lib/gate.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, metavar="FILE", help="the boxoffice to run [default: the release build]")
    parser.add_argument("only", nargs="*", choices=[[], *FILES, "verifier"], metavar="WHAT")
    options = parser.parse_args()
    build = (options.binary or harness.binary("boxoffice")).resolve()
    work = harness.make_temp_dir()
    # nginx gives its workers another user, who is to see the directories.
    shutil.chown(work, os.getuid())
    work.chmod(0o755)
    results = {}

    def run(name):
        began = time.monotonic()
        try:
            (verifier if name == "verifier" else behind)(work, name, build)
            results[name] = None
            say(f"{name}: ok, {time.monotonic() - began:.0f} s")
        except Exception as error:  # noqa: BLE001 - whatever it was, the others are to be stopped in order
            results[name] = error
            say(f"{name}: {error}")

    names = options.only or [*FILES, "verifier"]
    for tool in {"node", "chromium", "playwright", *(name for name in names if name in FILES)}:
        harness.tool(tool)
    # Beside one another: each mostly waits.
    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [name for name in names if results.get(name, True) is not None]
    if failed:
        raise Failure(f"failed: {', '.join(failed)}")
    return 0


if __name__ == "__main__":
    harness.run_main(main)
