// A hall: its places, how they stand, which of the free ones fit together, and the pictures of it. A session without a plan
// is a hall of numbers.
//
// Places are known by their numbers, from 1 on, as the service knows them.
//
// What does not belong here: what becomes of a place that is pressed; see fan/seats.js.
import { API, ask, chip, count, h, isPassing, points, renew, svg, words } from '/assets/lib/kit.js';

/** @typedef {import('../types.js').Answer} Answer */
/** @typedef {import('../types.js').Box} Box */
/** @typedef {import('../types.js').Grade} Grade */
/** @typedef {import('../types.js').Hall} Hall */
/** @typedef {import('../types.js').Look} Look */
/** @typedef {import('../types.js').Plan} Plan */
/** @typedef {import('../types.js').Row} Row */
/** @typedef {import('../types.js').Section} Section */
/** @typedef {import('../types.js').States} States */

/** How a place stands, as the service counts it, two bits each; the last: nobody knows yet. */
export const FREE = 0;
const HELD = 1;
export const SOLD = 2;
const UNKNOWN = 3;

// ---- What there is.

/** @returns {Hall} */
function emptyHall(/** @type {number} */ total, /** @type {Grade[]} */ grades) {
  return {
    total, grades, sections: [], rows: [], stage: null, hasPlan: false, ids: [],
    x: new Float32Array(total), y: new Float32Array(total), grade: new Uint16Array(total), row: new Uint32Array(total),
    begins: new Uint8Array(total), states: new Uint8Array(total).fill(UNKNOWN),
  };
}

/** Positions along an axis: at equal distances, or the first and how far each is from the one before. */
function lay(/** @type {Float32Array} */ on, /** @type {number} */ at, /** @type {number} */ many, from = 0, by = 0, /** @type {number[] | undefined} */ steps = undefined) {
  let here = steps ? 0 : from - by;
  for (let k = 0; k < many; k += 1) {
    here += steps ? steps[k] ?? 0 : by;
    on[at + k] = here;
  }
}

/** A hall as its plan has it. `grades` are those of the session, with their prices. @returns {Hall} */
export function hallOf(/** @type {Plan} */ plan, /** @type {Grade[]} */ grades) {
  const of = plan.grades.map((name) => Math.max(0, grades.findIndex((it) => it.name === name)));
  const total = plan.sections.reduce((sum, it) => sum + ('count' in it ? it.count : it.rows.reduce((all, row) => all + row.count, 0)), 0);
  const hall = { ...emptyHall(total, grades), hasPlan: true, stage: plan.stage };
  const { x, y, grade, begins } = hall;
  let at = 0;
  for (const from of plan.sections) {
    const [first, firstRow] = [at, hall.rows.length];
    const take = (/** @type {string} */ name, /** @type {number} */ places, /** @type {(k: number) => string} */ label) => {
      hall.row.fill(hall.rows.length, at, at + places);
      hall.rows.push({ name, section: hall.sections.length, first: at + 1, count: places, label });
      at += places;
    };
    if ('count' in from) {
      x.fill(from.x + from.width / 2, at, at + from.count);
      y.fill(from.y + from.height / 2, at, at + from.count);
      grade.fill(of[from.grade] ?? 0, at, at + from.count);
      begins.fill(1, at, at + from.count);
      take('', from.count, (k) => String(k + 1));
    } else {
      for (const row of from.rows) {
        const { labels, grades: each } = row;
        lay(x, at, row.count, row.x, row.dx, row.xs);
        lay(y, at, row.count, row.y, row.dy, row.ys);
        for (let k = 0; k < row.count; k += 1) grade[at + k] = of[each?.[k] ?? row.grade ?? 0] ?? 0;
        begins[at] = 1;
        for (const k of row.gaps ?? []) begins[at + k] = 1;
        take(row.name, row.count, (k) => labels?.[k] ?? String((row.first ?? 1) + k * (row.step ?? 1)));
      }
    }
    const box = 'count' in from ? { x: from.x, y: from.y, w: from.width, h: from.height } : boxOf(hall, first, at);
    hall.sections.push({ name: from.name, isStanding: 'count' in from, first: first + 1, count: at - first, rows: [firstRow, hall.rows.length], box, grades: [...new Set(grade.subarray(first, at))].sort((a, b) => a - b), free: grades.map(() => 0) });
  }
  return hall;
}

/** A hall of numbers, in rows of so many. @param {(number: number) => number} gradeOf Which of the grades a place has. @returns {Hall} */
export function hallOfNumbers(/** @type {number} */ total, gradeOf, /** @type {Grade[]} */ grades, /** @type {number} */ width) {
  const hall = emptyHall(total, grades);
  for (let at = 0; at < total; at += 1) {
    hall.x[at] = at;
    hall.grade[at] = gradeOf(at + 1);
    hall.row[at] = Math.floor(at / width);
  }
  for (let first = 0; first < total; first += width) {
    hall.rows.push({ name: '', section: 0, first: first + 1, count: Math.min(width, total - first), label: (k) => String(first + k + 1) });
  }
  hall.begins.fill(1, 0, 1);
  hall.sections.push({ name: '', isStanding: false, first: 1, count: total, rows: [0, hall.rows.length], box: boxOf(hall, 0, total), grades: grades.map((_, index) => index), free: grades.map(() => 0) });
  return hall;
}

/** @returns {Box} */
function boxOf(/** @type {Hall} */ hall, /** @type {number} */ from, /** @type {number} */ to) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let at = from; at < to; at += 1) {
    const [x, y] = [hall.x[at] ?? 0, hall.y[at] ?? 0];
    [left, right] = [Math.min(left, x), Math.max(right, x)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  }
  return left > right ? { x: 0, y: 0, w: 0, h: 0 } : { x: left, y: top, w: right - left, h: bottom - top };
}

export const stateOf = (/** @type {Hall} */ hall, /** @type {number} */ number) => hall.states[number - 1] ?? UNKNOWN;
export const gradeOf = (/** @type {Hall} */ hall, /** @type {number} */ number) => hall.grades[hall.grade[number - 1] ?? 0];
const rowOf = (/** @type {Hall} */ hall, /** @type {number} */ number) => /** @type {Row} */ (hall.rows[hall.row[number - 1] ?? 0]);
export const sectionOf = (/** @type {Hall} */ hall, /** @type {number} */ number) => rowOf(hall, number).section;
const labelOf = (/** @type {Hall} */ hall, /** @type {number} */ number) => {
  const row = rowOf(hall, number);
  return row.label(number - row.first);
};
const sectionName = (/** @type {Hall} */ hall, /** @type {number} */ section) => words.section(hall.sections[section]?.name ?? '');
/** How many places are free: of a section or, below 0, of all; of a grade or, below 0, of any. */
export function freeOf(/** @type {Hall} */ hall, section = -1, grade = -1) {
  const some = section < 0 ? hall.sections : hall.sections.slice(section, section + 1);
  return some.reduce((sum, { free }) => sum + (grade < 0 ? free.reduce((a, b) => a + b, 0) : free[grade] ?? 0), 0);
}

/** What a place is called. */
export function placeName(/** @type {Hall} */ hall, /** @type {number} */ number) {
  if (!hall.hasPlan) return words.seat(String(number));
  const row = rowOf(hall, number);
  return words.place(hall.sections[row.section]?.name ?? '', row.name, [labelOf(hall, number)]);
}
/** What places are called, those of a row together. @returns {string[]} */
export function placeNames(/** @type {Hall} */ hall, /** @type {number[]} */ numbers) {
  if (!hall.hasPlan) return numbers.map((it) => placeName(hall, it));
  /** @type {Map<Row, string[]>} */
  const byRow = new Map();
  for (const number of numbers) {
    const row = rowOf(hall, number);
    byRow.set(row, [...byRow.get(row) ?? [], labelOf(hall, number)]);
  }
  return [...byRow].map(([row, labels]) => words.place(hall.sections[row.section]?.name ?? '', row.name, labels));
}

// ---- The ids of seats, which the service knows them by in requests: ranges of [first number, its id, how many].

/** @returns {number} 0 where there is none. */
export function idOf(/** @type {Hall} */ hall, /** @type {number} */ number) {
  const range = hall.ids.find(([first, , many]) => number >= first && number < first + many);
  return range ? range[1] + number - range[0] : 0;
}
/** @returns {number} 0 where there is none. */
export function numberOf(/** @type {Hall} */ hall, /** @type {number} */ id) {
  const range = hall.ids.find(([, first, many]) => id >= first && id < first + many);
  return range ? range[0] + id - range[1] : 0;
}

// ---- How places stand.

/** Takes in how places stand, all or those that changed. @returns {number[]} Those that stand otherwise than before. */
export function take(/** @type {Hall} */ hall, /** @type {States} */ news) {
  /** @type {number[]} */
  const changed = [];
  const set = (/** @type {number} */ number, /** @type {number} */ state) => {
    const at = number - 1;
    const before = hall.states[at];
    if (before === undefined || before === state) return;
    const [free, grade] = [hall.sections[sectionOf(hall, number)]?.free, hall.grade[at] ?? 0];
    if (free) free[grade] = (free[grade] ?? 0) + Number(state === FREE) - Number(before === FREE);
    hall.states[at] = state;
    changed.push(number);
  };
  if (news.states === undefined) {
    for (const number of news.free ?? []) set(number, FREE);
    for (const number of news.held ?? []) set(number, HELD);
    for (const number of news.sold ?? []) set(number, SOLD);
    return changed;
  }
  hall.ids = news.seatIds ?? hall.ids;
  const bytes = atob(news.states);
  const known = Math.min(hall.total, news.count ?? 0);
  for (let at = 0; at < known; at += 1) set(at + 1, (bytes.charCodeAt(at >> 2) >> ((at & 3) * 2)) & 3);
  return changed;
}

/** As long as a stream may be silent at its beginning: something on the way may keep it back until it ends. */
const STREAM_FIRST_MS = 4_000;
/** And later: it has a heartbeat every 10 s. */
const STREAM_SILENT_MS = 25_000;
const ask3to5s = () => 3_000 + Math.random() * 2_000;

/**
 * Keeps up with how places stand, from a version on: by a stream or, where that does not come through, by asking every few
 * seconds. A page that nobody looks at does neither, and catches up when it is looked at again.
 * @param {{ path: string, token: string, version: string, told: (news: States) => void, refused: (answer: Answer) => void }} options
 */
export function keepUp({ path, token, version, told, refused }) {
  let hasStream = true;
  let isOver = false;
  /** Ends what is waited for. */
  let interrupt = () => {};
  /** @type {(() => void)[]} */
  let waiting = [];

  const pause = (/** @type {number} */ ms) => new Promise((/** @type {(value?: unknown) => void} */ resolve) => {
    const timer = setTimeout(resolve, ms);
    interrupt = () => {
      clearTimeout(timer);
      resolve();
    };
  });
  const whileHidden = async () => {
    while (document.hidden) {
      await new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }));
    }
  };
  const accept = (/** @type {States} */ news) => {
    version = news.version;
    told(news);
  };

  /** Reads a stream to its end. Returns whether it brought anything. */
  async function read() {
    const abort = new AbortController();
    const end = () => abort.abort();
    interrupt = end;
    const onHidden = () => document.hidden && end();
    document.addEventListener('visibilitychange', onHidden);
    let silence = setTimeout(end, STREAM_FIRST_MS);
    let cameThrough = false;
    try {
      const headers = { 'QUEUE-TOKEN': token, 'Last-Event-ID': version, Accept: 'text/event-stream' };
      const response = await fetch(`${API}${path}/seats/stream`, { headers, cache: 'no-store', signal: abort.signal });
      // Whoever asks for what changed is told why there is no stream.
      if (!response.ok || !response.body) return true;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return true;
        cameThrough = true;
        clearTimeout(silence);
        silence = setTimeout(end, STREAM_SILENT_MS);
        const events = (text + value).split(/\r?\n\r?\n/);
        text = events.pop() ?? '';
        for (const event of events) {
          const data = event.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5)).join('\n');
          if (data) accept(JSON.parse(data));
        }
      }
    } catch {
      return cameThrough || !navigator.onLine || document.hidden;
    } finally {
      clearTimeout(silence);
      document.removeEventListener('visibilitychange', onHidden);
      end();
    }
  }

  async function run() {
    while (!isOver) {
      if (hasStream && waiting.length === 0) {
        const began = Date.now();
        const isHurried = () => waiting.length > 0 || document.hidden;
        const cameThrough = await read();
        if (!cameThrough && !isHurried()) hasStream = false;
        // One that ends at once would be asked for again and again; and when a service stops, not all come back at once.
        if (!isHurried()) await pause(Date.now() - began < 3_000 ? ask3to5s() : Math.random() * 1_500);
      } else if (waiting.length === 0) {
        await pause(ask3to5s());
      }
      await whileHidden();
      if (isOver) return;
      const wanted = waiting;
      waiting = [];
      const answer = await ask(`${path}/seats?since=${encodeURIComponent(version)}`, { token });
      if (answer.ok) accept(answer.body);
      else if (!isPassing(answer)) refused(answer);
      for (const done of wanted) done();
    }
  }
  run();
  return {
    /** Asks what changed, at once. @returns {Promise<void>} */
    now: () => new Promise((resolve) => {
      waiting.push(resolve);
      interrupt();
    }),
    stop() {
      isOver = true;
      interrupt();
    },
  };
}

// ---- What fits together.

/**
 * So many free places next to each other, of a grade and, where it is 0 or more, of a section: of those that leave no single
 * place where there are such, the ones that are nearest to a place.
 * @param {(number: number) => boolean} isFree
 * @returns {number[] | null}
 */
export function together(/** @type {Hall} */ hall, /** @type {number} */ many, isFree, { near = 1, grade = -1, section = -1 } = {}) {
  const [nearX, nearY] = [hall.x[near - 1] ?? 0, hall.y[near - 1] ?? 0];
  /** @type {number[] | null} */
  let best = null;
  let least = Infinity;
  for (const [index, { isStanding, first, count: places }] of hall.sections.entries()) {
    if (isStanding || (section >= 0 && index !== section)) continue;
    // How many free ones of the run end here.
    let free = 0;
    for (let number = first; number < first + places; number += 1) {
      if (hall.begins[number - 1]) free = 0;
      free = isFree(number) ? free + 1 : 0;
      if (free < many) continue;
      const group = Array.from({ length: many }, (_, k) => number - many + 1 + k);
      if (grade >= 0 && group.some((it) => hall.grade[it - 1] !== grade)) continue;
      const goesOn = (/** @type {number} */ it) => it < first + places && !hall.begins[it - 1] && isFree(it);
      const leavesOne = free - many === 1 || (goesOn(number + 1) && !goesOn(number + 2));
      const middle = number - (many - 1) / 2;
      const [x, y] = [hall.x[Math.floor(middle) - 1] ?? 0, hall.y[Math.floor(middle) - 1] ?? 0];
      const cost = (leavesOne ? 1e15 : 0) + (x - nearX) ** 2 + (y - nearY) ** 2;
      if (cost < least) [best, least] = [group, cost];
    }
  }
  return best;
}

/** The free places of a grade that are nearest to a place. @param {(number: number) => boolean} isFree @returns {number[]} */
export function nearest(/** @type {Hall} */ hall, /** @type {number} */ many, isFree, { near = 1, grade = -1 } = {}) {
  const far = (/** @type {number} */ it) => ((hall.x[it - 1] ?? 0) - (hall.x[near - 1] ?? 0)) ** 2 + ((hall.y[it - 1] ?? 0) - (hall.y[near - 1] ?? 0)) ** 2;
  const found = [];
  for (let number = 1; number <= hall.total; number += 1) {
    if (isFree(number) && (grade < 0 || hall.grade[number - 1] === grade) && !hall.sections[sectionOf(hall, number)]?.isStanding) found.push(number);
  }
  return found.sort((a, b) => far(a) - far(b) || a - b).slice(0, many);
}

// ---- Pictures.

/** Places that are drawn at a time: more would be slow on a phone. */
const PART = 500;
/** Pixels between places that are next to each other, at least and at first at most: a finger hits what has 24. */
const STEP_MIN = 28;
const STEP_MAX = 40;

/** @returns {SVGElement} */

const isCalm = matchMedia('(prefers-reduced-motion: reduce)');
const clamp = (/** @type {number} */ n, /** @type {number} */ least, /** @type {number} */ most) => Math.max(least, Math.min(most, n));
const shorten = (/** @type {string} */ text, /** @type {number} */ most) => {
  const signs = [...text];
  return signs.length <= most ? text : `${signs.slice(0, Math.max(1, most - 1)).join('')}…`;
};

/** The corners around points, from the left one on. @returns {[number, number][]} */
function hullOf(/** @type {[number, number][]} */ points) {
  const sorted = [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const half = (/** @type {[number, number][]} */ some) => {
    /** @type {[number, number][]} */
    const kept = [];
    for (const point of some) {
      for (;;) {
        const [a, b] = [kept.at(-2), kept.at(-1)];
        if (!a || !b || (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0]) > 0) break;
        kept.pop();
      }
      kept.push(point);
    }
    return kept.slice(0, -1);
  };
  return [...half(sorted), ...half(sorted.reverse())];
}

/** How far apart places are that are next to each other: few are nearer. 0 where they have no positions. */
function stepOf(/** @type {Hall} */ hall, /** @type {number[]} */ numbers) {
  const every = Math.ceil(numbers.length / 100);
  const found = [];
  for (let at = 0; at < numbers.length; at += every) {
    let least = Infinity;
    const one = (numbers[at] ?? 1) - 1;
    for (const number of numbers) {
      const far = Math.hypot((hall.x[number - 1] ?? 0) - (hall.x[one] ?? 0), (hall.y[number - 1] ?? 0) - (hall.y[one] ?? 0));
      if (far > 0 && far < least) least = far;
    }
    if (least < Infinity) found.push(least);
  }
  return found.sort((a, b) => a - b)[Math.floor(found.length / 20)] ?? (numbers.length === 1 ? 1 : 0);
}

/** Places of a section that are shown at a time, row by row. @returns {number[][][]} */
function partsOf(/** @type {Hall} */ hall, /** @type {Section} */ section) {
  /** @type {number[][][]} */
  const parts = [[]];
  let left = PART;
  for (const row of hall.rows.slice(...section.rows)) {
    for (let from = 0; from < row.count; from += PART) {
      const some = Array.from({ length: Math.min(PART, row.count - from) }, (_, k) => row.first + from + k);
      if (some.length > left) {
        parts.push([]);
        left = PART;
      }
      parts.at(-1)?.push(some);
      left -= some.length;
    }
  }
  return parts;
}

/**
 * The hall to look at and to choose in: all of it, or a section or a part of one, as a picture or as a table.
 * @param {Hall} hall
 * @param {{ lookOf: (number: number) => Look, press: (number: number) => void, wayInto: (section: number) => HTMLElement | null, marked: () => number }} options
 *   What a place is at the moment; what is done with one that is pressed; what else leads into a section; and which one stands out.
 */
export function pictureOf(hall, { lookOf, press, wayInto, marked }) {
  const isOne = hall.sections.length === 1;
  /** The section that is open; below 0, none. */
  let open = isOne ? 0 : -1;
  let part = 0;
  let wantsTable = false;
  /** The grade that is looked for; below 0, any. */
  let grade = -1;
  /** The parts of the section that is open, and the rows of the one that is shown. @type {number[][][]} */
  let parts = [];
  /** @type {number[][]} */
  let lines = [];
  /** What is drawn over a seat that somebody holds. @type {Record<string, string | number>} */
  let hatch = {};
  /** What is drawn, by number. @type {Map<number, { cell: HTMLElement | SVGElement, sign: Element, label: string, mark: string }>} */
  let cells = new Map();
  /** The sections of the picture. @type {Map<number, { shape: SVGElement, edge: SVGElement, text: SVGElement, at: [number, number], room: [number, number], step: number }>} */
  let shapes = new Map();

  const head = h('div', { className: 'hall-head' });
  const nav = h('div', { className: 'parts', role: 'group', ariaLabel: words.parts });
  const bar = h('div', { className: 'map-bar', role: 'group', ariaLabel: words.mapTools });
  const view = h('div', { className: 'view' });
  const hint = h('p', { className: 'small' });
  const element = h('div', { className: 'hall-in' }, head, nav, bar, view, hint);

  // ---- Looking closer.

  /** @type {SVGElement | null} */
  let picture = null;
  let size = { w: 1, h: 1 };
  let [scale, least, most] = [1, 1, 1];

  function zoom(/** @type {number} */ to, x = view.clientWidth / 2, y = view.clientHeight / 2) {
    if (!picture) return;
    const before = scale;
    scale = clamp(to, least, most);
    picture.setAttribute('width', String(Math.round(size.w * scale)));
    picture.setAttribute('height', String(Math.round(size.h * scale)));
    view.scrollTo((view.scrollLeft + x) * (scale / before) - x, (view.scrollTop + y) * (scale / before) - y);
    drawNames();
    for (const [name, isEnd] of /** @type {const} */ ([['zoom-in', scale >= most], ['zoom-out', scale <= least]])) {
      bar.querySelector(`#${name}`)?.setAttribute('aria-disabled', String(isEnd));
    }
  }
  const pan = (/** @type {number} */ x, /** @type {number} */ y) => view.scrollBy({ left: x * view.clientWidth * 0.6, top: y * view.clientHeight * 0.6, behavior: isCalm.matches ? 'auto' : 'smooth' });
  const tool = (/** @type {string} */ id, /** @type {string} */ sign, /** @type {string} */ name, /** @type {() => void} */ onclick) => h('button', { type: 'button', id, className: 'tool', ariaLabel: name, title: name, onclick }, sign);
  bar.append(
    tool('zoom-in', '+', words.zoomIn, () => zoom(scale * 1.4)), tool('zoom-out', '−', words.zoomOut, () => zoom(scale / 1.4)),
    tool('pan-left', '←', words.panLeft, () => pan(-1, 0)), tool('pan-up', '↑', words.panUp, () => pan(0, -1)), tool('pan-down', '↓', words.panDown, () => pan(0, 1)), tool('pan-right', '→', words.panRight, () => pan(1, 0)));
  // Two fingers; one moves the picture as it moves any page.
  let pinch = { from: 0, scale: 1 };
  const between = (/** @type {TouchList} */ { 0: a, 1: b }) => (a && b ? Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) : 0);
  view.addEventListener('touchstart', ({ touches }) => { pinch = { from: between(touches), scale }; }, { passive: true });
  view.addEventListener('touchmove', (event) => {
    const { 0: a, 1: b } = event.touches;
    if (!a || !b || !picture || pinch.from === 0) return;
    event.preventDefault();
    const box = view.getBoundingClientRect();
    zoom(pinch.scale * between(event.touches) / pinch.from, (a.clientX + b.clientX) / 2 - box.x, (a.clientY + b.clientY) / 2 - box.y);
  }, { passive: false });
  view.addEventListener('wheel', (event) => {
    if (!event.ctrlKey || !picture) return;
    event.preventDefault();
    const box = view.getBoundingClientRect();
    zoom(scale * Math.exp(-event.deltaY / 200), event.clientX - box.x, event.clientY - box.y);
  }, { passive: false });

  /** Puts a picture in its place. `step`: how far apart its places are, of which each is to be hit by a finger. */
  function frame(/** @type {Box} */ box, /** @type {number} */ margin, /** @type {number} */ step, /** @type {Record<string, string>} */ attributes) {
    const around = { x: box.x - margin, y: box.y - margin, w: box.w + 2 * margin, h: box.h + 2 * margin };
    size = around;
    picture = svg('svg', { viewBox: `${around.x} ${around.y} ${around.w} ${around.h}`, ...attributes });
    view.replaceChildren(picture);
    const fits = Math.min((view.clientWidth || 320) / around.w, Math.max(320, innerHeight * 0.6) / around.h);
    // Nobody can look at what is larger than this.
    const bound = 12_000 / Math.max(around.w, around.h);
    least = step > 0 ? Math.min(bound, STEP_MIN / step) : fits;
    most = Math.min(bound, step > 0 ? least * 2.5 : least * 6);
    scale = least;
    zoom(step > 0 ? clamp(fits, least, STEP_MAX / step) : fits);
    // What is too wide begins in the middle, where most want to be.
    if (step > 0) view.scrollLeft = (view.scrollWidth - view.clientWidth) / 2;
    return picture;
  }

  // ---- All of the hall.

  /** Whether a section has what is looked for. */
  const isLooked = (/** @type {number} */ section) => grade < 0 || (hall.sections[section]?.grades.includes(grade) ?? false);

  const sectionText = (/** @type {number} */ index) => {
    const { isStanding, grades } = /** @type {Section} */ (hall.sections[index]);
    const costs = grades.map((it) => hall.grades[it]).filter((it) => it !== undefined).map((it) => `${words.grade(it.name)} ${points(it.price)}`);
    return words.sectionLabel(sectionName(hall, index), isStanding, costs, count(freeOf(hall, index, grade)));
  };

  function drawHall() {
    const all = hall.sections.map((it) => it.box);
    const [left, top] = [Math.min(...all.map((it) => it.x)), Math.min(...all.map((it) => it.y))];
    const box = { x: left, y: top, w: Math.max(...all.map((it) => it.x + it.w)) - left, h: Math.max(...all.map((it) => it.y + it.h)) - top };
    const span = Math.max(box.w, box.h, 1);
    const stage = hall.stage;
    // A stage that is nowhere near is a mistake of the plan.
    const hasStage = stage !== null && stage.x > left - span && stage.x < left + box.w + span && stage.y > top - span && stage.y < top + box.h + span;
    // As high as there is room for before the places.
    const room = stage ? Math.min(...all.filter((it) => Math.abs(it.x + it.w / 2 - stage.x) < it.w / 2 + span * 0.12).map((it) => Math.max(it.y - stage.y, stage.y - it.y - it.h, 0)), span) : 0;
    const stageSize = { w: span * 0.24, h: clamp(room * 1.5, span * 0.03, span * 0.07) };
    const whole = { ...box };
    if (hasStage) {
      const [x, y] = [stage.x - stageSize.w / 2, stage.y - stageSize.h / 2];
      [whole.x, whole.y] = [Math.min(left, x), Math.min(top, y)];
      whole.w = Math.max(left + box.w, x + stageSize.w) - whole.x;
      whole.h = Math.max(top + box.h, y + stageSize.h) - whole.y;
    }
    shapes = new Map();
    const to = frame(whole, span * 0.035, 0, { role: 'group', class: 'hall-map', 'aria-label': words.hallLabel });
    if (hasStage) {
      const label = svg('text', { x: stage.x, y: stage.y, 'font-size': Math.min(stageSize.h * 0.6, 14 / scale) }, words.stage);
      to.append(svg('g', { class: 'stage', 'aria-hidden': 'true' }, svg('rect', { x: stage.x - stageSize.w / 2, y: stage.y - stageSize.h / 2, width: stageSize.w, height: stageSize.h, rx: stageSize.h * 0.3 }), label));
    }
    // The smaller ones over the larger ones.
    const order = [...hall.sections.keys()].sort((a, b) => (all[b]?.w ?? 0) * (all[b]?.h ?? 0) - (all[a]?.w ?? 0) * (all[a]?.h ?? 0));
    const names = svg('g', { class: 'names', 'aria-hidden': 'true' });
    for (const index of order) {
      const section = /** @type {Section} */ (hall.sections[index]);
      const corners = cornersOf(section);
      const d = `M${corners.map((it) => it.join(' ')).join('L')}Z`;
      const step = section.isStanding ? 0 : Math.max(span * 0.008, Math.sqrt(section.box.w * section.box.h / Math.max(1, section.count)) * 0.8);
      const middle = /** @type {[number, number]} */ ([section.box.x + section.box.w / 2, section.box.y + section.box.h / 2]);
      const text = svg('text', {});
      const edge = svg('path', { class: 'edge', d });
      const shape = svg('g', { class: `section g${(section.grades[0] ?? 0) % 4}`, role: 'button', id: `section${index}`, tabindex: -1, 'data-section': index },
        edge, svg('path', { class: 'shade', d, 'stroke-width': step }));
      names.append(text);
      shapes.set(index, { shape, edge, text, at: middle, room: [section.box.w + step, section.box.h + step], step });
      to.append(shape);
    }
    to.append(names);
    drawNames();
    shapes.forEach((_, index) => paintSection(index));
    shapes.get(0)?.shape.setAttribute('tabindex', '0');
  }

  /** @returns {[number, number][]} */
  function cornersOf(/** @type {Section} */ { isStanding, box, rows }) {
    if (isStanding) return [[box.x, box.y], [box.x + box.w, box.y], [box.x + box.w, box.y + box.h], [box.x, box.y + box.h]];
    /** @type {[number, number][]} */
    const some = [];
    for (const row of hall.rows.slice(...rows)) {
      // A row may be bent.
      for (let k = 0; k <= 6; k += 1) {
        const at = row.first - 1 + Math.round((row.count - 1) * k / 6);
        some.push([hall.x[at] ?? 0, hall.y[at] ?? 0]);
      }
    }
    const corners = hullOf(some);
    return corners.length > 0 ? corners : some.slice(0, 1);
  }

  /** Writes into sections what they have room for, and keeps their outlines as fine as they were. */
  function drawNames() {
    const em = 11.5 / scale;
    /** What is written already. @type {Box[]} */
    const taken = [];
    for (const [index, { text, edge, at: [x, y], room: [w, tall], step }] of shapes) {
      edge.setAttribute('stroke-width', String(step + 3.5 / scale));
      const name = shorten(hall.sections[index]?.name ?? '', Math.floor(w / em / 0.66));
      const lines = w > em * 1.5 && tall > em * 1.1 ? [name, ...(tall > em * 2.6 && isLooked(index) ? [count(freeOf(hall, index, grade))] : [])] : [];
      while (lines.length > 0) {
        const wide = Math.max(...lines.map((it) => [...it].length)) * em * 0.66;
        const box = { x: x - wide / 2, y: y - lines.length * em * 0.6, w: wide, h: lines.length * em * 1.2 };
        const isFree = taken.every((it) => box.x > it.x + it.w || box.x + box.w < it.x || box.y > it.y + it.h || box.y + box.h < it.y);
        if (isFree && wide < w * 1.2) {
          taken.push(box);
          break;
        }
        lines.pop();
      }
      const written = [em, ...lines].join();
      if (text.dataset.written === written) continue;
      text.dataset.written = written;
      text.setAttribute('font-size', String(em));
      text.replaceChildren(...lines.map((line, at) => svg('tspan', { x, y: y + em * (at * 1.15 - (lines.length - 1) * 0.55 + 0.35), ...(at > 0 ? { class: 'free' } : {}) }, line)));
    }
  }

  function paintSection(/** @type {number} */ index) {
    const drawn = shapes.get(index);
    const section = hall.sections[index];
    if (!drawn || !section) return;
    const free = freeOf(hall, index, grade);
    const part = free / Math.max(1, section.count);
    drawn.text.classList.toggle('other', !isLooked(index));
    drawn.shape.dataset.free = free === 0 ? '0' : part < 0.1 ? '1' : part < 0.5 ? '2' : '3';
    drawn.shape.classList.toggle('other', !isLooked(index));
    for (const it of [drawn.shape, drawn.text]) it.classList.toggle('mine', index === marked());
    drawn.shape.setAttribute('aria-label', sectionText(index));
  }

  function drawSections() {
    picture = null;
    shapes = new Map();
    renew(view, h('table', { className: 'sections' },
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, words.sectionHead), h('th', { scope: 'col' }, words.price), h('th', { scope: 'col' }, words.free))),
      h('tbody', {}, hall.sections.map((section, index) => isLooked(index) && h('tr', {},
        h('th', { scope: 'row' }, h('button', { type: 'button', id: `section${index}`, className: 'quiet', ariaLabel: sectionText(index), onclick: () => show(index) }, sectionName(hall, index))),
        h('td', {}, section.grades.map((it) => hall.grades[it]).map((it, nth) => it && h('span', { className: 'cost' }, chip(it.sign, section.grades[nth] ?? 0), points(it.price)))),
        h('td', {}, count(freeOf(hall, index, grade))))))));
  }

  // ---- A section.

  /** The name of a place, but for how it stands. */
  const fixedLabel = (/** @type {number} */ number) => {
    const it = gradeOf(hall, number);
    const cost = it ? `${words.grade(it.name)} ${points(it.price)}`.trim() : '';
    return `${placeName(hall, number)}, ${cost}`;
  };

  /** The sign of the grade of all places of a row; empty where they differ. */
  const signOf = (/** @type {number[]} */ line) => {
    const signs = new Set(line.map((it) => gradeOf(hall, it)?.sign ?? ''));
    return signs.size === 1 ? [...signs][0] ?? '' : '';
  };

  function drawPicture(/** @type {number[]} */ numbers, /** @type {number} */ step) {
    const [left, right, top, bottom] = [hall.x, hall.y].flatMap((axis) => {
      const all = numbers.map((it) => axis[it - 1] ?? 0);
      return [Math.min(...all), Math.max(...all)];
    });
    const box = { x: left ?? 0, y: top ?? 0, w: (right ?? 0) - (left ?? 0), h: (bottom ?? 0) - (top ?? 0) };
    const signed = (hall.sections[open]?.grades.length ?? 0) > 1;
    const to = frame(box, step * (signed ? 2.2 : 1.6), step, { role: 'grid', class: 'seats-map', 'aria-multiselectable': 'true', 'aria-label': gridLabel() });
    const side = step * 0.88;
    const half = side / 2;
    hatch = { class: 'hatch', d: `M${-half} 0L0 ${-half}M${-half} ${half}L${half} ${-half}M0 ${half}L${half} 0`, 'stroke-width': side / 9 };
    for (const line of lines) {
      const [first, next] = [line[0] ?? 1, line[1] ?? line[0] ?? 1];
      const row = rowOf(hall, first);
      const rowSign = signed ? signOf(line) : '';
      const group = svg('g', { role: 'row' });
      const far = Math.hypot((hall.x[next - 1] ?? 0) - (hall.x[first - 1] ?? 0), (hall.y[next - 1] ?? 0) - (hall.y[first - 1] ?? 0)) || step;
      const [dx, dy] = next === first ? [step, 0] : [((hall.x[next - 1] ?? 0) - (hall.x[first - 1] ?? 0)) / far * step, ((hall.y[next - 1] ?? 0) - (hall.y[first - 1] ?? 0)) / far * step];
      const anchor = Math.abs(dx) < Math.abs(dy) ? '' : dx > 0 ? ' before' : ' after';
      group.append(svg('text', { class: `row-name${anchor}`, role: 'rowheader', 'font-size': step * 0.4, x: (hall.x[first - 1] ?? 0) - dx * 0.75, y: (hall.y[first - 1] ?? 0) - dy * 0.75 + step * 0.14 }, shorten(row.name, 4), ...(signed ? [svg('tspan', { class: 'sign', dx: step * 0.2 }, shorten(rowSign, 3))] : [])));
      for (const number of line) {
        const label = labelOf(hall, number);
        const sign = svg('text', { 'font-size': step * clamp(0.95 / [...label].length, 0.16, 0.4), y: step * 0.14 });
        const cell = svg('g', { class: `seat g${(hall.grade[number - 1] ?? 0) % 4}`, role: 'gridcell', tabindex: -1, 'data-n': number, transform: `translate(${hall.x[number - 1]} ${hall.y[number - 1]})` },
          svg('rect', { x: -side / 2, y: -side / 2, width: side, height: side, rx: side * 0.28 }), sign);
        cells.set(number, { cell, sign, label: fixedLabel(number), mark: '' });
        sign.textContent = label;
        group.append(cell);
        if (signed && rowSign === '') group.append(svg('text', { class: 'sign', 'aria-hidden': 'true', 'font-size': step * 0.24, x: (hall.x[number - 1] ?? 0) + side * 0.28, y: (hall.y[number - 1] ?? 0) - side * 0.2 }, shorten(gradeOf(hall, number)?.sign ?? '', 2)));
      }
      to.append(group);
    }
  }

  function drawTable() {
    picture = null;
    const grid = h('div', { className: 'grid', role: 'grid', ariaMultiSelectable: 'true', ariaLabel: gridLabel() });
    grid.classList.toggle('long', lines.some((line) => line.some((it) => labelOf(hall, it).length > 4)));
    const signed = hall.grades.length > 1;
    for (const line of lines) {
      const row = rowOf(hall, line[0] ?? 1);
      const sign = hall.hasPlan ? signOf(line) : '';
      const group = h('div', { className: 'line' });
      for (const number of line) {
        const mark = h('i', {});
        const cell = h('button', { type: 'button', className: `seat g${(hall.grade[number - 1] ?? 0) % 4}`, role: 'gridcell', tabIndex: -1 }, h('span', {}, shorten(labelOf(hall, number), 6)), ' ', mark);
        cell.dataset.n = String(number);
        if (signed && sign === '') cell.dataset.grade = shorten(gradeOf(hall, number)?.sign ?? '', 2);
        if (hall.hasPlan && hall.begins[number - 1] && number !== line[0]) cell.classList.add('after-gap');
        cells.set(number, { cell, sign: mark, label: fixedLabel(number), mark: '' });
        group.append(cell);
      }
      group.setAttribute('role', hall.hasPlan ? 'none' : 'row');
      grid.append(hall.hasPlan ? h('div', { role: 'row', className: 'table-row' }, h('span', { role: 'rowheader', className: 'row-head' }, words.row(row.name), ' ', sign !== '' && (hall.sections[open]?.grades.length ?? 0) > 1 && chip(sign, hall.grade[row.first - 1] ?? 0)), group) : group);
    }
    view.replaceChildren(grid);
  }

  const gridLabel = () => (hall.hasPlan ? words.seatsOf(sectionName(hall, open)) : words.grid(String(lines[0]?.[0] ?? ''), String(lines.at(-1)?.at(-1) ?? '')));

  function drawSection() {
    const section = /** @type {Section} */ (hall.sections[open]);
    parts = partsOf(hall, section);
    lines = parts[part] ?? [];
    cells = new Map();
    shapes = new Map();
    drawParts();
    if (section.isStanding) {
      picture = null;
      view.replaceChildren(h('p', { className: 'standing' }, words.standingText(count(freeOf(hall, open)))));
      return;
    }
    const numbers = lines.flat();
    const step = hall.hasPlan ? stepOf(hall, numbers) : 0;
    if (isTable() || step === 0) drawTable();
    else {
      const axis = (/** @type {Float32Array} */ of, /** @type {number} */ it) => of[it - 1] ?? 0;
      const spread = (/** @type {Float32Array} */ of, /** @type {number[]} */ line) => Math.abs(axis(of, line[0] ?? 1) - axis(of, line.at(-1) ?? 1));
      // Arrows go where the eye sees the next one.
      lines = lines.map((line) => (spread(hall.x, line) > spread(hall.y, line) ? [...line].sort((a, b) => axis(hall.x, a) - axis(hall.x, b)) : line));
      const heights = lines.map((line) => axis(hall.y, line[0] ?? 1));
      if ((heights[0] ?? 0) > (heights.at(-1) ?? 0)) lines.reverse();
      drawPicture(numbers, step);
    }
    for (const number of numbers) paintSeat(number);
    const first = numbers.find((it) => lookOf(it).look === 'chosen') ?? numbers.find((it) => lookOf(it).look === 'free') ?? numbers[0] ?? 0;
    cells.get(first)?.cell.setAttribute('tabindex', '0');
  }

  function drawParts() {
    nav.hidden = parts.length < 2;
    if (nav.hidden) return;
    renew(nav, parts.map((some, index) => {
      const [first, last] = [some[0]?.[0] ?? 1, some.at(-1)?.at(-1) ?? 1];
      const name = hall.hasPlan ? words.rows(rowOf(hall, first).name, rowOf(hall, last).name) : words.part(String(first), String(last));
      const free = count(some.reduce((sum, line) => sum + line.filter((it) => stateOf(hall, it) === FREE).length, 0));
      return h('button', { type: 'button', id: `part${index}`, className: 'part', ariaPressed: String(index === part), onclick: () => { part = index; draw(); } }, h('b', {}, name), ' ', h('small', {}, words.partFree(free)));
    }));
  }

  /** Writes what has changed. */
  function paintSeat(/** @type {number} */ number) {
    const drawn = cells.get(number);
    if (!drawn) return;
    const { look, sign, status } = lookOf(number);
    if (drawn.mark === look) return;
    drawn.mark = look;
    const { cell } = drawn;
    cell.dataset.look = look;
    cell.setAttribute('aria-label', `${drawn.label}, ${status}`);
    cell.setAttribute('aria-selected', String(look === 'chosen'));
    cell.setAttribute('aria-disabled', String(look !== 'chosen' && look !== 'free'));
    if (cell instanceof HTMLElement) {
      drawn.sign.textContent = sign;
      return;
    }
    drawn.sign.textContent = look === 'held' ? '' : sign || labelOf(hall, number);
    if (look === 'held' && !cell.querySelector('.hatch')) cell.append(svg('path', hatch));
  }

  // ---- What is around it.

  const isTable = () => wantsTable || !hall.hasPlan;

  function drawHead() {
    const isOpen = open >= 0;
    const section = hall.sections[open];
    renew(head,
      isOpen && !isOne && h('button', { type: 'button', id: 'whole', className: 'quiet', onclick: () => show(-1) }, `‹ ${words.wholeHall}`),
      hall.hasPlan && h('div', { className: 'switch', role: 'group', ariaLabel: words.viewAs }, [false, true].map((it) => h('button', { type: 'button', id: it ? 'as-table' : 'as-map', className: 'quiet', ariaPressed: String(it === wantsTable), onclick: () => { wantsTable = it; draw(); } }, it ? words.asTable : words.asMap))),
      isOpen && section && hall.hasPlan && h('div', { className: 'hall-title' }, h('h3', { id: 'section-name', tabIndex: -1 }, sectionName(hall, open)),
        h('p', { className: 'soft' }, section.grades.map((it) => hall.grades[it]).map((it, nth) => it && h('span', { className: 'cost' }, chip(it.sign, section.grades[nth] ?? 0), points(it.price), ' ', h('small', {}, words.partFree(count(freeOf(hall, open, section.grades[nth])))))))),
      isOpen && hall.hasPlan && wayInto(open));
  }

  function draw() {
    cells = new Map();
    if (open >= 0) drawSection();
    else {
      nav.hidden = true;
      if (isTable()) drawSections();
      else drawHall();
    }
    drawHead();
    view.classList.toggle('has-picture', picture !== null);
    bar.hidden = picture === null;
    hint.textContent = open < 0 ? words.hallHint : hall.sections[open]?.isStanding ? '' : hall.hasPlan ? words.sectionHint : words.noPlan;
  }

  function show(/** @type {number} */ section, /** @type {number} */ number = 0) {
    const before = open;
    open = isOne ? 0 : section;
    part = number > 0 ? Math.max(0, partsOf(hall, /** @type {Section} */ (hall.sections[open])).findIndex((some) => some.some((line) => number >= (line[0] ?? 0) && number <= (line.at(-1) ?? 0)))) : 0;
    draw();
    if (number > 0) {
      cells.get(number)?.cell.scrollIntoView({ block: 'center', inline: 'center', behavior: isCalm.matches ? 'auto' : 'smooth' });
    } else if (open >= 0) {
      document.getElementById('section-name')?.focus();
    } else {
      const from = document.getElementById(`section${before}`);
      if (from instanceof SVGElement) moveTo(from);
      else from?.focus();
    }
  }

  // ---- Pointing and the keyboard: what is drawn is one stop, arrows move in it.

  function moveTo(/** @type {HTMLElement | SVGElement} */ target) {
    for (const other of view.querySelectorAll('[tabindex="0"]')) other.setAttribute('tabindex', '-1');
    target.setAttribute('tabindex', '0');
    target.focus();
  }

  view.onclick = (event) => {
    const target = event.target instanceof Element ? event.target.closest('[data-n], [data-section]') : null;
    if (target instanceof SVGElement && target.dataset.section) return show(Number(target.dataset.section));
    if (!(target instanceof HTMLElement || target instanceof SVGElement) || !target.dataset.n) return undefined;
    moveTo(target);
    return press(Number(target.dataset.n));
  };

  /** The section whose middle is nearest in a direction. */
  function beside(/** @type {number} */ index, /** @type {number} */ dx, /** @type {number} */ dy) {
    const from = shapes.get(index)?.at ?? [0, 0];
    let [best, cost] = [-1, Infinity];
    for (const [other, { at }] of shapes) {
      const [x, y] = [at[0] - from[0], at[1] - from[1]];
      const [along, across] = [x * dx + y * dy, Math.abs(x * dy) + Math.abs(y * dx)];
      // What is more beside than ahead comes last.
      const far = along + 2 * across + (across > along ? 1e9 : 0);
      if (along > 0 && far < cost) [best, cost] = [other, far];
    }
    return best;
  }

  view.onkeydown = (event) => {
    const active = document.activeElement;
    if (!(active instanceof HTMLElement || active instanceof SVGElement) || event.altKey || event.metaKey) return;
    const direction = /** @type {[number, number] | undefined} */ ({ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]);
    const isPressed = event.key === ' ' || event.key === 'Enter';
    if (active instanceof SVGElement && isPressed) {
      event.preventDefault();
      active.dispatchEvent(new MouseEvent('click', { bubbles: true }));
      return;
    }
    if (active instanceof SVGElement && active.dataset.section) {
      const all = hall.sections.length - 1;
      const to = direction ? beside(Number(active.dataset.section), ...direction) : event.key === 'Home' ? 0 : event.key === 'End' ? all : -1;
      const target = shapes.get(to)?.shape;
      if (direction || target) event.preventDefault();
      if (target) moveTo(target);
      return;
    }
    const number = Number(active.dataset.n ?? 0);
    const at = lines.findIndex((line) => line.includes(number));
    const line = lines[at];
    if (!line) return;
    const nth = line.indexOf(number);
    const inLine = (/** @type {number} */ other) => {
      const there = lines[clamp(other, 0, lines.length - 1)] ?? line;
      if (there === line) return number;
      if (!picture) return there[Math.min(nth, there.length - 1)];
      const far = (/** @type {number} */ it) => Math.hypot((hall.x[it - 1] ?? 0) - (hall.x[number - 1] ?? 0), (hall.y[it - 1] ?? 0) - (hall.y[number - 1] ?? 0));
      return there.reduce((best, it) => (far(it) < far(best) ? it : best), there[0] ?? number);
    };
    const to = {
      ArrowLeft: line[nth - 1] ?? lines[at - 1]?.at(-1), ArrowRight: line[nth + 1] ?? lines[at + 1]?.[0], ArrowUp: inLine(at - 1), ArrowDown: inLine(at + 1),
      PageUp: inLine(at - 5), PageDown: inLine(at + 5), Home: event.ctrlKey ? lines[0]?.[0] : line[0], End: event.ctrlKey ? lines.at(-1)?.at(-1) : line.at(-1),
    }[event.key];
    if (to === undefined && !direction) return;
    event.preventDefault();
    const target = cells.get(to ?? number)?.cell;
    if (target) moveTo(target);
  };

  /** Sections in which something has changed since they were drawn. @type {Set<number>} */
  const due = new Set();
  /** Writes how many are free, once for all that came at the same time. */
  function drawCounts() {
    const touched = [...due];
    due.clear();
    if (open >= 0) {
      if (!touched.includes(open)) return;
      drawHead();
      drawParts();
      if (hall.sections[open]?.isStanding) drawSection();
    } else if (picture) {
      drawNames();
      for (const index of touched) paintSection(index);
    } else {
      drawSections();
    }
  }

  return {
    element,
    draw,
    show,
    /** Shows what has changed. */
    repaint(/** @type {Iterable<number>} */ numbers) {
      const isDue = due.size > 0;
      for (const number of numbers) {
        paintSeat(number);
        due.add(sectionOf(hall, number));
      }
      if (!isDue && due.size > 0) requestAnimationFrame(drawCounts);
    },
    /** Shows where places of a grade are. */
    look(/** @type {number} */ of) {
      grade = of;
      if (open < 0) draw();
    },
    drawHead,
    /** Gives the focus to a place, where it is drawn. */
    focus(/** @type {number} */ number) {
      const drawn = cells.get(number);
      if (drawn) moveTo(drawn.cell);
    },
  };
}
