// What this browser keeps: places in line, tickets and reservations, and who is asking.
import { ask, badge, confirm, dayTime, everySecond, fill, forgetAll, frame, h, holdOf, holds, inLine, isKnown, keep, keepHold, link, main, note, points, say, seatName, signInLink, signOut, signsIn, tokens, unfinished, until, user, whoIsMissing, words } from '/assets/lib/kit.js';

/** @typedef {import('../types.js').Reservation} Reservation */

/** @type {Map<number, Reservation>} */
const told = new Map();
/** @type {Map<number, string>} */
const names = new Map();

function item(/** @type {number} */ rid) {
  const [hold, one] = [holdOf(String(rid)), told.get(rid)];
  const status = one?.status ?? hold?.status ?? '';
  const isHeld = status === 'HELD' && until(one?.expiresAt ?? hold?.expiresAt ?? '') > 0;
  const name = names.get(one?.concertId ?? hold?.concert ?? 0) ?? hold?.name ?? words.order;
  return h('li', {}, link('resume', isHeld ? `/pay/${rid}` : `/t/${rid}`,
    h('span', {}, h('strong', {}, name), h('small', {}, one ? `${one.reservedSeats.map(seatName).join(', ')} · ${points(one.totalPrice)} · ${dayTime(one.reservedAt)}` : `${words.order} ${rid}`)),
    badge(status === 'HELD' && !isHeld ? 'EXPIRED' : status)));
}

function render() {
  const lines = inLine();
  const rids = [...new Set([...told.keys(), ...holds().filter((it) => it.user === user()).map((it) => it.rid)])].sort((a, b) => b - a);
  const member = /** @type {HTMLInputElement} */ (h('input', { id: 'member', inputMode: 'numeric', autocomplete: 'off', maxLength: 4, value: user(), 'aria-describedby': 'member-hint member-wrong' }));
  const wrong = h('p', { id: 'member-wrong', className: 'wrong', role: 'alert' });
  const form = h('form', {
    className: 'card form', noValidate: true,
    onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      const isRight = /^\d+$/.test(member.value.trim()) && Number(member.value) >= 1 && Number(member.value) <= 1_000;
      member.setAttribute('aria-invalid', String(!isRight));
      wrong.textContent = isRight ? '' : words.meMemberWrong;
      if (!isRight) return member.focus();
      keep('user', String(Number(member.value)));
      location.reload();
    },
  }, h('label', { htmlFor: 'member' }, words.meMember), h('p', { id: 'member-hint', className: 'small' }, words.meMemberHint), member, wrong, h('button', { className: 'second' }, words.meSave));
  fill(main,
    h('div', { className: 'hero' }, h('h1', {}, words.meTitle)),
    lines.length > 0 && h('section', {}, h('h2', {}, words.meLines), h('ul', { className: 'plain' }, lines.map((it) => h('li', {}, it)))),
    rids.length > 0 && h('section', {}, h('h2', {}, words.meSeats), h('ul', { className: 'plain' }, rids.map(item))),
    whoIsMissing() ? h('div', { className: 'card centre' }, h('p', {}, whoIsMissing()), signInLink())
      : rids.length + lines.length === 0 && h('div', { className: 'card centre' }, h('p', {}, words.meNone), link('primary', '/', words.allConcerts)),
    !isKnown && form,
    h('section', { className: 'card' }, h('h2', {}, words.meForget), h('p', { className: 'soft' }, words.meForgetText),
      h('button', { type: 'button', id: 'forget', className: 'second danger', onclick: forget }, words.meForget)));
}

async function forget() {
  if (!await confirm(words.meForgetAsk, words.meForgetYes, words.meForgetNo)) return;
  forgetAll();
  if (signsIn) return signOut();
  told.clear();
  render();
  main.prepend(note('good', h('p', {}, words.meForgotten)));
  say(words.meForgotten);
}

/** What the service knows of this user's reservations, where a token of theirs opens it. */
async function readAll() {
  for (const token of signsIn ? [''] : tokens()) {
    const answer = await ask('/reservations', { token });
    if (!answer.ok) continue;
    for (const one of /** @type {Reservation[]} */ (answer.body.reservations)) {
      told.set(one.reservationId, one);
      const hold = holdOf(String(one.reservationId));
      // One that was made in another browser is kept here, too, with a token that may show it.
      keepHold({ token, ...hold, rid: one.reservationId, user: user(), concert: one.concertId, session: one.sessionId, status: one.status, expiresAt: one.expiresAt });
    }
    return render();
  }
}

frame(words.mine);
render();
const list = await ask('/concerts');
if (list.ok) for (const one of list.body.concerts) names.set(one.concertId, one.name);
render();
if (!whoIsMissing()) await readAll();
addEventListener('pageshow', (event) => event.persisted && readAll());
let before = unfinished().length;
everySecond(() => {
  // A hold or a turn ran out.
  const now = unfinished().length;
  if (now !== before && document.activeElement?.id !== 'member') render();
  before = now;
});
