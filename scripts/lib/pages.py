#!/usr/bin/env python3
"""Checks the types of the pages' scripts, then walks through the pages in a browser, beside a fresh service that is stopped
and started on the way, and beside one at which people sign in, at a certified OpenID Connect provider. At the end the books
must be in order.

  scripts/lib/pages.py [--binary FILE] [--out DIR] [PART-OF-A-NAME...]

--out keeps the pictures of all screens there. Names choose some of the tests in pages.mjs. All of them are walked in four lanes
at once, each beside services of its own, but for those that measure times, which come after.
"""

import argparse
import http.server
import os
import pathlib
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import harness  # noqa: E402
from harness import Failure, say  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
# Walks wait most of the time.
LANES = 4
LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 40"><script>alert(1)</script>
<rect width="120" height="40" rx="8" fill="#ffd400"/><circle cx="20" cy="20" r="12" fill="#c00"/></svg>"""
# What an organiser may say of themselves, at its worst.
ORGANISER = {"pages.organiser": "<script>alert(1)</script>\U0001F3B5 & \"Söhne\" 공연", "pages.colour": "#ffd400",
             "pages.notice_en": "<img src=x onerror=alert(1)> Doors open at six. " + "W" * 200,
             "pages.notice_ko": "입장은 여섯 시에 시작합니다. " + "공연" * 100, "gate.sites": "https://shop.example,http://[::1]:9999"}


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/lib/pages.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=lambda name: pathlib.Path(name).resolve(), help="the program; the release build of this tree where it is left out")
    parser.add_argument("--out", type=pathlib.Path, help="where pictures go")
    parser.add_argument("--lane", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*")
    return parser.parse_args()


def start_issuer(redirect):
    """A provider at which people sign in, and are sent back to `redirect`; with its URL."""
    child = harness.spawn([harness.tool("node"), HERE / "issuer.mjs", harness.tool("oidc-provider"), redirect],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    url = child.stdout.readline().strip()
    if not url:
        raise Failure("the provider does not start")
    return child, url


class Switch(http.server.BaseHTTPRequestHandler):
    """Stops the service and starts it again, for a test that runs in another program."""

    def do_POST(self):
        turn = {"/stop": self.server.stop_service, "/start": self.server.start_service}[self.path]
        turn()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


def all_lanes(options, out):
    """Walks through everything. Returns the code of the first lane that failed."""
    def lane(name):
        command = [sys.executable, __file__, "--lane", name, "--out", out]
        return harness.spawn(command + (["--binary", options.binary] if options.binary else []), stdin=subprocess.DEVNULL)

    code = 0
    for together in [[f"{number}/{LANES}" for number in range(LANES)], ["timed"]]:
        children = [lane(name) for name in together]
        for child in children:
            code = child.wait() or code
    return code


def main():
    options = arguments()
    if options.lane:
        return walk(options, options.out)
    types = subprocess.run([harness.tool("typescript"), "-p", HERE / "pages.tsconfig.json"], check=False)
    if types.returncode != 0:
        raise Failure("the types of the pages' scripts do not fit")
    harness.tool("playwright")
    out = options.out or harness.make_temp_dir() / "screens"
    return walk(options, out) if options.names else all_lanes(options, out)


def walk(options, out):
    """Walks through the tests of a lane, or those that are named."""
    work = harness.make_temp_dir()

    def start(port=None):
        return harness.Server(work, port=port, build=options.binary, settings={"sales.no_orphans": "true"})

    service = [start()]
    # Another one, of somebody with a name, whose pages lead back to sites.
    there = work / "organiser"
    there.mkdir()
    logo = there / "logo.svg"
    logo.write_text(LOGO)
    organised = harness.Server(there, settings={**ORGANISER, "pages.logo": logo}, build=options.binary)
    # Another one, where operators have a listener of their own.
    apart = f"127.0.0.1:{harness.free_port()}"
    second = harness.Server(work, label="apart", build=options.binary, settings={"admin.listen": apart})
    # Of one thread, which stays: a service ends with the thread that started it.
    switch = http.server.HTTPServer(("127.0.0.1", 0), Switch)

    def stop_service():
        ended = service[0].stop()
        if ended != 0:
            raise Failure(f"the service ended with code {ended} on SIGTERM:\n{service[0].log_tail(40)}")

    def start_service():
        service[0] = start(service[0].port)

    switch.stop_service, switch.start_service = stop_service, start_service
    threading.Thread(target=switch.serve_forever, daemon=True).start()
    port = harness.free_port()
    issuer, issuer_url = start_issuer(f"http://127.0.0.1:{port}/auth/callback")
    known = harness.Server(work, port=port, build=options.binary, label="known", settings={
        "auth.mode": "jwt", "auth.issuer": issuer_url, "auth.audience": "boxoffice", "auth.client_id": "pages",
        "auth.client_secret": "pages", "auth.public_url": f"http://127.0.0.1:{port}", "auth.scopes": "openid,profile"})
    control = f"curl --silent --show-error --fail --request POST http://127.0.0.1:{switch.server_port}"
    env = {**os.environ, "BOXOFFICE_TEST_LANE": options.lane or "", "BOXOFFICE_TEST_ADMIN_TOKEN": service[0].admin_token(), "CHROMIUM": harness.tool("chromium"),
           "BOXOFFICE_TEST_ORGANISED": organised.url, "BOXOFFICE_TEST_STOP": f"{control}/stop", "BOXOFFICE_TEST_START": f"{control}/start",
           "BOXOFFICE_TEST_APART_URL": second.url, "BOXOFFICE_TEST_APART_ADMIN_URL": f"http://{apart}",
           "BOXOFFICE_TEST_APART_TOKEN": second.admin_token(), "BOXOFFICE_TEST_ISSUER": issuer_url,
           "BOXOFFICE_TEST_KNOWN": known.url, "BOXOFFICE_TEST_KNOWN_ADMIN_TOKEN": known.admin_token()}
    child = harness.spawn([harness.tool("node"), HERE / "pages.mjs", service[0].url, out, *options.names], env=env,
                          stdin=subprocess.DEVNULL)
    code = child.wait()
    for one in [service[0], known]:
        if not one.alive():
            raise Failure(f"the service died:\n{one.log_tail(40)}")
        if code != 0:
            say(f"the end of the log of {one.label}:\n{one.log_tail()}")
    stop_service()
    for one in [organised, second, known]:
        one.stop()
    issuer.stdin.close()
    issuer.wait()
    for one in [service[0], known]:
        clean, output = one.audit()
        if not clean:
            raise Failure(f"the audit is not clean:\n{output}")
    return code


if __name__ == "__main__":
    harness.run_main(main)
