"""The load of the fault drills, which is at the same time their witness.

Fans join, poll, and buy at a modest rate, most of them through the proxy, some straight at single
instances. Every answer that acknowledged something is remembered, and afterwards held against the
service, the database and the events in Kafka. Standard library only.
"""

import asyncio
import base64
import collections
import heapq
import json
import random
import threading
import time

TIMEOUT_S = 10.0
HEADERS_MAX = 65536
# docs: an admission is known to all instances within about 0.2 s, 0.5 s while Redis is away. More than
# that, because the machine is shared; the report says how long it really took.
LAG_S = 2.0
CHARGE = 10_000
PRICE = 1_000
FIRST_USER = 1_000_000
KINDS = ("join", "poll", "leave", "seats", "reserve", "pay", "cancel", "charge", "balance")
# 2xx; 409, 402 or 403; 503 and 504 of the service; any other 5xx of it; 4xx that should not be;
# 5xx that the proxy made; no answer.
OUTCOMES = ("ok", "refused", "503", "504", "5xx", "4xx", "proxy", "none")


class NoAnswer(Exception):
    """The connection failed or the time was over; what was asked may have been done."""

    def __init__(self, reason, sent):
        super().__init__(reason)
        self.sent = sent


class Answer:
    __slots__ = ("status", "headers", "body", "sent_at", "at")

    def __init__(self, status, headers, body, sent_at):
        self.status, self.headers, self.body, self.sent_at = status, headers, body, sent_at
        self.at = time.monotonic()

    def doc(self):
        return json.loads(self.body) if self.body else {}

    def code(self):
        try:
            return json.loads(self.body).get("code", "")
        except (ValueError, AttributeError):
            return ""

    @property
    def instance(self):
        return self.headers.get("x-instance", "")


class Client:
    """Kept connections to several servers of 127.0.0.1."""

    def __init__(self):
        self.idle = collections.defaultdict(list)

    async def request(self, port, method, path, *, body=None, token=None, key=None, timeout_s=TIMEOUT_S):
        lines = [f"{method} {path} HTTP/1.1", "Host: boxoffice"]
        if token is not None:
            lines.append(f"QUEUE-TOKEN: {token}")
        if key is not None:
            lines.append(f"Idempotency-Key: {key}")
        payload = b""
        if body is not None:
            payload = json.dumps(body).encode()
            lines.append("Content-Type: application/json")
        if method != "GET":
            lines.append(f"Content-Length: {len(payload)}")
        data = ("\r\n".join(lines) + "\r\n\r\n").encode() + payload
        sent_at, sent, writer = time.monotonic(), False, None
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await self.connection(port)
                sent = True
                writer.write(data)
                answer, keep = await self.read(reader, sent_at)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            # TimeoutError is an OSError.
            if writer is not None:
                writer.close()
            reason = "timeout" if isinstance(error, TimeoutError) else type(error).__name__
            raise NoAnswer(reason, sent) from None
        if keep:
            self.idle[port].append((reader, writer))
        else:
            writer.close()
        return answer

    async def connection(self, port):
        pool = self.idle[port]
        while pool:
            reader, writer = pool.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", port, limit=HEADERS_MAX)

    async def read(self, reader, sent_at):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        keep = headers.get("connection", "").lower() != "close"
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        elif status == 204 or status == 304:
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readuntil(b"\r\n")
        else:
            body, keep = await reader.read(), False
        return Answer(status, headers, body, sent_at), keep

    def close(self):
        for pool in self.idle.values():
            for _, writer in pool:
                writer.close()
        self.idle.clear()


class Fan:
    """Who has joined, with all that was said to them."""

    __slots__ = ("user", "token", "seq", "sent_at", "at", "seen", "low", "state", "spent", "active_at")

    def __init__(self, user, token, seq, sent_at, at, number):
        self.user, self.token, self.seq, self.sent_at, self.at = user, token, seq, sent_at, at
        # The last number at each instance, with the time when it was asked for.
        self.seen = {}
        # (when it was heard, number): falling numbers.
        self.low = [(at, number)]
        self.state, self.active_at = "waiting", None
        # Whether the ticket may be over: it left, or tried to pay.
        self.spent = False


class Effect:
    """One thing that was asked for, perhaps several times with one key."""

    __slots__ = ("kind", "user", "what", "verdict", "status", "doc", "attempts", "unknown", "round", "at", "key", "log")

    def __init__(self, kind, user, what, key, number):
        self.kind, self.user, self.what, self.key, self.round = kind, user, what, key, number
        # ok: acknowledged. refused: a rule forbids it. nothing: every answer said that nothing was done.
        # unknown: it may be either.
        self.verdict, self.status, self.doc = "unknown", 0, None
        self.attempts, self.unknown = 0, 0
        self.log = []


def sequence_number(token):
    claims = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["seq"]


class Load:
    """The fans, on a thread of their own."""

    def __init__(self, front, instances, *, rates=None):
        self.front = front
        # Label to port, of those that are asked directly; who is down is taken out for the time.
        self.instances = dict(instances)
        self.down = set()
        self.rates = {"join": 60.0, "poll": 130.0, "buy": 22.0, "browse": 8.0, "leave": 2.0, **(rates or {})}
        self.random = random.Random(1)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run_loop, name="load", daemon=True)
        self.thread.start()
        self.client = Client()
        self.fans, self.ready, self.samples = [], collections.deque(), []
        self.effects, self.findings = [], []
        self.reservations = {}
        self.abandoned = collections.deque()
        self.contested = set()
        self.next_user, self.next_key = FIRST_USER, 0
        self.round, self.running, self.closing = 0, None, True
        self.open = set()
        self.seats, self.concert, self.session = collections.deque(), None, None
        self.lagged, self.late_tickets = [], []

    def run_loop(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def call(self, coroutine, timeout_s=120):
        """Runs a coroutine on the load's thread and waits for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout_s)

    def stop_thread(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)

    def finding(self, kind, text):
        self.findings.append({"round": self.round, "kind": kind, "text": text, "at": time.monotonic()})

    # ---- one request

    def target(self, direct_share=0.25):
        up = [label for label in self.instances if label not in self.down]
        if up and self.random.random() < direct_share:
            label = self.random.choice(up)
            return label, self.instances[label]
        return "haproxy", self.front

    async def ask(self, kind, method, path, *, via=None, **options):
        """One request, counted; raises NoAnswer."""
        label, port = via or self.target()
        began = time.monotonic()
        try:
            answer = await self.client.request(port, method, path, **options)
        except NoAnswer as error:
            self.samples.append((began, time.monotonic(), kind, "none", label, 0, str(error)))
            raise
        if label != "haproxy":
            answer.headers["x-instance"] = label
        outcome, code = self.classify(answer)
        self.samples.append((began, answer.at, kind, outcome, label, answer.status, code))
        if outcome in ("5xx", "4xx"):
            self.finding(outcome, f"{method} {path} at {label}: {answer.status} {answer.body[:300]!r}")
        if outcome == "503" and "retry-after" not in answer.headers:
            self.finding("5xx", f"{method} {path} at {label}: 503 without Retry-After: {answer.body[:200]!r}")
        return answer

    @staticmethod
    def classify(answer):
        status = answer.status
        if status < 400:
            return "ok", ""
        ours = answer.headers.get("content-type", "").startswith("application/problem+json")
        if status >= 500:
            if not ours:
                return "proxy", str(status)
            code = answer.code()
            return (str(status) if status in (503, 504) else "5xx"), code
        return ("refused" if status in (402, 403, 409) else "4xx"), answer.code()

    # ---- joining and polling

    async def join(self):
        user = self.next_user
        self.next_user += 1
        answer = await self.ask("join", "POST", "/api/v1/waiting-queues", body={"userId": user})
        if answer.status != 201:
            return
        doc = answer.doc()
        fan = Fan(user, doc["token"], sequence_number(doc["token"]), answer.sent_at, answer.at, doc["waitingNumber"])
        self.note(fan, doc, answer)
        self.fans.append(fan)

    async def poll(self, fan, via=None):
        answer = await self.ask("poll", "GET", "/api/v1/waiting-queues", token=fan.token, via=via)
        if answer.status == 401:
            self.finding("place lost", f"number {fan.seq}: 401 at {answer.instance}")
        if answer.status == 200:
            self.note(fan, answer.doc(), answer)
        return answer

    def note(self, fan, doc, answer):
        """What a fan was told of the place, held against what was said before."""
        status, number = doc["status"], doc["waitingNumber"]
        if status == "EXPIRED":
            if not fan.spent:
                self.finding("place lost", f"number {fan.seq} is EXPIRED at {answer.instance} and has neither left nor paid")
            fan.state = "over"
            return
        if status == "ACTIVATED":
            number = 0
        # At one instance never, whatever happens; it must have heard the other answer before it was asked.
        before = fan.seen.get(answer.instance)
        if before is not None and before[1] < answer.sent_at and number > before[0]:
            self.finding("number grown", f"number {fan.seq} at {answer.instance}: {before[0]} then {number}, "
                                         f"{answer.sent_at - before[1]:.3f} s apart")
        fan.seen[answer.instance] = (number, answer.at)
        # At another instance only for as long as news take.
        for heard_at, low in reversed(fan.low):
            if heard_at < answer.sent_at and low < number:
                age = answer.sent_at - heard_at
                self.lagged.append((self.round, age, number - low))
                older = [l for at, l in fan.low if at < answer.sent_at - LAG_S]
                if older and older[-1] < number:
                    self.finding("number grown", f"number {fan.seq}: {older[-1]} was told more than {LAG_S:.0f} s before "
                                                 f"{answer.instance} says {number}; state {fan.state}")
                break
        if number < fan.low[-1][1]:
            fan.low.append((answer.at, number))
            if len(fan.low) > 50:
                del fan.low[1:20]
        if status == "ACTIVATED" and fan.state == "waiting":
            fan.state, fan.active_at = "active", answer.at
            self.ready.append(fan)

    def some_fan(self):
        """Somebody to poll: mostly those whose turn is near, else anybody who ever joined."""
        if not self.fans:
            return None
        if self.random.random() < 0.6:
            waiting = [fan for fan in self.fans[-4000:] if fan.state == "waiting"]
            if waiting:
                return waiting[min(len(waiting) - 1, int(self.random.expovariate(1 / 60)))]
        return self.random.choice(self.fans)

    async def leave(self):
        fan = next((fan for fan in reversed(self.fans[-300:]) if fan.state == "waiting"), None)
        if fan is None:
            return
        fan.spent, fan.state = True, "leaving"
        answer = await self.ask("leave", "DELETE", "/api/v1/waiting-queues", token=fan.token)
        if answer.status == 204:
            fan.state = "left"

    async def browse(self):
        if self.ready:
            path = f"/api/v1/concerts/{self.concert}/sessions/{self.session}/seats"
            await self.ask("seats", "GET", path, token=self.ready[0].token)

    # ---- buying

    def key(self):
        self.next_key += 1
        return f"drill-{self.next_key}"

    async def effect(self, kind, user, what, method, path, body, *, token=None, via=None, keyed=True, patient=None):
        """Asks for an effect, again and again with one key where the outcome is open, and remembers it."""
        effect = Effect(kind, user, what, self.key() if keyed else None, self.round)
        self.effects.append(effect)
        if patient is None:
            patient = keyed and self.random.random() < 0.7
        give_up = time.monotonic() + 45
        while True:
            effect.attempts += 1
            pause = 1.0
            try:
                answer = await self.ask(kind, method, path, body=body, token=token, key=effect.key, via=via)
            except NoAnswer as error:
                effect.unknown += error.sent
                effect.log.append(str(error))
            else:
                effect.status, effect.at = answer.status, answer.at
                effect.log.append(f"{answer.status} {answer.instance} {answer.at:.2f}")
                if answer.status < 300:
                    effect.verdict, effect.doc = "ok", answer.doc()
                    return effect
                if answer.status in (502, 504) or (answer.status == 503 and "retry-after" not in answer.headers):
                    # A 503 that the proxy made: it found no instance, so nothing was done.
                    effect.unknown += answer.status != 503
                elif answer.status == 503:
                    pause = float(answer.headers.get("retry-after", 1))
                elif answer.code() != "IDEMPOTENCY_IN_FLIGHT":
                    effect.verdict = "unknown" if effect.unknown else "refused"
                    effect.doc = answer.doc()
                    return effect
                else:
                    effect.unknown += 1
            if not patient or self.closing and effect.attempts > 3 or time.monotonic() > give_up:
                effect.verdict = "unknown" if effect.unknown else "nothing"
                return effect
            await asyncio.sleep(pause * self.random.uniform(0.8, 1.2))

    def reserve(self, fan, seats, **options):
        return self.effect("reserve", fan.user, (self.session, tuple(sorted(seats))), "POST",
                           f"/api/v1/concerts/{self.concert}/sessions/{self.session}/reservations",
                           {"userId": fan.user, "seatIds": list(seats)}, token=fan.token, **options)

    def pay(self, fan, reservation, **options):
        fan.spent = True
        return self.effect("pay", fan.user, reservation, "POST", "/api/v1/payments",
                           {"userId": fan.user, "reservationId": reservation}, token=fan.token, **options)

    async def buy(self):
        if not self.ready or len(self.seats) < 4:
            return
        fan = self.ready.popleft()
        charge = await self.effect("charge", fan.user, CHARGE, "PATCH", f"/api/v1/users/{fan.user}/points/charge",
                                   {"amount": CHARGE})
        if self.random.random() < 0.2:
            answer = await self.ask("balance", "GET", f"/api/v1/users/{fan.user}/points")
            if answer.status == 200 and charge.verdict == "ok" and answer.doc()["totalAmount"] != CHARGE:
                self.finding("points", f"user {fan.user} has {answer.doc()['totalAmount']} after one charge of {CHARGE}")
        dice = self.random.random()
        if dice < 0.15 and self.ready:
            await self.race(fan, self.ready.popleft())
            return
        if dice < 0.22 and self.abandoned and self.abandoned[0][0] < time.monotonic():
            seats = list(self.abandoned.popleft()[1])
            self.contested.update(seats)
        else:
            seats = [self.seats.popleft() for _ in range(self.random.choice((1, 1, 2)))]
        held = await self.reserve(fan, seats, keyed=self.random.random() < 0.85)
        self.judge_refusal(fan, held, seats)
        await self.decide(fan, held)

    def judge_refusal(self, fan, held, seats):
        """A seat that nobody else has asked for cannot be taken."""
        code = (held.doc or {}).get("code")
        if code == "SEAT_TAKEN" and not self.contested.intersection(seats):
            if held.unknown and held.key is None:
                return
            self.finding("false refusal", f"user {held.user}: {code} for seats {seats} that nobody else wants; {held.log}")
        elif code in ("TOKEN_NOT_ACTIVATED", "TOKEN_EXPIRED", "TOKEN_SPENT"):
            # At another instance, for as long as news take.
            age = held.at - fan.active_at
            if code != "TOKEN_NOT_ACTIVATED" or age > LAG_S:
                self.finding("false refusal", f"user {held.user}: {code} for a ticket that was ACTIVATED {age:.2f} s ago; "
                                              f"{held.log}")
            self.late_tickets.append((self.round, age))

    async def decide(self, fan, held):
        if held.verdict != "ok":
            return
        reservation = held.doc["reservationId"]
        if reservation in self.reservations:
            self.finding("seat doubled", f"reservation {reservation} was given to {self.reservations[reservation].user} "
                                         f"and {fan.user}")
        self.reservations[reservation] = held
        await asyncio.sleep(self.random.uniform(0.05, 0.8))
        dice = self.random.random()
        if dice < 0.10:
            await self.effect("cancel", fan.user, reservation, "DELETE", f"/api/v1/reservations/{reservation}", None,
                              token=fan.token)
        elif dice < 0.20:
            self.abandoned.append((time.monotonic() + self.hold_s + 1.5, held.what[1]))
            self.contested.update(held.what[1])
        elif dice < 0.30:
            # Twice at once, with different keys: one of them only.
            both = await asyncio.gather(self.pay(fan, reservation), self.pay(fan, reservation))
            if [pay.verdict for pay in both] == ["ok", "ok"]:
                self.finding("paid twice", f"reservation {reservation}: {[pay.doc for pay in both]}")
        else:
            paid = await self.pay(fan, reservation)
            code = (paid.doc or {}).get("code")
            if paid.verdict == "refused" and code not in ("HOLD_EXPIRED", "NOT_ENOUGH_POINTS"):
                self.finding("false refusal", f"user {fan.user} cannot pay reservation {reservation}: {code} {paid.log}")
            if paid.verdict == "unknown" and code in ("ALREADY_PAID", "TOKEN_SPENT") and paid.key:
                self.finding("false refusal", f"user {fan.user}: the same key was told {code} for its own payment: {paid.log}")

    hold_s = 20

    async def race(self, one, other):
        """Two for one seat at the same time, at two instances."""
        seat = [self.seats.popleft()]
        self.contested.update(seat)
        await self.effect("charge", other.user, CHARGE, "PATCH", f"/api/v1/users/{other.user}/points/charge", {"amount": CHARGE})
        up = [(label, port) for label, port in self.instances.items() if label not in self.down]
        self.random.shuffle(up)
        vias = (up[:2] if len(up) > 1 and self.random.random() < 0.5 else [None, None])
        both = await asyncio.gather(self.reserve(one, seat, via=vias[0]), self.reserve(other, seat, via=vias[1]))
        # One that was tried again for long enough may have come after the end of the other's hold.
        if [held.verdict for held in both] == ["ok", "ok"] and abs(both[0].at - both[1].at) < self.hold_s - 2:
            self.finding("seat doubled", f"seat {seat[0]}: both {one.user} and {other.user} were told 201")
        for fan, held in zip((one, other), both):
            await self.decide(fan, held)

    # ---- running

    async def arrivals(self, rate, what):
        """`what` so often a second, whatever becomes of the earlier ones."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self.random.expovariate(rate), loop.time() - 0.5)
            await asyncio.sleep(max(0.0, due - loop.time()))
            self.spawn(what())

    def spawn(self, coroutine):
        async def guarded():
            try:
                await coroutine
            except NoAnswer:
                pass
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not pass unseen
                self.finding("drill", f"{type(error).__name__}: {error}")
        task = asyncio.ensure_future(guarded())
        self.open.add(task)
        task.add_done_callback(self.open.discard)

    async def poll_some(self):
        fan = self.some_fan()
        if fan is not None:
            await self.poll(fan)

    async def top_up(self, count):
        """A line to begin with."""
        for _ in range(0, count, 20):
            await asyncio.gather(*(self.join() for _ in range(20)), return_exceptions=True)

    async def begin(self):
        self.closing = False
        rates = self.rates
        self.running = [asyncio.ensure_future(self.arrivals(rates[name], what)) for name, what in (
            ("join", self.join), ("poll", self.poll_some), ("buy", self.buy), ("browse", self.browse),
            ("leave", self.leave))]

    async def end(self, patience_s=20):
        """No new fans; those who are in the middle of something finish."""
        self.closing = True
        for task in self.running or ():
            task.cancel()
        self.running = None
        deadline = time.monotonic() + patience_s
        while self.open and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if self.open:
            self.finding("drill", f"{len(self.open)} fans did not finish within {patience_s} s")
            for task in list(self.open):
                task.cancel()
            await asyncio.sleep(0.05)

    async def look_again(self, since, sample=250):
        """After a round, every instance must know every place: those of the round, and a sample of all."""
        recent = [fan for fan in self.fans if fan.at >= since]
        chosen = self.random.sample(recent, min(len(recent), 2 * sample))
        chosen += self.random.sample(self.fans, min(len(self.fans), sample))
        targets = list(self.instances.items())

        async def worker(queue):
            while queue:
                fan, via = queue.pop()
                try:
                    await self.poll(fan, via=via)
                except NoAnswer as error:
                    self.finding("drill", f"no answer to a poll after the round: {error}")

        queue = [(fan, via) for fan in chosen for via in targets]
        await asyncio.gather(*(worker(queue) for _ in range(8)))
        return len(chosen)

    # ---- what can be said without asking

    def numbers_given_twice(self):
        by_seq = collections.defaultdict(list)
        for fan in self.fans:
            by_seq[fan.seq].append(fan)
        return [(seq, [fan.user for fan in fans]) for seq, fans in by_seq.items() if len(fans) > 1]

    def overtaken(self, since):
        """Fans with a lower number than somebody whose join was answered before theirs was sent: (how many, by how
        many numbers at most, longest time between)."""
        fans = sorted((fan for fan in self.fans if fan.at >= since), key=lambda fan: fan.sent_at)
        answered = [(fan.at, fan.seq) for fan in fans]
        heapq.heapify(answered)
        highest, highest_at, count, worst, age = 0, 0.0, 0, 0, 0.0
        for fan in fans:
            while answered and answered[0][0] < fan.sent_at:
                at, seq = heapq.heappop(answered)
                if seq > highest:
                    highest, highest_at = seq, at
            if fan.seq < highest:
                count, worst, age = count + 1, max(worst, highest - fan.seq), max(age, fan.sent_at - highest_at)
        return count, worst, age


# ---------------------------------------------------------------- the books

def rows(database, sql):
    text = database.run(sql)
    if text is None:
        raise RuntimeError(f"the database does not answer: {sql}")
    return [line.split("\t") for line in text.split("\n") if line]


class Books:
    """What the database and Kafka have, read after a round."""

    def __init__(self, database):
        self.reservations = {int(r[0]): r for r in rows(
            database, "SELECT id, user_id, session_id, items, total, created_at, held_until, state, "
                      "COALESCE(payment_id, 0) FROM boxoffice.reservation")}
        self.payments = {int(r[0]): (int(r[1]), int(r[2]), int(r[3])) for r in rows(
            database, "SELECT id, reservation_id, user_id, amount FROM boxoffice.payment")}
        self.entries = [tuple(map(int, r)) for r in rows(
            database, "SELECT id, user_id, amount, kind, COALESCE(payment_id, 0) FROM boxoffice.points_entry")]
        self.balances = {int(r[0]): int(r[1]) for r in rows(database, "SELECT user_id, balance FROM boxoffice.account")}
        self.seats = {int(r[0]): (int(r[1]), int(r[2])) for r in rows(
            database, "SELECT id, state, COALESCE(reservation_id, 0) FROM boxoffice.seat WHERE state <> 0")}


def compare(load, books):
    """Every acknowledged answer against the books; a list of (kind, text)."""
    found = []
    held, paid, cancelled, charged = ({} for _ in range(4))
    for effect in load.effects:
        name = {"reserve": held, "pay": paid, "cancel": cancelled, "charge": charged}[effect.kind]
        name.setdefault((effect.user, effect.what if effect.kind != "charge" else None), []).append(effect)

    # Reservations: what was acknowledged is there, and what is there was asked for.
    in_books = collections.Counter()
    sold = {}
    for number, row in books.reservations.items():
        user, session, state, payment = int(row[1]), int(row[2]), int(row[7]), int(row[8])
        seats = tuple(sorted(item[0] for item in json.loads(row[3])))
        in_books[(user, (session, seats))] += 1
        asked = held.get((user, (session, seats)), [])
        if not any(e.verdict in ("ok", "unknown") for e in asked):
            said = [(e.verdict, e.log) for e in asked]
            found.append(("ghost", f"reservation {number} of user {user}: all that was answered is {said}"))
        if state == 1:
            for seat in seats:
                if seat in sold:
                    found.append(("seat doubled", f"seat {seat} is paid in reservations {sold[seat]} and {number}"))
                sold[seat] = number
                if books.seats.get(seat) != (2, number):
                    found.append(("effect lost", f"seat {seat} of paid reservation {number} is {books.seats.get(seat)}"))
            if books.payments.get(payment, (0,))[0] != number:
                found.append(("effect lost", f"reservation {number} names payment {payment}, which is not its own"))
    for (user, what), effects in held.items():
        good = sum(e.verdict in ("ok", "unknown") for e in effects)
        # Without a key, one attempt is one effect; with one, all attempts are one.
        if in_books[(user, what)] > good:
            found.append(("ghost", f"user {user} has {in_books[(user, what)]} reservations of {what}, asked for {good}"))
    for number, effect in load.reservations.items():
        row = books.reservations.get(number)
        if row is None or int(row[1]) != effect.user:
            found.append(("effect lost", f"reservation {number} of user {effect.user} was answered with 201 and is not "
                                         f"in the database: {effect.log}"))
            continue
        state = int(row[7])
        pays, gives = paid.get((effect.user, number), []), cancelled.get((effect.user, number), [])
        if state == 1 and not any(e.verdict in ("ok", "unknown") for e in pays):
            found.append(("ghost", f"reservation {number} is paid: {[(e.verdict, e.log) for e in pays]}"))
        if state == 2 and not any(e.verdict in ("ok", "unknown") for e in gives):
            found.append(("ghost", f"reservation {number} was given back: {[(e.verdict, e.log) for e in gives]}"))
        for e in pays:
            if e.verdict == "ok":
                payment = books.payments.get(e.doc["paymentId"])
                if state != 1 or payment is None or payment[0] != number or payment[2] != e.doc["paymentAmount"]:
                    found.append(("effect lost", f"payment {e.doc['paymentId']} was answered with 201; the database has "
                                                 f"{payment}, reservation in state {state}"))
        if any(e.verdict == "ok" for e in gives) and state != 2:
            found.append(("effect lost", f"reservation {number} was given back with 204 and is in state {state}"))

    # Two live holds of one seat at a time, among those that were acknowledged and not given back.
    spans = collections.defaultdict(list)
    for number, effect in load.reservations.items():
        row = books.reservations.get(number)
        if row is not None and int(row[7]) != 2:
            until = float("inf") if int(row[7]) == 1 else int(row[6])
            for seat in effect.what[1]:
                spans[seat].append((int(row[5]), until, number))
    for seat, list_ in spans.items():
        list_.sort()
        for first, second in zip(list_, list_[1:]):
            if second[0] < first[1]:
                found.append(("seat doubled", f"seat {seat}: reservations {first[2]} and {second[2]} at the same time"))

    # Points.
    sums, of_kind = collections.Counter(), collections.defaultdict(list)
    by_payment = collections.Counter()
    for _, user, amount, kind, payment in books.entries:
        sums[user] += amount
        of_kind[(user, kind)].append(amount)
        if kind == 2:
            by_payment[payment] += 1
    for user, balance in books.balances.items():
        if sums[user] != balance:
            found.append(("points", f"user {user}: balance {balance}, entries {sums[user]}"))
    for (user, _), effects in charged.items():
        have, sure = len(of_kind[(user, 1)]), sum(e.verdict == "ok" for e in effects)
        most = sure + sum(e.verdict == "unknown" for e in effects)
        if not sure <= have <= most:
            kind = "effect lost" if have < sure else "ghost"
            found.append((kind, f"user {user} was charged {have} times; {sure} were acknowledged, at most {most} can be: "
                                f"{[(e.verdict, e.log) for e in effects]}"))
    for payment, (number, user, amount) in books.payments.items():
        if by_payment[payment] != 1:
            found.append(("points", f"payment {payment} has {by_payment[payment]} entries"))
        if -amount not in of_kind[(user, 2)]:
            found.append(("points", f"payment {payment} of {amount} took nothing from user {user}"))
    return found


class Events:
    """What the consumer has written, read as it grows."""

    def __init__(self, path):
        self.path, self.offset = path, 0
        self.ids, self.repeated = set(), 0
        self.subjects = collections.defaultdict(collections.Counter)

    def read(self):
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return
        data = data[:data.rfind(b"\n") + 1]
        self.offset += len(data)
        names = {"concert.payment-completed": "paymentId", "concert.concert-reserved": "reservationId",
                 "concert.reservation-cancelled": "reservationId", "user.point-charged": "entryId"}
        for line in data.splitlines():
            event = json.loads(line)
            if event["id"] in self.ids:
                self.repeated += 1
            self.ids.add(event["id"])
            self.subjects[event["type"]][event["data"][names[event["type"]]]] += 1

    def missing(self, books):
        """Effects without exactly one event: (lost, doubled) as lists of texts."""
        expected = {
            "concert.payment-completed": set(books.payments),
            "concert.concert-reserved": set(books.reservations),
            "concert.reservation-cancelled": {n for n, r in books.reservations.items() if int(r[7]) in (2, 3)},
            "user.point-charged": {e[0] for e in books.entries if e[3] == 1},
        }
        lost, doubled = [], []
        for topic, wanted in expected.items():
            have = self.subjects[topic]
            lost += [f"{topic} {number}" for number in sorted(wanted - set(have))]
            doubled += [f"{topic} {number} ×{count}" for number, count in have.items() if count > 1]
            # An event of something that the database does not know would be as bad.
            doubled += [f"{topic} {number} without an effect" for number in sorted(set(have) - wanted)
                        if topic != "concert.reservation-cancelled"]
        return lost, doubled
