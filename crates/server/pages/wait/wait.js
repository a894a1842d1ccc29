// The waiting page. It joins the line, keeps the place whatever happens to the page, and says what is known of it and no
// more. It is one document with its styles, so it imports nothing.

// What the page says, in English and in Korean.
const TEXTS = {
  language: ['한국어', 'English'],
  one: ['person ahead of you', '명이 앞에 있습니다'],
  people: ['people ahead of you', '명이 앞에 있습니다'],
  next: ['You are next', '다음 차례입니다'],
  joining: ['Getting your number …', '대기 번호를 받는 중입니다…'],
  joiningText: ['This page tries again by itself.', '자동으로 다시 시도합니다.'],
  waiting: ['You are in line', '대기 중입니다'],
  waitingText: ['Keep this page open, or come back to it: your place stays yours.', '화면을 열어 두거나 나중에 다시 오셔도 순번은 그대로입니다.'],
  draw: ['You take part in the draw', '추첨에 참여하고 있습니다'],
  drawText: ['At the opening, places are drawn by lot among all who wait here. Coming earlier is of no advantage.', '대기열이 열릴 때 기다리는 분들의 순번을 추첨으로 정합니다. 먼저 왔다고 유리하지 않습니다.'],
  scheduled: ['The line opens soon', '곧 대기열이 열립니다'],
  scheduledText: ['You have your place already, by when you joined. There is no need to reload at the opening.', '들어온 순서대로 순번을 이미 받으셨습니다. 열리는 순간 새로고침할 필요가 없습니다.'],
  opens: ['until it opens: {0}, by the server’s clock', '남음 · {0}에 열립니다 (서버 시각)'],
  opening: ['opening', '여는 중'],
  paused: ['The line is paused', '대기열이 잠시 멈췄습니다'],
  pausedText: ['The organiser has stopped it for a while. Your place is kept.', '주최 측이 잠시 멈췄습니다. 순번은 그대로입니다.'],
  soldOut: ['Everything is sold at the moment', '지금은 모두 매진입니다'],
  soldOutText: ['Seats that nobody pays for come back, and the line moves on when they do.', '결제되지 않은 좌석은 다시 나오며, 그러면 줄이 움직입니다.'],
  ended: ['The sale is over', '판매가 끝났습니다'],
  endedText: ['There is nothing left to wait for in this line.', '이 대기열에서는 더 기다리실 것이 없습니다.'],
  turn: ['It’s your turn!', '내 차례입니다!'],
  turnText: ['Go in and choose your seats.', '입장해서 좌석을 고르세요.'],
  turnUntil: ['left, until {0}', '남음 · {0}까지'],
  enter: ['Enter', '입장하기'],
  turnNear: ['{0} left of your turn.', '입장 시간이 {0} 남았습니다.'],
  timedOut: ['Your turn is over', '입장 시간이 끝났습니다'],
  timedOutText: ['It ended at {0}. You can join again at the end of the line.', '{0}에 끝났습니다. 맨 뒤에서 다시 대기하실 수 있습니다.'],
  paid: ['You have bought your tickets', '예매를 마쳤습니다'],
  paidText: ['This turn is used up. To buy more, join the line again.', '이번 차례는 사용되었습니다. 더 예매하시려면 다시 대기해 주세요.'],
  left: ['You left the line', '대기열에서 나왔습니다'],
  leftText: ['You can join again at the end of the line.', '맨 뒤에서 다시 대기하실 수 있습니다.'],
  lost: ['Your place is not known here', '순번을 확인할 수 없습니다'],
  lostText: ['The service does not know your place (last: {0}). This page keeps asking; you can also join again.', '서비스가 이 순번을 알아보지 못합니다 (마지막: {0}). 계속 확인하고 있으며, 다시 대기하실 수도 있습니다.'],
  outdatedText: ['The service was restored from a backup, and your place is lost. We are sorry.', '서비스를 백업에서 복구하면서 순번이 사라졌습니다. 죄송합니다.'],
  none: ['There is no line here', '대기열이 없습니다'],
  noneText: ['Check the address, or choose a concert.', '주소를 확인하시거나 공연을 선택해 주세요.'],
  refused: ['You cannot join here', '여기서는 대기할 수 없습니다'],
  challengeText: ['A check is needed that this page does not have.', '이 화면에 없는 확인 절차가 필요합니다.'],
  signIn: ['Sign in', '로그인'],
  signInText: ['It takes you back here, and a place that you have is kept.', '로그인하면 이 화면으로 돌아오며, 받은 순번은 그대로입니다.'],
  failedText: ['That did not work. Please try again.', '로그인하지 못했습니다. 다시 시도해 주세요.'],
  jwtText: ['Please use the organiser’s page.', '주최 측 페이지를 이용해 주세요.'],
  who: ['Join the line', '대기열에 들어가기'],
  whoText: ['', ''],
  member: ['Member number', '회원 번호'],
  memberHint: ['A demonstration: any number from 1 to 1000 will do.', '데모입니다. 1부터 1000까지 아무 번호나 됩니다.'],
  memberWrong: ['A whole number from 1 to 1000, please.', '1부터 1000까지의 숫자를 입력해 주세요.'],
  join: ['Join', '대기하기'],
  rejoin: ['Join again at the end', '맨 뒤에서 다시 대기하기'],
  pay: ['Pay for the seats you hold', '선점한 좌석 결제하기'],
  tickets: ['My tickets', '내 예매'],
  others: ['Other concerts', '다른 공연 보기'],
  eta: ['Your turn in', '예상 대기 시간'],
  behind: ['Behind you', '내 뒤'],
  soon: ['Almost your turn', '곧 차례입니다'],
  minute: ['about 1 minute', '약 1분'],
  minutes: ['about {0} minutes', '약 {0}분'],
  hours: ['about {0} h {1} min', '약 {0}시간 {1}분'],
  unknown: ['We cannot tell now. Your place is kept.', '지금은 예상할 수 없습니다. 순번은 그대로입니다.'],
  fewer: ['Only {0} seats of this concert are left, and {1} people are ahead of you.', '이 공연의 남은 좌석은 {0}석인데 앞에 {1}명이 있습니다.'],
  now: ['Updated just now', '방금 확인함'],
  seconds: ['Updated {0} s ago', '{0}초 전에 확인함'],
  longAgo: ['Updated {0} min ago', '{0}분 전에 확인함'],
  offline: ['You are offline.', '인터넷 연결이 끊겼습니다.'],
  unreachable: ['The service does not answer.', '서비스가 응답하지 않습니다.'],
  busy: ['Very many people are here.', '접속이 매우 많습니다.'],
  kept: ['Your place is kept.', '순번은 그대로입니다.'],
  goesOn: ['This goes on by itself once you are back.', '연결되면 저절로 이어집니다.'],
  again: ['Next try in {0} s.', '{0}초 뒤에 다시 시도합니다.'],
  retry: ['Try now', '지금 시도'],
  blocked: ['This browser stores nothing, so you cannot buy in it. Allow it to, or use another one.', '이 브라우저는 정보를 저장하지 않아 예매할 수 없습니다. 저장을 허용하거나 다른 브라우저를 써 주세요.'],
  sound: ['Sound at my turn', '차례가 되면 소리'],
  awake: ['Keep the screen on', '화면 켜 두기'],
  hint: ['A sleeping phone cannot tell you, and your turn begins all the same.', '휴대전화가 잠들면 알려 드릴 수 없지만 차례는 시작됩니다.'],
  move: ['Go on in another browser', '다른 브라우저에서 이어가기'],
  moved: ['Link copied. Whoever opens it has your place, too.', '링크를 복사했습니다. 링크를 여는 사람도 이 순번을 갖습니다.'],
  leave: ['Leave the line', '대기 그만두기'],
  leaveAsk: ['Leave the line? Your place cannot be brought back.', '대기를 그만둘까요? 순번은 되돌릴 수 없습니다.'],
  stay: ['Stay in line', '계속 대기'],
  go: ['Leave', '그만두기'],
  demo: ['Demonstration · member {0}', '데모 · 회원 {0}'],
};

/** @typedef {import('../types.js').Place} Place */
/** @typedef {keyof typeof TEXTS} Text */
/** @typedef {import('../types.js').Trouble} Trouble */
/** @typedef {import('../types.js').Message} Message */

const LINE = '/api/v1/waiting-queues';
/** How long another tab may be silent before this one takes over, if this one is looked at. */
const SILENCE_MS = 12_000;

/** @type {(id: string) => any} */
const $ = (id) => document.getElementById(id);
const queue = location.pathname.split('/')[2];
const query = new URLSearchParams(location.search);
/** What the service tells pages of itself. @param {string} name */
const told = (name) => document.querySelector(`meta[name="boxoffice-${name}"]`)?.getAttribute('content');
/** Whether people are believed (`none`), known (`jwt`), or known and sign in here (`sign-in`). */
const auth = told('auth');
const signsIn = auth !== 'none';
/** Nobody knows yet who is signed in. */
let isAsking = auth === 'sign-in';
const organiser = document.title;
/** Where to go with a pass: a path of this host, or a site that the service names. Nothing else is gone to. */
function wayBack() {
  const asked = query.get('return') ?? '';
  const [, site, path] = /^(https?:\/\/[^/]+)?(\/(?!\/)[!-[\]-~]*)$/.exec(asked) ?? [];
  if (!path || asked.length > 2_048 || (site && !told('sites')?.split(' ').includes(site))) return null;
  return new URL((site ?? location.origin) + path);
}
const back = wayBack();
const wanted = /^\d{1,18}$/.test(query.get('c') ?? '') ? query.get('c') : null;

// ---- What is kept.

let isBlocked = false;
/** @type {Record<string, string>} */
const inMemory = {};
/** @param {string} name */
function kept(name) {
  try {
    return localStorage.getItem(`boxoffice.${name}`);
  } catch {
    isBlocked = true;
    return inMemory[name] ?? null;
  }
}
/** @param {string} name @param {string} value */
function keep(name, value) {
  inMemory[name] = value;
  try {
    localStorage.setItem(`boxoffice.${name}`, value);
  } catch {
    isBlocked = true;
  }
}

const newKey = () => crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint32Array(4))].join('-');
let user = signsIn ? '' : kept('user') ?? '';
if (back && !user && !signsIn) {
  // Before any site nobody is a member of anything: it is a number that nobody else has.
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
  user = String((high % 2 ** 20) * 2 ** 32 + low + 1);
  keep('user', user);
}
const placeName = () => `place.${queue}.${user}`;
/** @returns {Place | null} */
function keptPlace() {
  try {
    return JSON.parse(kept(placeName()) ?? 'null');
  } catch {
    return null;
  }
}
let place = /** @type {Place | null} */ (null);
function recall() {
  place = user ? keptPlace() : null;
  if (!place) return;
  // It may have been taken for another concert of this line, and a refusal need not be one any more.
  if (wanted) place.concert = wanted;
  delete place.over;
}
recall();
// A link brings a place from another browser, such as the one within a messenger. It is not for the history, and takes
// nobody's place away. Where people sign in, it is there for its owner alone.
const [, owner, token] = /^#place=(\d{1,16})\.([\w.-]+)$/.exec(location.hash) ?? [];
if (owner && token && auth !== 'jwt') {
  history.replaceState(null, '', location.pathname + location.search);
  if (signsIn) {
    user = owner;
    recall();
  }
  if (!place?.token || place.status === 'EXPIRED') {
    user = owner;
    keep('user', user);
    place = { queue: queue ?? '', user, key: newKey(), token };
    keep(placeName(), JSON.stringify(place));
  }
}

// ---- The server's clock: between what its answers allow, as far as whole seconds tell.

let earliest = -Infinity;
let latest = Infinity;
/** @param {Response} response @param {number} sent */
function setClock(response, sent) {
  const date = Date.parse(response.headers.get('Date') ?? '');
  if (!date || response.headers.has('Age')) return;
  const [from, to] = [date - Date.now(), date + 1_000 - sent];
  earliest = Math.max(earliest, from);
  latest = Math.min(latest, to);
  // The clock here was set: only what came after that counts.
  if (earliest > latest) [earliest, latest] = [from, to];
}
const serverNow = () => Date.now() + (earliest === -Infinity ? 0 : (earliest + latest) / 2);
/** @param {string | null | undefined} at */
const msTo = (at) => (at ? Date.parse(at) - serverNow() : 0);

// ---- Languages.

let language = [query.get('lang'), kept('lang'), ...navigator.languages.map((it) => it.slice(0, 2))].find((it) => it === 'ko' || it === 'en') ?? 'en';
if (query.has('lang')) keep('lang', language);

/** @param {Text} name @param {(string | number)[]} values */
const say = (name, ...values) => TEXTS[name][language === 'ko' ? 1 : 0]?.replace(/\{(\d)\}/g, (_, index) => String(values[index])) ?? '';
/** @param {number} n */
const count = (n) => n.toLocaleString(language);
/** @param {string | null | undefined} at */
function timeOf(at) {
  if (!at) return '';
  const isNear = Math.abs(msTo(at)) < 43_200_000;
  return new Date(at).toLocaleString(language, { ...(isNear ? {} : { month: 'short', day: 'numeric' }), hour: 'numeric', minute: '2-digit' });
}
/** @param {number} ms */
function clockOf(ms) {
  const s = Math.max(0, Math.ceil(ms / 1_000));
  /** @param {number} n */
  const two = (n) => String(n % 60).padStart(2, '0');
  const [h, m] = [Math.floor(s / 3_600), Math.floor(s / 60)];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

// ---- Showing it.

/** @type {Trouble | null} */
let trouble = null;
let nextAt = 0;
/** @type {import('../types.js').Concert | null} */
let concert = null;
/** What the organiser says. @type {Record<string, string>} */
let notices = {};
let shown = '';
let announcedAt = 0;
let isNear = false;
let rung = '';

/** Shows a text, or hides where it would be. Readers of screens are not to hear the same again. @param {string} id @param {string} text */
function set(id, text) {
  $(id).hidden = !text;
  if ($(id).textContent !== text) $(id).textContent = text;
}
/** @param {string} id @param {unknown} visible */
const show = (id, visible) => { $(id).hidden = !visible; };

/** How this page stands, by the name of its text. @returns {Text} */
function stateOf() {
  if (isAsking) return 'joining';
  if (!user) return signsIn ? 'signIn' : 'who';
  if (!place) return 'joining';
  const { over, status } = place;
  if (over) return over === 'QUEUE_SOLD_OUT' ? 'soldOut' : over === 'QUEUE_ENDED' ? 'ended' : over === 'QUEUE_NOT_FOUND' ? 'none' : 'refused';
  if (place.lost) return 'lost';
  if (!place.token || !status) return 'joining';
  // A join does not say until when; the poll after it does.
  if (status === 'ACTIVATED') return place.activeUntil && (place.pass || !back) ? 'turn' : 'joining';
  const why = status === 'EXPIRED' ? place.reason : place.queueState;
  if (why === 'SOLD_OUT') return 'soldOut';
  if (why === 'ENDED') return 'ended';
  if (status === 'EXPIRED') return why === 'PAID' ? 'paid' : why === 'LEFT' ? 'left' : 'timedOut';
  if (place.number === null) return 'draw';
  return why === 'SCHEDULED' ? 'scheduled' : why === 'PAUSED' ? 'paused' : 'waiting';
}

/** Whether it waits on, and may leave. @param {Text} state */
const isInLine = (state) => ['waiting', 'scheduled', 'paused', 'draw'].includes(state) || (state === 'soldOut' && !!place?.token);

/** @type {{ at: number, number: number }[]} */
let seen = [];
/** Seconds until the turn: the slower of what the service says and what is seen here; null where nobody knows. */
function secondsToGo() {
  if (place?.queueState !== 'OPEN' || place.status !== 'WAITING' || !place.number) return null;
  const eta = place.eta ?? null;
  const [oldest, newest] = [seen[0], seen.at(-1)];
  if (eta === null || !oldest || !newest || newest.at - oldest.at < 30_000) return eta;
  const [span, moved] = [newest.at - oldest.at, oldest.number - newest.number];
  // It stands still, whatever was expected.
  if (moved <= 0) return span < 60_000 ? eta : null;
  return Math.max(eta, (newest.number * span) / moved / 1_000);
}
/** Rounded up: nobody is to come too late. */
function waitInWords() {
  const seconds = secondsToGo();
  if (seconds === null) return say('unknown');
  if (seconds <= 20) return say('soon');
  const minutes = Math.ceil(seconds / 60);
  if (minutes === 1) return say('minute');
  const rounded = minutes <= 10 ? minutes : Math.ceil(minutes / 5) * 5;
  return rounded < 60 ? say('minutes', rounded) : say('hours', Math.floor(rounded / 60), rounded % 60);
}

/** Where the way back leads with a pass: this host has it in a cookie, another one in what no server is sent. @param {URL} to */
function wayIn(to) {
  const pass = `boxoffice-pass=${place?.pass}`;
  if (to.origin !== location.origin) {
    to.hash = pass;
    return to.href;
  }
  document.cookie = `${pass}; Path=/; Max-Age=${Math.ceil(msTo(place?.activeUntil) / 1_000)}; SameSite=Lax${location.protocol === 'https:' ? '; Secure' : ''}`;
  return to.href;
}

/** @param {Text} state */
function explanation(state) {
  if (state === 'timedOut') return say('timedOutText', timeOf(place?.activeUntil));
  if (state === 'lost') return place?.lost === 'TOKEN_OUTDATED' ? say('outdatedText') : say('lostText', place?.number ? count(place.number) : '–');
  if (state === 'signIn') return say(auth === 'jwt' ? 'jwtText' : failure ? 'failedText' : 'signInText');
  if (state === 'refused') return place?.over === 'CHALLENGE_REQUIRED' ? say('challengeText') : place?.over ?? '';
  return say(/** @type {Text} */ (`${state}Text`));
}

function render() {
  const state = stateOf();
  const inLine = isInLine(state);
  const number = inLine && place?.number ? place.number : 0;
  const ahead = number - 1;
  const isTurn = state === 'turn';
  document.body.dataset.state = state;
  set('concert', concert ? `${concert.name} · ${concert.venue}` : '');
  set('title', say(state === 'waiting' && ahead === 0 ? 'next' : state));
  set('text', isTurn && back ? '' : explanation(state));
  set('notice', notices[language] ?? '');

  show('place', number && (ahead || state !== 'waiting'));
  set('number', count(ahead));
  set('unit', say(ahead === 1 ? 'one' : 'people'));
  $('place').classList.toggle('long', ahead >= 100_000);
  show('bar', number && state !== 'scheduled');
  // It only grows.
  $('bar').value = number ? Math.max($('bar').value, 1_000 * (1 - ahead / (place?.first ?? number))) : 0;
  $('bar').ariaLabel = say('waiting');

  show('facts', number && state === 'waiting');
  set('eta', waitInWords());
  const behind = number && place?.waiting !== undefined ? Math.max(0, place.waiting - number) : -1;
  show('behind-fact', behind >= 0);
  set('behind', count(behind));
  const seats = concert?.sessions.reduce((sum, it) => sum + (it.cancelled ? 0 : it.availableSeatCount), 0) ?? 0;
  set('fewer', state === 'waiting' && seats > 0 && seats < ahead ? say('fewer', count(seats), count(ahead)) : '');

  const hold = ['timedOut', 'paid', 'lost', 'left'].includes(state) ? liveHold() : '';
  show('who', state === 'who');
  show('enter', isTurn);
  $('enter').href = back && isTurn ? wayIn(back) : place?.concert ? `/c/${place.concert}` : '/';
  const isOut = state === 'signIn' && auth !== 'jwt';
  set('pay', hold ? say('pay') : state === 'paid' ? say('tickets') : isOut ? say(state) : '');
  $('pay').href = hold ? `/pay/${hold}` : isOut ? `/auth/login?return=${encodeURIComponent(location.pathname + location.search)}${kept('out') ? '&prompt=login' : ''}` : '/me';
  show('rejoin', ['timedOut', 'paid', 'left', 'lost', 'refused'].includes(state));
  $('rejoin').className = $('pay').hidden ? 'primary' : 'second';
  show('others', !back && ['ended', 'none', 'signIn', 'refused', 'timedOut', 'left', 'soldOut'].includes(state));
  show('comfort', inLine);
  set('demo', !signsIn && !back && user ? say('demo', user) : '');
  show('blocked', isBlocked && auth !== 'jwt');
  renderClocks();

  if (state !== shown) {
    const isFirst = !shown;
    shown = state;
    isNear = false;
    set('assertive', isTurn ? say('turn') : '');
    if (isTurn && !$('confirm').open) $('enter').focus();
    if (isTurn) alarm();
    else if (!isFirst) announce(`${$('title').textContent}. ${$('text').textContent}`);
  } else if (state === 'waiting' && Date.now() - announcedAt >= 60_000) {
    announce(`${ahead ? `${$('number').textContent} ${$('unit').textContent}` : say('next')}. ${say('eta')}: ${waitInWords()}`);
  }
}

/** @param {string} what */
function announce(what) {
  announcedAt = Date.now();
  set('polite', what);
}

/** What changes with the second alone. */
function renderClocks() {
  const state = stateOf();
  const inLine = isInLine(state);
  const isConcerned = trouble && (inLine || state === 'joining' || state === 'lost');
  show('trouble', isConcerned);
  if (trouble && isConcerned) {
    const wait = Math.ceil((nextAt - Date.now()) / 1_000);
    const next = trouble === 'offline' ? say('goesOn') : wait > 0 ? say('again', wait) : '';
    set('trouble-text', [say(trouble), inLine ? say('kept') : '', next].join(' '));
    $('retry').disabled = Date.now() < notBefore;
  }
  const ago = Math.max(0, Math.round((serverNow() - (place?.at ?? 0)) / 1_000));
  set('updated', !inLine || !place?.at ? '' : ago < 2 ? say('now') : ago < 90 ? say('seconds', ago) : say('longAgo', Math.floor(ago / 60)));
  let title = $('title').textContent;
  if (state === 'waiting' && place?.number) title = `${count(place.number - 1)} · ${say('waiting')}`;
  const isTurn = state === 'turn';
  const ms = msTo(isTurn ? place?.activeUntil : place?.opensAt);
  const counts = isTurn || ((state === 'scheduled' || state === 'draw') && place?.opensAt);
  show('countdown', counts);
  if (counts) {
    const clock = ms > 0 || isTurn ? clockOf(ms) : say('opening');
    set('clock', clock);
    set('until', isTurn ? say('turnUntil', timeOf(place?.activeUntil)) : ms > 0 ? say('opens', timeOf(place?.opensAt)) : '');
    set('enter', `${say('enter')} · ${clock}`);
    if (!isTurn) show('enter', false);
    title = `${isTurn ? '★ ' : ''}${title} ${clock}`;
    if (isTurn && ms < 60_000 && !isNear) {
      isNear = true;
      set('assertive', say('turnNear', clock));
    }
  }
  document.title = `${title} · ${concert?.name ?? organiser}`;
}

/** The reservation of this user that can still be paid, from what the other pages keep. */
function liveHold() {
  if (isBlocked) return '';
  for (const [name, value] of Object.entries(localStorage)) {
    if (!name.startsWith('boxoffice.hold.')) continue;
    try {
      const hold = JSON.parse(value);
      if (hold.user === user && hold.status === 'HELD' && msTo(hold.expiresAt) > 0) return String(hold.rid);
    } catch {
      // Not one of ours.
    }
  }
  return '';
}

function renderLanguage() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll('[data-text]')) element.textContent = say(/** @type {Text} */ (element.getAttribute('data-text')));
  $('language').lang = language === 'ko' ? 'en' : 'ko';
  render();
}

// ---- One tab asks, and tells the others.

let isLeading = false;
let heardAt = Date.now();
const channel = 'BroadcastChannel' in globalThis ? new BroadcastChannel(`boxoffice.${queue}`) : null;
/** @param {Message} message */
const tell = (message) => channel?.postMessage(message);

function lead(steal = false) {
  if (!navigator.locks) {
    // Without locks (a page without TLS) every tab asks for itself; the key of the join still makes it one place.
    isLeading = true;
    return schedule();
  }
  // Held for as long as this page lives, or until a tab that is looked at takes it from one that sleeps.
  navigator.locks.request(`boxoffice.${queue}`, { steal }, () => {
    isLeading = true;
    // What the tab before knew, in case this one did not hear of it.
    if (user) place = keptPlace() ?? place;
    schedule();
    return new Promise(() => {});
  }).catch(() => {
    isLeading = false;
    heardAt = Date.now();
    lead();
  });
}

if (channel) {
  channel.onmessage = ({ data }) => {
    const message = /** @type {Message} */ (data);
    if (message.hello && isLeading) tell({ place, trouble, nextAt });
    if (message.hurry && isLeading) hurry();
    if (message.place?.user !== user) return;
    heardAt = Date.now();
    ({ place, trouble = null, nextAt = 0 } = message);
    render();
    // Another tab left, or joined anew.
    schedule();
  };
}
addEventListener('storage', ({ key, newValue }) => {
  // Another tab chose another member, or forgot this device.
  if (key === 'boxoffice.user' && (newValue ?? '') !== user) return location.reload();
  if (key !== `boxoffice.${placeName()}`) return;
  place = keptPlace();
  if (!place?.token) nextAt = 0;
  render();
  schedule();
});

function save() {
  if (place) keep(placeName(), JSON.stringify(place));
  tell({ place, trouble, nextAt });
}

// ---- Asking.

let timer = 0;
let isBusy = false;
let failures = 0;
let strange = 0;
let publicAt = 0;
let concertAt = 0;
/** The service wants nothing before: neither what is due nor what the fan wants now. */
let notBefore = 0;

function schedule() {
  clearTimeout(timer);
  if (isLeading) timer = setTimeout(due, Math.max(0, nextAt - Date.now()));
}
/** @param {number} ms */
function inMs(ms) {
  nextAt = Math.max(notBefore, Date.now() + ms);
}
function hurry(ms = 0) {
  nextAt = Math.min(nextAt, Math.max(notBefore, Date.now() + ms));
  schedule();
}

const isOver = () => !!place?.over || (place?.status === 'EXPIRED' && place.reason !== 'SOLD_OUT');

async function due() {
  if (isBusy || isAsking || !user || !isLeading || isOver()) return;
  if (Date.now() < nextAt) return schedule();
  isBusy = true;
  try {
    if (place?.token) await poll(place.token);
    else await join(place ?? newPlace());
  } finally {
    isBusy = false;
  }
  save();
  render();
  schedule();
}

/** One request, with a time-out; null where there is no answer. @param {string} path @param {RequestInit} [options] */
async function request(path, options) {
  const sent = Date.now();
  const abort = new AbortController();
  const late = setTimeout(() => abort.abort(), 10_000);
  try {
    const response = await fetch(path, { cache: 'no-store', signal: abort.signal, ...options });
    setClock(response, sent);
    const body = response.status === 204 ? {} : await response.json();
    return { ok: response.ok, status: response.status, body, retryAfter: Number(response.headers.get('Retry-After')) };
  } catch {
    return null;
  } finally {
    clearTimeout(late);
  }
}
/** @typedef {Awaited<ReturnType<typeof request>>} Answer */

/** After what is none of the fan's doing: later, and not all at the same time. @param {Answer} answer */
function failed(answer) {
  failures += 1;
  trouble = !navigator.onLine ? 'offline' : answer?.status === 429 || answer?.status === 503 ? 'busy' : 'unreachable';
  if (answer?.retryAfter) {
    notBefore = Date.now() + answer.retryAfter * 1_000;
    return inMs(answer.retryAfter * 1_000 * (1 + Math.random() / 2));
  }
  inMs(Math.max(1_000, Math.random() * Math.min(30_000, 1_000 * 2 ** failures)));
}

/** @returns {Place} */
function newPlace() {
  place = { queue: queue ?? '', user, key: newKey() };
  const next = wanted ?? keptPlace()?.concert;
  if (next) place.concert = next;
  seen = [];
  strange = 0;
  nextAt = 0;
  // Before it is sent: a lost answer, a reload or another tab finds the same place by it.
  save();
  return place;
}

/** @param {Place} mine */
async function join(mine) {
  const answer = await request(LINE, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': mine.key },
    body: JSON.stringify({ userId: Number(user), queue }),
  });
  // Another tab joined anew in the meantime.
  if (place?.key !== mine.key) return;
  if (answer?.ok) return take(Object.assign(place, { token: answer.body.token }), answer.body);
  if (!answer || answer.status === 408 || answer.status === 429 || answer.status >= 500) return failed(answer);
  const { code } = answer.body;
  if (answer.status === 401) {
    // The place is kept, with its key, for when they have signed in again.
    user = '';
    place = null;
    return;
  }
  if (code === 'IDEMPOTENCY_KEY_REUSED') newPlace();
  if (code === 'IDEMPOTENCY_KEY_REUSED' || code === 'IDEMPOTENCY_IN_FLIGHT') return inMs(1_000);
  place.over = code.startsWith('CHALLENGE') ? 'CHALLENGE_REQUIRED' : code;
}

/** @param {string} token */
async function poll(token) {
  const answer = await request(LINE, { headers: { 'QUEUE-TOKEN': token } });
  // Another tab left or joined anew in the meantime.
  if (place?.token !== token || isOver()) return;
  if (answer?.ok) {
    take(place, answer.body);
    if (place.status === 'WAITING') await look(place);
  } else if (answer?.status === 401) {
    // Once may be an instance that does not know better. The token is kept in any case.
    strange += 1;
    if (strange >= 2) place.lost = answer.body.code;
    inMs(strange < 2 ? 2_000 : 30_000);
  } else {
    failed(answer);
  }
}

/** @param {Place} mine @param {any} body */
function take(mine, body) {
  failures = 0;
  strange = 0;
  trouble = null;
  delete mine.lost;
  Object.assign(mine, { status: body.status, queueState: body.queueState, reason: body.reason, eta: body.etaSeconds, pass: body.pass, at: serverNow() });
  if (body.activeUntil) mine.activeUntil = body.activeUntil;
  if (body.status === 'WAITING' || body.waitingNumber) {
    mine.number = mine.number && body.waitingNumber ? Math.min(mine.number, body.waitingNumber) : body.waitingNumber;
    if (mine.number) {
      mine.first ??= mine.number;
      seen = mine.queueState === 'OPEN' ? [...seen.filter((it) => Date.now() - it.at < 180_000), { at: Date.now(), number: mine.number }] : [];
    }
  }
  notBefore = Date.now() + body.pollAfterMs;
  // At one's turn there is nothing to ask until it is over: the clock is here.
  inMs(mine.status === 'ACTIVATED' && mine.activeUntil ? msTo(mine.activeUntil) + 500 + Math.random() * 1_000 : mine.status === 'EXPIRED' ? 10_000 : 0);
}

/** Reads what is public: how many wait, when it opens, what is left of the concert. @param {Place} mine */
async function look(mine) {
  if (Date.now() - publicAt > 15_000 || (mine.queueState === 'SCHEDULED' && !mine.opensAt)) {
    publicAt = Date.now();
    const answer = await request(`${LINE}/${queue}`);
    if (answer?.ok) Object.assign(mine, { waiting: answer.body.waiting, opensAt: answer.body.opensAt });
  }
  if (Date.now() - concertAt > 30_000) await readConcert();
}

async function readNotice() {
  const address = told('notice');
  try {
    // From a cache its time would tell nothing of the clock.
    if (address) notices = await (await fetch(address)).json();
  } catch {
    // It is only said where it can be had.
  }
}

async function readConcert() {
  const id = place?.concert ?? wanted;
  if (!id) return;
  concertAt = Date.now();
  const answer = await request(`/api/v1/concerts/${id}`);
  if (answer?.ok) concert = answer.body;
}

/** Asks who is signed in. Without an answer it is who it was. */
async function identify() {
  const answer = await request('/auth/me');
  user = answer?.ok ? String(answer.body.userId) : answer?.status === 401 ? '' : kept('user') ?? '';
  if (answer?.ok) {
    keep('user', user);
    keep('out', '');
  }
  isAsking = false;
  recall();
  render();
  schedule();
}

// ---- What the fan does.

/** Takes a word out of the address. @param {string} name */
function without(name) {
  query.delete(name);
  history.replaceState(null, '', String(query) ? `?${query}` : location.pathname);
}

$('language').onclick = () => {
  language = language === 'ko' ? 'en' : 'ko';
  keep('lang', language);
  without('lang');
  renderLanguage();
};

$('member').value = 1 + Math.floor(Math.random() * 1_000);
$('who').onsubmit = (/** @type {Event} */ event) => {
  event.preventDefault();
  const number = Number($('member').value);
  const isRight = Number.isInteger(number) && number >= 1 && number <= 1_000;
  $('member').setAttribute('aria-invalid', !isRight);
  set('member-wrong', isRight ? '' : say('memberWrong'));
  if (!isRight) return $('member').focus();
  user = String(number);
  keep('user', user);
  place = keptPlace();
  render();
  $('title').focus();
  schedule();
};

$('rejoin').onclick = () => {
  newPlace();
  render();
  $('title').focus();
  schedule();
};

$('retry').onclick = () => {
  if (isLeading) hurry();
  else tell({ hurry: true });
};

$('move').onclick = async () => {
  const url = `${location.origin}${location.pathname}${location.search}#place=${user}.${place?.token}`;
  try {
    if (navigator.share) return await navigator.share({ url });
    await navigator.clipboard.writeText(url);
    set('copied', say('moved'));
  } catch {
    // It was thought better of, or this browser has neither: then the address is there to be copied by hand.
    if (!navigator.share) set('copied', url);
  }
};

$('leave').onclick = () => $('confirm').showModal();
$('confirm').onclose = async () => {
  const { returnValue } = $('confirm');
  $('confirm').returnValue = '';
  if (returnValue !== 'go' || !place?.token) return;
  const answer = await request(LINE, { method: 'DELETE', headers: { 'QUEUE-TOKEN': place.token } });
  if (answer?.ok) Object.assign(place, { status: 'EXPIRED', reason: 'LEFT' });
  else failed(answer);
  save();
  render();
  $('title').focus();
};

/** @type {AudioContext | null} */
let audio = null;
function chime() {
  if (!audio) return;
  for (const [index, frequency] of [660, 880, 1_320].entries()) {
    const [tone, volume, at] = [audio.createOscillator(), audio.createGain(), audio.currentTime + index * 0.18];
    tone.frequency.value = frequency;
    volume.gain.setValueAtTime(0.3, at);
    volume.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
    tone.connect(volume).connect(audio.destination);
    tone.start(at);
    tone.stop(at + 0.5);
  }
}
/** Turns a switch and says how it is now. @param {string} id */
function turned(id) {
  const isOn = $(id).ariaChecked !== 'true';
  $(id).ariaChecked = String(isOn);
  return isOn;
}
$('sound').onclick = () => {
  if (!turned('sound')) {
    audio?.close();
    audio = null;
    return;
  }
  // Browsers allow both only after a tap. The tones say that it works.
  audio = new AudioContext();
  chime();
  globalThis.Notification?.requestPermission();
};
function alarm() {
  if (!audio || rung === place?.token) return;
  rung = place?.token ?? '';
  chime();
  navigator.vibrate?.([200, 100, 200, 100, 400]);
  if (!document.hidden || globalThis.Notification?.permission !== 'granted') return;
  try {
    new Notification(say('turn'), { body: say('turnText'), tag: 'boxoffice' }).onclick = () => focus();
  } catch {
    // Android wants a service worker for it; the title and the sound remain.
  }
}

/** @type {WakeLockSentinel | null} */
let wake = null;
async function keepAwake() {
  try {
    wake = await navigator.wakeLock.request('screen');
  } catch {
    // The battery is low, or it is not allowed here.
    $('awake').ariaChecked = 'false';
  }
}
show('awake', 'wakeLock' in navigator);
$('awake').onclick = () => {
  if (turned('awake')) keepAwake();
  else wake?.release();
};

// ---- Life of the page.

function wakeUp() {
  if (document.hidden) return;
  // The screen's lock ends where the page is not seen.
  if (wake?.released && $('awake').ariaChecked === 'true') keepAwake();
  if (!isLeading && Date.now() - heardAt > SILENCE_MS && Date.now() - nextAt > SILENCE_MS && navigator.locks) {
    heardAt = Date.now();
    lead(true);
  }
  // Somebody may have signed in in another tab.
  if (auth === 'sign-in' && !user && !isAsking) identify();
  // The turn may have been used in another tab.
  if (place?.status === 'ACTIVATED') hurry();
  render();
  due();
}
document.addEventListener('visibilitychange', wakeUp);
addEventListener('pageshow', wakeUp);
addEventListener('online', () => {
  if (trouble === 'offline') trouble = null;
  // Not all at once: a whole building may be back at the same time.
  hurry(Math.random() * 1_000);
  render();
});
addEventListener('offline', () => {
  trouble = 'offline';
  render();
});
setInterval(() => {
  renderClocks();
  if (!isLeading && Date.now() - heardAt > SILENCE_MS) wakeUp();
}, 1_000);

const failure = query.get('signin');
if (failure) without('signin');
renderLanguage();
readConcert().then(render);
readNotice().then(render);
if (isAsking) identify();
lead();
tell({ hello: true });
