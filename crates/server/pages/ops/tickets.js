// At the door: whether a ticket is good.
import { count, fill, h, link, main, say } from '/assets/lib/kit.js';
import { call, day, errorText, field, heading, title, words } from '/assets/ops/shell.js';

/** @typedef {import('./types.js').Verdict} Verdict */

/** How often the picture of the camera is looked at. */
const LOOK_MS = 250;
/** A code that was not there for so long is shown again. */
const AWAY_MS = 3_000;

export function show(/** @type {import('./types.js').View} */ { signal }) {
  title(words.tickets);
  const code = /** @type {HTMLTextAreaElement} */ (h('textarea', { id: 'code', spellcheck: false, autocomplete: 'off', maxLength: 4_000, rows: 4 }));
  const video = /** @type {HTMLVideoElement} */ (h('video', { muted: true, playsInline: true, hidden: true, ariaLabel: words.scanning }));
  const found = h('div', { id: 'found' });
  const wrong = h('p', { className: 'wrong', role: 'alert' });
  const Detector = /** @type {any} */ (globalThis).BarcodeDetector;

  let checks = 0;
  async function check() {
    const text = code.value.trim();
    if (!text) return code.focus();
    // What was said of another ticket is not to stand over this one, and the newest is the one that counts.
    const mine = (checks += 1);
    fill(found);
    const answer = await call('/tickets/verify', { method: 'POST', body: { code: text } });
    if (signal.aborted || mine !== checks) return;
    wrong.textContent = answer.ok ? '' : errorText(answer);
    if (!answer.ok) return;
    const it = /** @type {Verdict} */ (answer.body);
    const title = it.valid ? `✓ ${words.valid}` : `✕ ${words.invalid}`;
    const why = it.reason === null ? '' : words.reasons[it.reason] ?? it.detail ?? it.reason;
    const row = (/** @type {string} */ name, /** @type {import('./types.js').Child} */ value) => (value ? [h('dt', {}, name), h('dd', {}, value)] : []);
    fill(found, h('section', { className: `verdict ${it.valid ? 'good' : 'bad'}`, id: 'verdict' }, h('strong', {}, title), why && h('p', {}, why), h('dl', {},
      ...row(words.filterConcert, it.concert), ...row(words.session, it.session && day(it.session)),
      ...row(words.seatsOf, it.seats.length > 0 && [it.seats.join(' · '), it.moreSeats > 0 && words.moreSeats(count(it.moreSeats))].filter(Boolean).join(' ')),
      ...row(words.orderNumber, it.reservationId && link('', `/ops/orders/${it.reservationId}`, String(it.reservationId))))));
    say(`${title} ${why}`, !it.valid);
    code.select();
  }

  /** @type {MediaStream | null} */
  let stream = null;
  let seen = '';
  let seenAt = 0;
  function stop() {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    video.hidden = true;
    scan.textContent = words.scan;
  }
  async function begin() {
    scan.disabled = true;
    seen = '';
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
      video.srcObject = stream;
      await video.play();
    } catch {
      stop();
      wrong.textContent = words.noCamera;
      return;
    } finally {
      scan.disabled = false;
    }
    if (signal.aborted) return stop();
    wrong.textContent = '';
    video.hidden = false;
    scan.textContent = words.stopScan;
    const detector = new Detector({ formats: ['qr_code'] });
    while (stream) {
      const [one] = await detector.detect(video).catch(() => []);
      // Held before the camera it is one ticket; away and back it is shown again.
      const isNew = one?.rawValue && (one.rawValue !== seen || Date.now() - seenAt > AWAY_MS);
      if (one?.rawValue) seenAt = Date.now();
      if (isNew) {
        seen = one.rawValue;
        code.value = one.rawValue;
        await check();
      }
      await new Promise((later) => setTimeout(later, LOOK_MS));
    }
  }
  const scan = /** @type {HTMLButtonElement} */ (h('button', { type: 'button', id: 'scan', className: 'second', hidden: !Detector, onclick: () => (stream ? stop() : begin()) }, words.scan));
  signal.addEventListener('abort', stop);
  fill(main, heading(words.checkTicket), h('div', { className: 'narrow form' }, video, h('form', {
    className: 'card form', noValidate: true,
    onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      check();
    },
  }, field(words.code, code, Detector ? words.codeHint : words.noScanner), wrong, h('div', { className: 'row' }, h('button', { className: 'primary', id: 'check' }, words.check), scan)), found));
  code.focus();
}
