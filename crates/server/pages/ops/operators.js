// Who may work at the service.
import { fill, h, main, newKey } from '/assets/lib/kit.js';
import { call, day, errorText, field, heading, input, may, me, needs, openForm, read, reasonField, select, sheet, tell, title, words } from '/assets/ops/shell.js';

/** @typedef {import('./types.js').Role} Role */
/** @typedef {{ name: string, role: Role, createdAt: string }} Operator */

export async function show(/** @type {import('./types.js').View} */ { signal }) {
  title(words.operators);
  const told = h('div', {});

  function add() {
    const key = newKey();
    const name = input('operator', { maxLength: 40, spellcheck: false, autocapitalize: 'none' });
    const roles = /** @type {Role[]} */ (['viewer', 'operator', 'admin', 'cashier']);
    const role = select('role', roles.map((it) => [it, `${words.roles[it]}: ${words.roleHints[it]}`]));
    const { reason, row } = reasonField();
    openForm({
      title: words.addOperator, body: [field(words.operatorName, name, words.operatorNameHint), field(words.role, role), row], verb: words.addOperator,
      submit: async () => {
        const answer = await call('/operators', { method: 'POST', key, body: { name: name.value.trim(), role: role.value }, reason: reason.value });
        if (!answer.ok) return errorText(answer);
        const copy = h('button', { type: 'button', className: 'second', onclick: async () => { await navigator.clipboard?.writeText(answer.body.token ?? ''); copy.textContent = words.copied; } }, words.copy);
        fill(told, h('section', { className: 'card', id: 'new-token', tabIndex: -1 }, h('p', {}, words.operatorAdded(answer.body.name)), h('code', { className: 'token' }, answer.body.token ?? words.nothing), h('div', { className: 'row' }, copy)));
        setTimeout(() => document.getElementById('new-token')?.focus());
        // The token is shown this once, and waits for no list.
        draw();
        return undefined;
      },
    });
  }
  function remove(/** @type {string} */ name) {
    const { reason, row } = reasonField();
    openForm({
      title: words.removeOperator(name), body: [h('p', {}, words.removeOperatorText), row], verb: words.takeAway, kind: 'danger',
      submit: async () => {
        const answer = await call(`/operators/${name}`, { method: 'DELETE', reason: reason.value });
        if (!answer.ok) return errorText(answer);
        fill(told);
        tell(words.operatorRemoved(name));
        await draw();
        return undefined;
      },
    });
  }
  async function draw() {
    const answer = await read('/operators');
    if (signal.aborted) return;
    const operators = /** @type {Operator[]} */ (answer.body.operators ?? []);
    fill(main,
      heading(words.operators, may('admin') ? h('button', { type: 'button', id: 'add', className: 'primary', onclick: add }, words.addOperator) : needs('admin')), told,
      h('section', { className: 'card' }, !answer.ok ? h('p', { className: 'wrong' }, errorText(answer)) : operators.length === 0 ? h('p', { className: 'soft' }, words.noOperators) : sheet(words.operators, [
        { name: words.operatorName, cell: (it) => [it.name, it.name === me.name && ` ${words.you}`] },
        { name: words.role, cell: (it) => words.roles[it.role] },
        { name: words.since_, cell: (it) => day(it.createdAt) },
        ...(may('admin') ? [{ name: words.actions, isActs: true, cell: (/** @type {Operator} */ it) => h('button', { type: 'button', className: 'danger quiet', ariaLabel: `${words.takeAway}: ${it.name}`, onclick: () => remove(it.name) }, words.takeAway) }] : []),
      ], operators)));
  }
  await draw();
}
