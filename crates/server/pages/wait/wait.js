// The waiting page. It joins the line, keeps the place whatever happens to the page, and says what is known of it and no
// more. It is one document with its styles, so it imports nothing.

const LINE = '/api/v1/waiting-queues';
const TIMEOUT_MS = 10_000;
/** How long another tab may be silent before this one takes over, if this one is looked at. */
const SILENCE_MS = 20_000;

const ENGLISH = {
  name: 'English',
  people: (/** @type {string} */ n, /** @type {boolean} */ one) => `${one ? 'person' : 'people'} ahead of you`,
  next: 'You are next',
  joining: 'Getting your number …',
  joiningText: 'This page tries again by itself. Nobody who comes later is put before you once you have a number.',
  waiting: 'You are in line',
  waitingText: 'Keep this page open, or come back to it: your place stays yours. It is never given to somebody else.',
  draw: 'You take part in the draw',
  drawText: 'When the line opens, everybody who is waiting here gets a place by lot. Coming earlier is of no advantage.',
  scheduled: 'The line opens soon',
  scheduledText: 'You have your place already. Places go by when people joined; there is no need to reload at the opening.',
  scheduledDraw: 'Until then nobody has a place. They are drawn by lot at the opening, so there is no need to hurry.',
  opens: (/** @type {string} */ at) => `until it opens at ${at}, by the server’s clock`,
  opening: 'opening now',
  paused: 'The line is paused',
  pausedText: 'The organiser has stopped it for a while. Your place is kept, and it goes on by itself.',
  soldOut: 'Everything is sold at the moment',
  soldOutText: 'Seats that nobody pays for come back. If you stay, your place is kept and the line moves on when they do.',
  ended: 'The sale is over',
  endedText: 'There is nothing left to wait for in this line.',
  turn: 'It’s your turn!',
  turnText: 'Go in and choose your seats. Nobody can take your turn before then.',
  turnUntil: (/** @type {string} */ at) => `left, until ${at}`,
  enter: 'Enter',
  turnNear: (/** @type {string} */ clock) => `${clock} left of your turn.`,
  timedOut: 'Your turn is over',
  timedOutText: (/** @type {string} */ at) => `It ended at ${at}. You can join again at the end of the line.`,
  paid: 'You have bought your tickets',
  paidText: 'This turn is used up. To buy more, join the line again.',
  left: 'You left the line',
  leftText: 'Your place was given up. You can join again at the end.',
  lost: 'Your place is not known here any more',
  lostText: (/** @type {string} */ n) => `The service does not recognise this place${n && `; ${n} was the last number known`}. This page keeps asking. You can also join again at the end of the line.`,
  outdatedText: 'The service had to be restored from a backup, and places given shortly before it are lost. We are sorry. Please join again.',
  none: 'There is no line here',
  noneText: 'Check the address, or choose a concert.',
  refused: 'You cannot join here',
  challengeText: 'At the moment the organiser asks for a check that these pages do not have. Please join on the organiser’s own page.',
  signIn: 'Please use the organiser’s page',
  signInText: 'Here people sign in, and that is not set up on these pages. Join the line on the organiser’s own page.',
  who: 'Join the line',
  whoName: 'Member number',
  whoHint: 'A demonstration: choose any number from 1 to 1000. Nobody checks who you are.',
  whoWrong: 'Please enter a whole number from 1 to 1000.',
  join: 'Join',
  rejoin: 'Join again at the end',
  pay: 'Pay for the seats you hold',
  tickets: 'My tickets',
  others: 'Other concerts',
  eta: 'Your turn in',
  behind: 'Behind you',
  soon: 'Almost your turn',
  minute: 'about 1 minute',
  minutes: (/** @type {number} */ n) => `about ${n} minutes`,
  hours: (/** @type {number} */ h, /** @type {number} */ m) => `about ${h} h${m ? ` ${m} min` : ''}`,
  unknown: 'We cannot tell now. Your place is kept.',
  fewer: (/** @type {string} */ seats, /** @type {string} */ ahead) => `Only ${seats} seats of this concert are left, and ${ahead} people are ahead of you. You may not get any.`,
  updated: (/** @type {number} */ s) => (s < 2 ? 'Updated just now' : s < 90 ? `Updated ${s} s ago` : `Updated ${Math.floor(s / 60)} min ago`),
  offline: 'You are offline. Your place is kept; this goes on by itself once you are back.',
  unreachable: 'The service does not answer. Your place is kept.',
  unreachableJoin: 'The service does not answer.',
  busy: 'Very many people are here. Your place is kept.',
  busyJoin: 'Very many people are here at once.',
  again: (/** @type {number} */ s) => (s > 0 ? ` Next try in ${s} s.` : ' Trying …'),
  retry: 'Try now',
  blocked: 'This browser stores nothing for this page. Keep it open: your place would be lost with it.',
  sound: 'Sound at my turn',
  awake: 'Keep the screen on',
  hint: 'A phone that sleeps cannot tell you. Your turn begins when it comes, even if nobody looks.',
  leave: 'Leave the line',
  leaveAsk: 'Leave the line? Your place goes, and nobody can bring it back.',
  stay: 'Stay in line',
  go: 'Leave',
  demo: (/** @type {string} */ n) => `Demonstration · member ${n}`,
  hidden: 'In line',
};

/** @type {typeof ENGLISH} */
const KOREAN = {
  name: '한국어',
  people: () => '명이 앞에 있습니다',
  next: '다음 차례입니다',
  joining: '대기 번호를 받는 중입니다…',
  joiningText: '자동으로 다시 시도합니다. 번호를 받으면 나중에 온 사람이 앞서는 일은 없습니다.',
  waiting: '대기 중입니다',
  waitingText: '이 화면을 열어 두거나 나중에 다시 오셔도 순번은 그대로입니다. 다른 사람에게 넘어가지 않습니다.',
  draw: '추첨에 참여하고 있습니다',
  drawText: '대기열이 열리면 여기서 기다리는 모든 분의 순번을 추첨으로 정합니다. 먼저 왔다고 유리하지 않습니다.',
  scheduled: '곧 대기열이 열립니다',
  scheduledText: '순번은 이미 받으셨습니다. 순번은 들어온 순서이며, 열리는 순간 새로고침할 필요가 없습니다.',
  scheduledDraw: '그때까지는 순번이 없습니다. 열릴 때 추첨으로 정하므로 서두르지 않으셔도 됩니다.',
  opens: (at) => `남음 · ${at}에 열립니다 (서버 시각)`,
  opening: '지금 열리는 중',
  paused: '대기열이 잠시 멈췄습니다',
  pausedText: '주최 측이 잠시 멈췄습니다. 순번은 그대로이며, 다시 시작되면 저절로 이어집니다.',
  soldOut: '지금은 모두 매진입니다',
  soldOutText: '결제되지 않은 좌석은 다시 나옵니다. 계속 기다리시면 순번이 유지되고, 좌석이 나오면 줄이 움직입니다.',
  ended: '판매가 끝났습니다',
  endedText: '이 대기열에서는 더 기다리실 것이 없습니다.',
  turn: '내 차례입니다!',
  turnText: '입장해서 좌석을 고르세요. 그 전까지 아무도 이 차례를 가져갈 수 없습니다.',
  turnUntil: (at) => `남음 · ${at}까지`,
  enter: '입장하기',
  turnNear: (clock) => `입장 시간이 ${clock} 남았습니다.`,
  timedOut: '입장 시간이 끝났습니다',
  timedOutText: (at) => `${at}에 끝났습니다. 맨 뒤에서 다시 대기하실 수 있습니다.`,
  paid: '예매를 마쳤습니다',
  paidText: '이번 차례는 사용되었습니다. 더 예매하시려면 다시 대기해 주세요.',
  left: '대기열에서 나왔습니다',
  leftText: '순번을 포기하셨습니다. 맨 뒤에서 다시 대기하실 수 있습니다.',
  lost: '순번을 확인할 수 없습니다',
  lostText: (n) => `서비스가 이 순번을 알아보지 못합니다${n && ` (마지막으로 확인된 번호: ${n})`}. 계속 확인하고 있습니다. 맨 뒤에서 다시 대기하실 수도 있습니다.`,
  outdatedText: '서비스를 백업에서 복구하면서 그 직전에 받은 순번이 사라졌습니다. 죄송합니다. 다시 대기해 주세요.',
  none: '대기열이 없습니다',
  noneText: '주소를 확인하시거나 공연을 선택해 주세요.',
  refused: '여기서는 대기할 수 없습니다',
  challengeText: '지금은 이 화면에 없는 확인 절차가 필요합니다. 주최 측 페이지에서 대기해 주세요.',
  signIn: '주최 측 페이지를 이용해 주세요',
  signInText: '로그인이 필요한 서비스이며 이 화면에는 로그인이 준비되어 있지 않습니다. 주최 측 페이지에서 대기해 주세요.',
  who: '대기열에 들어가기',
  whoName: '회원 번호',
  whoHint: '데모입니다. 1부터 1000까지 아무 번호나 고르세요. 본인 확인을 하지 않습니다.',
  whoWrong: '1부터 1000까지의 숫자를 입력해 주세요.',
  join: '대기하기',
  rejoin: '맨 뒤에서 다시 대기하기',
  pay: '선점한 좌석 결제하기',
  tickets: '내 예매',
  others: '다른 공연 보기',
  eta: '예상 대기 시간',
  behind: '내 뒤',
  soon: '곧 차례입니다',
  minute: '약 1분',
  minutes: (n) => `약 ${n}분`,
  hours: (h, m) => `약 ${h}시간${m ? ` ${m}분` : ''}`,
  unknown: '지금은 예상할 수 없습니다. 순번은 그대로입니다.',
  fewer: (seats, ahead) => `이 공연의 남은 좌석은 ${seats}석인데 앞에 ${ahead}명이 있습니다. 좌석을 못 구할 수 있습니다.`,
  updated: (s) => (s < 2 ? '방금 확인함' : s < 90 ? `${s}초 전에 확인함` : `${Math.floor(s / 60)}분 전에 확인함`),
  offline: '인터넷 연결이 끊겼습니다. 순번은 그대로이며, 연결되면 저절로 이어집니다.',
  unreachable: '서비스가 응답하지 않습니다. 순번은 그대로입니다.',
  unreachableJoin: '서비스가 응답하지 않습니다.',
  busy: '접속이 매우 많습니다. 순번은 그대로입니다.',
  busyJoin: '한꺼번에 많은 분이 접속했습니다.',
  again: (s) => (s > 0 ? ` ${s}초 뒤에 다시 시도합니다.` : ' 다시 시도하는 중…'),
  retry: '지금 시도',
  blocked: '이 브라우저는 이 페이지의 정보를 저장하지 않습니다. 화면을 닫으면 순번을 잃으니 열어 두세요.',
  sound: '차례가 되면 소리',
  awake: '화면 켜 두기',
  hint: '휴대전화가 잠들면 알려 드릴 수 없습니다. 보고 있지 않아도 차례는 시작됩니다.',
  leave: '대기 그만두기',
  leaveAsk: '대기를 그만둘까요? 순번이 사라지며 되돌릴 수 없습니다.',
  stay: '계속 대기',
  go: '그만두기',
  demo: (n) => `데모 · 회원 ${n}`,
  hidden: '대기 중',
};

/**
 * What this browser keeps of a place in the line.
 * @typedef {object} Place
 * @property {string} queue
 * @property {string} user
 * @property {string} key The idempotency key of the join, kept before it is sent.
 * @property {string} [concert] Where to go on to.
 * @property {string} [token]
 * @property {'WAITING' | 'ACTIVATED' | 'EXPIRED'} [status]
 * @property {number | null} [number] The smallest seen: instances differ for a moment.
 * @property {number} [first] The first seen, for the bar.
 * @property {number | null} [eta]
 * @property {string} [queueState]
 * @property {string | null} [reason]
 * @property {string | null} [activeUntil]
 * @property {number} [at] When this was so, by the server's clock.
 * @property {string} [opensAt]
 * @property {number} [waiting]
 * @property {string} [over] The code of the refusal to join, where it is final.
 * @property {string} [lost] The code that says that the place is not known.
 */
/** @typedef {{ kind: 'offline' | 'unreachable' | 'busy' }} Trouble */
/** @typedef {{ hello?: boolean, hurry?: boolean, place?: Place | null, trouble?: Trouble | null, nextAt?: number }} Message */

const $ = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const queue = decodeURIComponent(location.pathname.split('/')[2] ?? '');
const query = new URLSearchParams(location.search);
const known = document.querySelector('meta[name="boxoffice-auth"]')?.getAttribute('content') === 'jwt';

// ---- What is kept.

let isBlocked = false;
/** @type {Map<string, string>} */
const inMemory = new Map();
try {
  localStorage.setItem('boxoffice.probe', '1');
  localStorage.removeItem('boxoffice.probe');
} catch {
  isBlocked = true;
}
const kept = (/** @type {string} */ name) => (isBlocked ? inMemory.get(name) ?? null : localStorage.getItem(name));
function keep(/** @type {string} */ name, /** @type {string} */ value) {
  inMemory.set(name, value);
  if (isBlocked) return;
  try {
    localStorage.setItem(name, value);
  } catch {
    isBlocked = true;
  }
}

let user = kept('boxoffice.user') ?? '';
const placeName = () => `boxoffice.place.${queue}.${user}`;
/** @returns {Place | null} */
function keptPlace() {
  try {
    return JSON.parse(kept(placeName()) ?? 'null');
  } catch {
    return null;
  }
}
/** @type {Place | null} */
let place = user ? keptPlace() : null;

// ---- The server's clock: between what its answers allow, as far as whole seconds tell.

let earliest = -Infinity;
let latest = Infinity;
function setClock(/** @type {Response} */ response, /** @type {number} */ sent) {
  const date = Date.parse(response.headers.get('Date') ?? '');
  if (!date || response.headers.has('Age')) return;
  const [from, to] = [date - Date.now(), date + 1_000 - sent];
  earliest = Math.max(earliest, from);
  latest = Math.min(latest, to);
  // The clock here was set: only what came after that counts.
  if (earliest > latest) [earliest, latest] = [from, to];
}
const serverNow = () => Date.now() + (earliest === -Infinity ? 0 : (earliest + latest) / 2);

// ---- Languages.

let language = [query.get('lang'), kept('boxoffice.lang'), ...navigator.languages.map((it) => it.slice(0, 2))].find((it) => it === 'ko' || it === 'en') ?? 'en';
if (query.has('lang')) keep('boxoffice.lang', language);
let words = ENGLISH;
const count = (/** @type {number} */ n) => n.toLocaleString(language);
const timeOf = (/** @type {number} */ at) => new Date(at).toLocaleTimeString(language, { hour: 'numeric', minute: '2-digit' });
const dayAndTimeOf = (/** @type {number} */ at) => new Date(at).toLocaleString(language, at - serverNow() < 43_200_000 ? { hour: 'numeric', minute: '2-digit' } : { month: 'short', day: 'numeric', hour: 'numeric', minute: '2-digit' });
function clockOf(/** @type {number} */ ms) {
  const s = Math.max(0, Math.ceil(ms / 1_000));
  const [d, h, m] = [Math.floor(s / 86_400), Math.floor(s / 3_600) % 24, Math.floor(s / 60) % 60];
  const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
  if (d) return language === 'ko' ? `${d}일 ${h}:${two(m)}:${two(s % 60)}` : `${d} d ${h}:${two(m)}:${two(s % 60)}`;
  return h ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

// ---- Showing it.

/** @type {Trouble | null} */
let trouble = null;
let nextAt = 0;
let isBusy = false;
/** @type {{ name: string, venue: string, sessions: { availableSeatCount: number, cancelled: boolean }[] } | null} */
let concert = null;
let isAsking = !known && !user;
let shown = '';
let announced = '';
let announcedAt = 0;
let isNear = false;
let soldOutAgreed = false;

function set(/** @type {string} */ id, /** @type {string} */ text) {
  const element = $(id);
  element.hidden = !text;
  // Written only where it differs: readers of screens are not to hear the same again.
  if (element.textContent !== text) element.textContent = text;
}
const show = (/** @type {string} */ id, /** @type {boolean} */ visible) => { $(id).hidden = !visible; };

/** How this page stands: one word for each thing that it can say. */
function stateOf() {
  if (known) return 'signIn';
  if (isAsking || !user) return 'who';
  if (place?.over) return place.over === 'QUEUE_SOLD_OUT' ? 'soldOut' : place.over === 'QUEUE_ENDED' ? 'ended' : place.over === 'QUEUE_NOT_FOUND' ? 'none' : 'refused';
  if (place?.lost) return 'lost';
  if (!place?.token || !place.status) return 'joining';
  if (place.status === 'ACTIVATED') return 'turn';
  if (place.status === 'EXPIRED') {
    return { PAID: 'paid', LEFT: 'left', SOLD_OUT: 'soldOut', ENDED: 'ended' }[place.reason ?? ''] ?? 'timedOut';
  }
  if (place.queueState === 'SCHEDULED') return 'scheduled';
  if (place.queueState === 'PAUSED') return 'paused';
  if (place.queueState === 'SOLD_OUT') return 'soldOut';
  if (place.queueState === 'ENDED') return 'ended';
  return place.number === null ? 'draw' : 'waiting';
}

/** Where this waits on, and may leave. */
const inLine = (/** @type {string} */ state) => ['waiting', 'scheduled', 'paused', 'draw'].includes(state) || (state === 'soldOut' && !!place?.token);

/** @type {{ at: number, number: number }[]} */
let seen = [];
/** Seconds until the turn: the slower of what the service says and what is seen here; null where nobody knows. */
function secondsToGo() {
  if (!place || place.queueState !== 'OPEN' || place.eta === null || place.eta === undefined || !place.number) return null;
  const [oldest, newest] = [seen[0], seen.at(-1)];
  const span = oldest && newest ? newest.at - oldest.at : 0;
  if (!oldest || !newest || span < 30_000) return place.eta;
  const moved = oldest.number - newest.number;
  // It stands still, whatever was expected.
  if (moved <= 0) return span < 60_000 ? place.eta : null;
  return Math.max(place.eta, (newest.number * span) / moved / 1_000);
}
function inWords(/** @type {number | null} */ seconds) {
  if (seconds === null) return words.unknown;
  if (seconds <= 20) return words.soon;
  const minutes = Math.ceil(seconds / 60);
  if (minutes === 1) return words.minute;
  if (minutes <= 10) return words.minutes(minutes);
  const rounded = Math.ceil(minutes / 5) * 5;
  return rounded < 60 ? words.minutes(rounded) : words.hours(Math.floor(rounded / 60), rounded % 60);
}

/** @type {Record<string, string>} */
const TITLES = { soldOut: 'soldOut', timedOut: 'timedOut' };
const text = (/** @type {string} */ name) => String(/** @type {Record<string, unknown>} */ (words)[name] ?? '');

function explanation(/** @type {string} */ state) {
  if (!place) return text(`${state}Text`);
  if (state === 'timedOut') return words.timedOutText(place.activeUntil ? timeOf(Date.parse(place.activeUntil)) : '');
  if (state === 'lost') return place.lost === 'TOKEN_OUTDATED' ? words.outdatedText : words.lostText(place.number ? count(place.number) : '');
  if (state === 'refused') return place.over === 'CHALLENGE_REQUIRED' ? words.challengeText : place.over ?? '';
  if (state === 'scheduled' && place.number === null) return words.scheduledDraw;
  return text(`${state}Text`);
}

function render() {
  const state = stateOf();
  const hasNumber = inLine(state) && typeof place?.number === 'number';
  const ahead = hasNumber ? Number(place?.number) - 1 : 0;
  const toOpening = state === 'scheduled' && place?.opensAt ? Date.parse(place.opensAt) - serverNow() : 0;
  const isTurn = state === 'turn';
  document.body.dataset.state = state;
  set('concert', concert ? `${concert.name} · ${concert.venue}` : '');
  set('title', state === 'waiting' && ahead === 0 ? words.next : text(TITLES[state] ?? state));
  set('text', explanation(state));

  show('place', hasNumber && (ahead > 0 || state !== 'waiting'));
  set('number', count(ahead));
  set('unit', words.people(count(ahead), ahead === 1));
  $('place').classList.toggle('long', ahead >= 100_000);
  const bar = /** @type {HTMLProgressElement} */ ($('bar'));
  show('bar', hasNumber && state !== 'scheduled');
  if (hasNumber && place?.first) bar.value = Math.max(bar.value, Math.round(1_000 * (1 - ahead / Math.max(1, place.first))));
  bar.setAttribute('aria-label', words.waiting);

  show('facts', hasNumber && (state === 'waiting' || state === 'paused' || state === 'soldOut'));
  set('eta', inWords(secondsToGo()));
  const behind = place?.waiting === undefined || !hasNumber ? null : Math.max(0, place.waiting - ahead - 1);
  show('behind-fact', behind !== null);
  set('behind', behind === null ? '' : count(behind));
  const seats = concert?.sessions.reduce((sum, it) => sum + (it.cancelled ? 0 : it.availableSeatCount), 0);
  set('fewer', state === 'waiting' && seats !== undefined && seats > 0 && seats < ahead ? words.fewer(count(seats), count(ahead)) : '');

  show('countdown', isTurn || (state === 'scheduled' && toOpening > 0));
  if (isTurn) set('until', words.turnUntil(timeOf(Date.parse(place?.activeUntil ?? ''))));
  else if (place?.opensAt) set('until', words.opens(dayAndTimeOf(Date.parse(place.opensAt))));

  show('who', state === 'who');
  show('enter', isTurn);
  const after = place?.concert ? `/c/${place.concert}` : '/';
  /** @type {HTMLAnchorElement} */ ($('enter')).href = after;
  const hold = ['timedOut', 'paid', 'lost', 'left'].includes(state) ? liveHold() : null;
  show('pay', !!hold || state === 'paid');
  set('pay', hold ? words.pay : state === 'paid' ? words.tickets : '');
  /** @type {HTMLAnchorElement} */ ($('pay')).href = hold ? `/pay/${hold}` : '/me';
  show('rejoin', ['timedOut', 'left', 'lost', 'refused'].includes(state));
  show('others', ['ended', 'none', 'paid', 'signIn', 'refused', 'timedOut', 'left'].includes(state) || (state === 'soldOut' && !inLine(state)));
  show('comfort', inLine(state));
  show('demo', !known && !!user && state !== 'who');
  set('demo', !known && user && state !== 'who' ? words.demo(user) : '');
  show('blocked', isBlocked && state !== 'signIn');
  renderTrouble(state);
  renderClocks(state);

  if (state !== shown) {
    const isFirst = shown === '';
    shown = state;
    if (isTurn) {
      isNear = false;
      set('assertive', words.turn);
      if (!(/** @type {HTMLDialogElement} */ ($('confirm')).open)) $('enter').focus();
      alarm();
    } else {
      set('assertive', '');
      if (!isFirst) announce(`${$('title').textContent} ${$('text').textContent}`);
      if (state === 'who') suggestMember();
    }
  } else if (state === 'waiting' && Date.now() - announcedAt >= 60_000) {
    announce(`${ahead ? `${count(ahead)} ${words.people(count(ahead), ahead === 1)}` : words.next}. ${words.eta}: ${inWords(secondsToGo())}`);
  }
}

/** Tells readers of screens, but not the same again. */
function announce(/** @type {string} */ what) {
  announcedAt = Date.now();
  if (what === announced) return;
  announced = what;
  set('polite', what);
}

function renderTrouble(/** @type {string} */ state) {
  const concerned = trouble && (inLine(state) || state === 'joining' || state === 'lost' || state === 'turn');
  show('trouble', !!concerned);
  if (!trouble || !concerned) return;
  const isJoin = state === 'joining';
  const what = trouble.kind === 'offline' && !isJoin ? words.offline : trouble.kind === 'busy' ? (isJoin ? words.busyJoin : words.busy) : isJoin ? words.unreachableJoin : words.unreachable;
  set('trouble-text', what + (trouble.kind === 'offline' ? '' : words.again(Math.ceil((nextAt - Date.now()) / 1_000))));
  set('retry', words.retry);
}

/** What changes with the second alone. */
function renderClocks(/** @type {string} */ state) {
  const ago = place?.at ? Math.max(0, Math.round((serverNow() - place.at) / 1_000)) : 0;
  set('updated', inLine(state) && place?.at ? words.updated(ago) : '');
  let title = $('title').textContent ?? '';
  if (state === 'turn') {
    const left = Date.parse(place?.activeUntil ?? '') - serverNow();
    set('clock', clockOf(left));
    set('enter', `${words.enter} · ${clockOf(left)}`);
    title = `★ ${words.turn} ${clockOf(left)}`;
    if (left < 60_000 && !isNear) {
      isNear = true;
      set('assertive', words.turnNear(clockOf(left)));
    }
  } else if (state === 'scheduled' && place?.opensAt) {
    const left = Date.parse(place.opensAt) - serverNow();
    set('clock', left > 0 ? clockOf(left) : words.opening);
  } else if (state === 'waiting' && place?.number) {
    title = `${count(place.number - 1)} · ${words.hidden}`;
  }
  document.title = concert ? `${title} · ${concert.name}` : `${title} · boxoffice`;
}

/** The reservation of this user that can still be paid, from what the other pages keep. */
function liveHold() {
  if (isBlocked) return null;
  for (let index = 0; index < localStorage.length; index += 1) {
    const name = localStorage.key(index) ?? '';
    if (!name.startsWith('boxoffice.hold.')) continue;
    try {
      const hold = JSON.parse(localStorage.getItem(name) ?? '');
      if (hold.user === user && hold.status === 'HELD' && Date.parse(hold.expiresAt) > serverNow()) return String(hold.rid);
    } catch {
      // Not one of ours.
    }
  }
  return null;
}

function renderLanguage() {
  words = language === 'ko' ? KOREAN : ENGLISH;
  document.documentElement.lang = language;
  const other = language === 'ko' ? ENGLISH : KOREAN;
  const button = $('language');
  set('language', other.name);
  button.lang = language === 'ko' ? 'en' : 'ko';
  for (const [id, word] of Object.entries({
    'eta-name': words.eta, 'behind-name': words.behind, 'member-name': words.whoName, 'member-hint': words.whoHint, join: words.join,
    rejoin: words.rejoin, others: words.others, sound: words.sound, hint: words.hint, leave: words.leave, 'confirm-text': words.leaveAsk,
    stay: words.stay, go: words.go, blocked: words.blocked,
  })) {
    $(id).textContent = word;
  }
  $('awake').textContent = words.awake;
  shown = '';
  render();
}

// ---- One tab asks, and tells the others.

let isLeading = false;
let heardAt = Date.now();
const channel = 'BroadcastChannel' in globalThis ? new BroadcastChannel(`boxoffice.${queue}`) : null;
const tell = (/** @type {Message} */ message) => channel?.postMessage(message);

function lead(steal = false) {
  if (!navigator.locks) {
    // Without locks (pages without TLS) every tab asks for itself; the key of the join still makes it one place.
    isLeading = true;
    schedule();
    return;
  }
  // Held for as long as this page lives, or until a tab that is looked at takes it from one that sleeps.
  navigator.locks.request(`boxoffice.${queue}`, { steal }, () => {
    isLeading = true;
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
    if (message.hurry && isLeading) due(true);
    if ('place' in message && message.place?.user === user) {
      heardAt = Date.now();
      place = message.place;
      trouble = message.trouble ?? null;
      nextAt = message.nextAt ?? nextAt;
      render();
    }
  };
}
addEventListener('storage', (event) => {
  if (event.key === 'boxoffice.user' && event.newValue !== user) location.reload();
  if (event.key !== placeName()) return;
  const before = place?.token;
  place = keptPlace();
  render();
  // Another tab joined anew, or forgot this device.
  if (isLeading && place && place.token !== before) schedule();
});

function save() {
  if (place) keep(placeName(), JSON.stringify(place));
  tell({ place, trouble, nextAt });
}

// ---- Asking.

let timer = 0;
let failures = 0;
let strange = 0;
let documentAt = 0;
let concertAt = 0;

function schedule() {
  clearTimeout(timer);
  if (isLeading) timer = setTimeout(due, Math.max(0, nextAt - Date.now()));
}

const isOver = () => !!place?.over || (place?.status === 'EXPIRED' && place.reason !== 'SOLD_OUT');

async function due(isHurried = false) {
  if (isBusy || known || !user || isAsking || !isLeading || isOver()) return;
  if (!isHurried && Date.now() < nextAt) return schedule();
  clearTimeout(timer);
  isBusy = true;
  try {
    if (place?.token) await poll();
    else await join();
  } finally {
    isBusy = false;
  }
  save();
  render();
  schedule();
}

/** One request, with a time-out. */
async function request(/** @type {string} */ path, /** @type {RequestInit} */ options = {}) {
  const sent = Date.now();
  const abort = new AbortController();
  const late = setTimeout(() => abort.abort(), TIMEOUT_MS);
  try {
    const response = await fetch(path, { cache: 'no-store', signal: abort.signal, ...options });
    setClock(response, sent);
    const body = response.status === 204 ? {} : await response.json();
    return { ok: response.ok, status: response.status, body, retryAfter: Number(response.headers.get('Retry-After')) || 0 };
  } catch {
    return null;
  } finally {
    clearTimeout(late);
  }
}
/** @typedef {Awaited<ReturnType<typeof request>>} Answer */

const inMs = (/** @type {number} */ ms) => { nextAt = Date.now() + ms; };

/** After what is none of the fan's doing: later, and not all at the same time. */
function failed(/** @type {Answer} */ answer) {
  failures += 1;
  const isSent = answer !== null;
  trouble = { kind: !navigator.onLine ? 'offline' : isSent && (answer.status === 429 || answer.status === 503) ? 'busy' : 'unreachable' };
  if (answer?.retryAfter) return inMs(answer.retryAfter * 1_000 * (1 + Math.random() / 2));
  return inMs(Math.max(1_000, Math.random() * Math.min(30_000, 1_000 * 2 ** failures)));
}

function newPlace() {
  /** @type {Place} */
  const fresh = { queue, user, key: crypto.randomUUID?.() ?? [...crypto.getRandomValues(new Uint32Array(4))].join('-') };
  const wanted = query.get('c') ?? place?.concert;
  if (wanted && /^\d{1,18}$/.test(wanted)) fresh.concert = wanted;
  place = fresh;
  seen = [];
  /** @type {HTMLProgressElement} */ ($('bar')).value = 0;
  keep(placeName(), JSON.stringify(place));
}

async function join() {
  if (!place?.key) newPlace();
  const mine = /** @type {Place} */ (place);
  const answer = await request(LINE, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': mine.key },
    body: JSON.stringify({ userId: Number(user), queue }),
  });
  if (answer?.ok) {
    succeeded();
    mine.token = answer.body.token;
    take(answer.body);
    return;
  }
  const code = answer?.body?.code;
  if (!answer || answer.status === 429 || answer.status >= 500 || answer.status === 408) return failed(answer);
  if (code === 'IDEMPOTENCY_IN_FLIGHT') return inMs(1_000);
  if (code === 'IDEMPOTENCY_KEY_REUSED') {
    newPlace();
    return inMs(1_000);
  }
  mine.over = code === 'CHALLENGE_INVALID' || code === 'CHALLENGE_USED' ? 'CHALLENGE_REQUIRED' : code ?? String(answer.status);
}

async function poll() {
  const mine = /** @type {Place} */ (place);
  const answer = await request(LINE, { headers: { 'QUEUE-TOKEN': mine.token ?? '' } });
  // Another tab has left or joined anew in the meantime.
  if (place !== mine && place?.token !== mine.token) return;
  if (answer?.ok) {
    succeeded();
    take(answer.body);
    await look();
  } else if (answer && answer.status === 401) {
    // Once may be an instance that does not know better; the token is kept in any case.
    strange += 1;
    if (strange >= 2) mine.lost = answer.body?.code ?? 'TOKEN_INVALID';
    inMs(strange < 2 ? 2_000 : 30_000);
  } else {
    failed(answer);
  }
}

function succeeded() {
  failures = 0;
  strange = 0;
  trouble = null;
  if (place) delete place.lost;
}

function take(/** @type {any} */ body) {
  const mine = /** @type {Place} */ (place);
  mine.status = body.status;
  mine.queueState = body.queueState;
  mine.reason = body.reason ?? null;
  mine.eta = body.etaSeconds;
  mine.at = serverNow();
  if (body.status === 'WAITING') {
    mine.number = mine.number && body.waitingNumber ? Math.min(mine.number, body.waitingNumber) : body.waitingNumber;
    if (mine.number) {
      mine.first ??= mine.number;
      if (mine.queueState !== 'OPEN') seen = [];
      else seen = [...seen.filter((it) => Date.now() - it.at < 180_000), { at: Date.now(), number: mine.number }];
    }
  }
  if (body.activeUntil) mine.activeUntil = body.activeUntil;
  inMs(body.pollAfterMs);
  if (mine.status === 'ACTIVATED') {
    // Nothing more to ask until it is over; the clock is here. A join does not say when that is.
    if (mine.activeUntil) inMs(Math.max(body.pollAfterMs, Date.parse(mine.activeUntil) - serverNow() + 500 + Math.random() * 1_000));
  } else if (mine.status === 'EXPIRED') {
    inMs(Math.max(body.pollAfterMs, 10_000));
  }
}

/** Reads what is public: how many wait, when it opens, and which concert it is. */
async function look() {
  const mine = /** @type {Place} */ (place);
  if (mine.status !== 'WAITING') return;
  if (Date.now() - documentAt > 15_000 || (mine.queueState === 'SCHEDULED' && !mine.opensAt)) {
    const answer = await request(`${LINE}/${queue}`);
    if (answer?.ok) {
      documentAt = Date.now();
      mine.waiting = answer.body.waiting;
      if (answer.body.opensAt) mine.opensAt = answer.body.opensAt;
      else delete mine.opensAt;
    }
  }
  if (Date.now() - concertAt > 30_000) await readConcert();
}

async function readConcert() {
  const id = place?.concert ?? query.get('c');
  if (!id || !/^\d{1,18}$/.test(id)) return;
  concertAt = Date.now();
  const answer = await request(`/api/v1/concerts/${id}`);
  if (answer?.ok) concert = answer.body;
}

// ---- What the fan does.

$('language').onclick = () => {
  language = language === 'ko' ? 'en' : 'ko';
  keep('boxoffice.lang', language);
  if (query.has('lang')) {
    query.delete('lang');
    history.replaceState(null, '', location.pathname + (query.size ? `?${query}` : ''));
  }
  renderLanguage();
};

function suggestMember() {
  const input = /** @type {HTMLInputElement} */ ($('member'));
  if (!input.value) input.value = String(1 + Math.floor(Math.random() * 1_000));
}
$('who').onsubmit = (event) => {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ ($('member'));
  const number = Number(input.value);
  const isRight = /^\d+$/.test(input.value.trim()) && number >= 1 && number <= 1_000;
  input.setAttribute('aria-invalid', String(!isRight));
  set('member-wrong', isRight ? '' : words.whoWrong);
  if (!isRight) return input.focus();
  user = String(number);
  keep('boxoffice.user', user);
  isAsking = false;
  place = keptPlace();
  render();
  $('title').focus();
  due();
};

$('rejoin').onclick = () => {
  newPlace();
  strange = 0;
  nextAt = 0;
  save();
  render();
  $('title').focus();
  if (isLeading) due(true);
};

$('retry').onclick = () => {
  if (isLeading) due(true);
  else tell({ hurry: true });
};

$('leave').onclick = () => /** @type {HTMLDialogElement} */ ($('confirm')).showModal();
$('confirm').addEventListener('close', async () => {
  const dialog = /** @type {HTMLDialogElement} */ ($('confirm'));
  if (dialog.returnValue !== 'go' || !place?.token) return;
  dialog.returnValue = '';
  const mine = place;
  const answer = await request(LINE, { method: 'DELETE', headers: { 'QUEUE-TOKEN': place.token } });
  if (answer?.ok || answer?.status === 401) {
    mine.status = 'EXPIRED';
    mine.reason = 'LEFT';
    place = mine;
  } else {
    failed(answer);
  }
  save();
  render();
  $('title').focus();
});

/** @type {AudioContext | null} */
let audio = null;
function chime() {
  if (!audio) return;
  const start = audio.currentTime;
  for (const [index, frequency] of [660, 880, 1_320].entries()) {
    const [tone, volume] = [audio.createOscillator(), audio.createGain()];
    const at = start + index * 0.18;
    tone.frequency.value = frequency;
    volume.gain.setValueAtTime(0.0001, at);
    volume.gain.exponentialRampToValueAtTime(0.3, at + 0.02);
    volume.gain.exponentialRampToValueAtTime(0.0001, at + 0.5);
    tone.connect(volume).connect(audio.destination);
    tone.start(at);
    tone.stop(at + 0.5);
  }
}
$('sound').onclick = () => {
  const isOn = $('sound').getAttribute('aria-checked') !== 'true';
  $('sound').setAttribute('aria-checked', String(isOn));
  if (!isOn) {
    audio?.close();
    audio = null;
    return;
  }
  // Browsers allow both only from a tap; the tones say that it works.
  audio = new AudioContext();
  chime();
  if ('Notification' in globalThis && Notification.permission === 'default') Notification.requestPermission();
};
function alarm() {
  if (!audio) return;
  chime();
  navigator.vibrate?.([200, 100, 200, 100, 400]);
  if (document.hidden && 'Notification' in globalThis && Notification.permission === 'granted') {
    try {
      new Notification(words.turn, { body: words.turnText, tag: 'boxoffice-turn' }).onclick = () => focus();
    } catch {
      // Android wants a service worker for it; the title and the sound remain.
    }
  }
}

/** @type {WakeLockSentinel | null} */
let wake = null;
async function keepAwake() {
  try {
    wake = await navigator.wakeLock.request('screen');
  } catch {
    // The battery is low, or the organiser's proxy forbids it.
    $('awake').setAttribute('aria-checked', 'false');
  }
}
show('awake', 'wakeLock' in navigator);
$('awake').onclick = () => {
  const isOn = $('awake').getAttribute('aria-checked') !== 'true';
  $('awake').setAttribute('aria-checked', String(isOn));
  if (isOn) keepAwake();
  else wake?.release();
};

// ---- Life of the page.

function awaken() {
  if (document.hidden) return;
  if ($('awake').getAttribute('aria-checked') === 'true' && wake?.released) keepAwake();
  if (!isLeading && Date.now() - heardAt > SILENCE_MS && navigator.locks) {
    heardAt = Date.now();
    lead(true);
  }
  // It may have been used in another tab.
  if (place?.status === 'ACTIVATED' && place.at && serverNow() - place.at > 5_000) nextAt = Math.min(nextAt, Date.now());
  render();
  due();
}
document.addEventListener('visibilitychange', awaken);
addEventListener('pageshow', awaken);
addEventListener('online', () => {
  if (trouble?.kind !== 'offline') return;
  // Not all at once: a whole building may be back at the same time.
  inMs(Math.random() * 1_000);
  schedule();
  render();
});
addEventListener('offline', () => {
  trouble = { kind: 'offline' };
  render();
});
setInterval(() => {
  const state = stateOf();
  renderTrouble(state);
  renderClocks(state);
  if (!isLeading && !document.hidden && Date.now() - heardAt > Math.max(SILENCE_MS, nextAt - Date.now() + SILENCE_MS)) awaken();
}, 1_000);

// A concert to go on to may differ from the one that the place was taken for.
if (place && query.get('c') && /^\d{1,18}$/.test(query.get('c') ?? '')) place.concert = query.get('c') ?? place.concert;
renderLanguage();
readConcert().then(render);
lead();
tell({ hello: true });
