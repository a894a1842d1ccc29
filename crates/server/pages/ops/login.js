// Signing in to the console, and back to where one was.
import { ask, count, fill, h, main, ready, say } from '/assets/lib/kit.js';
import { errorText, field, input, languageSwitch, words } from '/assets/ops/shell.js';

const query = new URLSearchParams(location.search);
/** Only within the console: the address may be anybody's. */
function back() {
  const wanted = query.get('return') ?? '';
  const url = new URL(wanted, location.origin);
  return url.origin === location.origin && /^\/ops(\/|$)/.test(url.pathname) && url.pathname !== location.pathname ? url.pathname + url.search : '/ops';
}

const token = input('token', { type: 'password', autocomplete: 'current-password', spellcheck: false, maxLength: 200, required: true });
const wrong = h('p', { id: 'wrong', className: 'wrong', role: 'alert' });
const button = /** @type {HTMLButtonElement} */ (h('button', { className: 'primary', id: 'sign-in' }, words.signIn));

function refuse(/** @type {string} */ text) {
  wrong.textContent = text;
  token.setAttribute('aria-invalid', String(Boolean(text)));
  if (text) token.select();
}

async function signIn() {
  if (!token.value.trim()) return refuse(words.tokenEmpty);
  refuse('');
  button.ariaBusy = 'true';
  const answer = await ask('/ops/login', { method: 'POST', body: { token: token.value.trim() }, api: '' });
  if (answer.ok) {
    // A cookie that was not kept would lead here again and again.
    const me = await ask('/me', { api: '/admin/v1' });
    if (me.status !== 401) return location.replace(back());
    refuse(words.noCookie);
  } else {
    const texts = /** @type {Record<string, string>} */ ({ ADMIN_TOKEN_INVALID: words.tokenWrong, ROLE_REQUIRED: words.tokenCashier, RATE_LIMITED: words.tooMany(count(answer.retryAfter)) });
    refuse(texts[answer.code] ?? errorText(answer));
  }
  button.ariaBusy = null;
}

document.title = `${words.signIn} · boxoffice`;
ready();
document.querySelector('header')?.replaceChildren(h('p', { className: 'brand' }, 'boxoffice ', h('span', {}, words.console)), h('div', { className: 'me' }, languageSwitch()));
fill(main, h('form', {
  className: 'card form narrow', noValidate: true,
  onsubmit: (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!button.ariaBusy) signIn();
  },
}, h('h1', {}, words.signInTo), query.has('over') && h('div', { className: 'note warn', id: 'over' }, h('p', {}, words.signInOver)), field(words.token, token, words.tokenHint), wrong, button));
token.setAttribute('aria-describedby', 'token-hint wrong');
token.focus();
if (query.has('over')) say(words.signInOver);
