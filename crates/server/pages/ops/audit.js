// Whether the books are in order.
import { count, fill, h, main, say } from '/assets/lib/kit.js';
import { badge, call, clock, errorText, heading, serviceNow, sheet, title, words } from '/assets/ops/shell.js';

/** An audit of large books takes a while. */
const TIMEOUT_MS = 120_000;

export function show(/** @type {import('./types.js').View} */ { signal }) {
  title(words.audit);
  const found = h('div', { className: 'form' });
  const button = /** @type {HTMLButtonElement} */ (h('button', { type: 'button', id: 'run', className: 'primary', onclick: run }, words.runAudit));
  async function run() {
    button.disabled = true;
    fill(found, h('p', { className: 'loading' }, words.auditRunning));
    const answer = await call('/audit', { timeoutMs: TIMEOUT_MS });
    if (signal.aborted) return;
    button.disabled = false;
    if (!answer.ok) return fill(found, h('p', { className: 'wrong', role: 'alert' }, errorText(answer)));
    const { clean, invariants } = /** @type {import('./types.js').AuditReport} */ (answer.body);
    fill(found,
      h('div', { className: `verdict ${clean ? 'good' : 'bad'}`, id: 'verdict' }, h('strong', {}, clean ? `✓ ${words.auditClean}` : `✕ ${words.auditBroken}`), !clean && h('p', {}, words.auditTodo), h('p', { className: 'tab' }, words.readAt(clock(serviceNow())))),
      h('section', { className: 'card' }, sheet(words.audit, [
        { name: words.rule, cell: (it) => `${it.code} · ${it.title}` },
        { name: words.state, cell: (it) => badge(it.violations > 0 ? 'BROKEN' : 'CLEAN') },
        { name: words.checked, isNumber: true, cell: (it) => count(it.checked) },
        { name: words.violations, isNumber: true, cell: (it) => count(it.violations) },
        ...(clean ? [] : [{ name: words.examples, cell: (/** @type {typeof invariants[0]} */ it) => h('code', {}, it.examples.join('\n') || words.nothing) }]),
      ], invariants)));
    say(clean ? words.auditClean : words.auditBroken, !clean);
  }
  fill(main, heading(words.audit, button), h('p', { className: 'soft' }, words.auditText), found);
}
