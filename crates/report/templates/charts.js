// Gives each chart of the page to uPlot: one plot for each panel, all over the same horizontal axis. What is drawn
// stands as JSON beside the place where it is drawn.
(() => {
'use strict';
const root = document.documentElement;
const ko = root.lang === 'ko';
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 4], [12, 4], []];
const SECONDS = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400];
const BYTES = [0, 1, 2, 3, 4].flatMap(power => [1, 2, 5, 10, 20, 50, 100, 200, 500].map(step => step * 1024 ** power));
// How wide paper is in CSS pixels: A4 without the margins of the style sheet.
const PAPER = 688;

// Figures as the tables say them: few digits, a unit.
const trim = text => text.includes('.') ? text.replace(/0+$/, '').replace(/\.$/, '') : text;
const plain = value => {
    const size = Math.abs(value);
    const text = size >= 99.95 ? Math.round(size).toLocaleString('en-US')
        : trim(size.toFixed(size >= 9.995 ? 1 : size >= 0.1 || size === 0 ? 2 : size >= 0.001 ? 3 : 5));
    return value < 0 ? '−' + text : text;
};
const unit = (number, en, korean) => ko ? number + korean : `${number} ${en}`;
const span = seconds => {
    if (Math.abs(seconds) < 59.95) return unit(plain(seconds), 's', '초');
    const whole = Math.round(seconds), hours = Math.floor(whole / 3600);
    const minutes = Math.floor(whole / 60) % 60, rest = whole % 60;
    return [hours && unit(hours, 'h', '시간'), minutes && unit(minutes, 'min', '분'), !hours && rest && unit(rest, 's', '초')]
        .filter(Boolean).join(' ');
};
const millis = value => Math.abs(value) >= 59950 ? span(value / 1000)
    : Math.abs(value) >= 999.5 ? unit(plain(value / 1000), 's', '초') : unit(plain(value), 'ms', 'ms');
const bytes = value => {
    const [name, size] = [['GiB', 2 ** 30], ['MiB', 2 ** 20], ['KiB', 2 ** 10]].find(([, size]) => value >= size) ?? ['B', 1];
    return `${plain(value / size)} ${name}`;
};
// What is not nothing is never said as 0, nor what is not all as 100.
const share = percent => unit(percent > 0 && percent < 0.001 ? '< 0.001'
    : percent > 99.95 && percent < 100 ? trim((Math.floor(percent * 1000) / 1000).toFixed(3)) : plain(percent), '%', '%');
const say = (kind, value) => kind === 'millis' ? millis(value) : kind === 'bytes' ? bytes(value)
    : kind === 'share' ? share(value * 100) : plain(value);
// Beside an axis, as short as it can be: the margin of a telephone is narrow.
const tick = (kind, value, highest) => kind === 'count' && value > 0 && highest >= 999999.5 ? plain(value / 1e6) + 'M'
    : kind === 'count' && value > 0 && highest >= 9999.5 ? plain(value / 1e3) + 'k'
    : kind === 'bytes' && value === 0 ? '0'
    : kind === 'millis' && value >= 60000 && value < 3.6e6 ? unit(plain(value / 1000), 's', '초')
    : say(kind, value);
const two = number => String(number).padStart(2, '0');
const clock = (seconds, high) => {
    const whole = Math.floor(Math.abs(seconds));
    const sign = seconds < 0 && whole > 0 ? '−' : '';
    const minutes = Math.floor(whole / 60);
    return sign + (high < 3600 && whole < 3600 ? `${minutes}:${two(whole % 60)}`
        : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`);
};

const pen = document.createElement('canvas').getContext('2d');
const fit = (text, room, font) => {
    pen.font = font;
    if (pen.measureText(text).width <= room) return text;
    const letters = [...text];
    while (letters.length && pen.measureText(letters.join('') + '…').width > room) letters.pop();
    return letters.join('').trimEnd() + '…';
};
const element = (name, cls, text) => {
    const made = document.createElement(name);
    made.className = cls;
    made.textContent = text ?? '';
    return made;
};

class Chart {
    constructor(figure) {
        this.box = figure.querySelector('.plots');
        this.said = figure.querySelector('[aria-live]');
        this.data = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
        this.plots = [];
        this.box.addEventListener('keydown', event => this.key(event));
        this.box.addEventListener('blur', () => this.point(null));
    }

    along(at) {
        const { axis, names, high } = this.data;
        return axis === 'names' ? names[at] ?? '' : axis === 'seconds' ? clock(at, high) : plain(at);
    }

    // For paper everything is drawn twice as large, and the style sheet shows it at half the size: sharp letters.
    draw(width, scale) {
        for (const plot of this.plots) plot.destroy();
        this.box.textContent = '';
        this.width = width;
        this.active = null;
        const style = getComputedStyle(root);
        const colour = name => style.getPropertyValue(`--${name}`).trim();
        const look = {
            width: width * scale, scale, left: (width < 600 ? 60 : 66) * scale, right: (width < 600 ? 12 : 22) * scale,
            size: 12 * scale, font: `${12 * scale}px ${getComputedStyle(document.body).fontFamily}`,
            ink: colour('ink'), soft: colour('soft'), grid: colour('grid'), paper: colour('paper'), warm: colour('warm'),
            lines: [0, 1, 2, 3, 4, 5, 6].map(i => colour(`c${i}`)),
        };
        this.labels = this.place(look);
        this.plots = this.data.panels.map((panel, index) => this.panel(panel, index, look));
        this.tip = element('div', 'tip');
        this.tip.hidden = true;
        this.box.append(this.tip);
    }

    // Names of marks in as many rows over the first panel as it takes that none covers another.
    place({ width, left, right, size, font, scale }) {
        const { low, high, marks } = this.data;
        const bold = `600 ${font}`;
        const ends = [];
        return [...marks].sort((a, b) => a.at - b.at).map(({ at, name }) => {
            const text = fit(name, (width - left - right) * 0.6, bold);
            const half = pen.measureText(text).width / 2 + 2 * scale;
            const wanted = left + (at - low) / (high - low) * (width - left - right);
            const x = Math.min(Math.max(wanted, half), width - half);
            let row = ends.findIndex(end => end <= x - half - 4 * scale);
            if (row < 0) row = ends.length;
            ends[row] = x + half;
            return { at, text, x, y: row * (size + 4 * scale) + size };
        });
    }

    panel(panel, index, look) {
        const { id, axis, names, low, high, at, bands } = this.data;
        const { scale, size, font } = look;
        const px = value => value * scale;
        const labels = index === 0 ? this.labels : [];
        const above = labels.reduce((most, label) => Math.max(most, label.y + px(6)), 0) || px(10);
        const plotHeight = px(panel.zero ? 26 : panel.tall ? 190 : 96);
        const xAxis = px(26);
        const isLog = panel.log && !panel.zero;
        const limit = panel.zero ? null : panel.limit;
        const range = (_, lowest, highest) => {
            if (panel.zero || highest === null) return [0, 1];
            if (isLog) return uPlot.rangeLog(lowest * 0.8, highest, 10, false);
            const bottom = Math.min(0, lowest);
            return [bottom, highest > bottom ? highest + (highest - bottom) * 0.06 : bottom + 1];
        };
        const powers = u => u.map(v => v > 0 && Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-6 ? v : null);
        const options = {
            title: panel.title,
            width: look.width,
            height: Math.round(above + plotHeight + xAxis),
            padding: [above, look.right, 0, 0],
            cursor: { sync: { key: id, scales: ['x', null], setSeries: false }, y: false, drag: { x: false, y: false } },
            legend: { markers: {
                width: () => 2,
                dash: (_, i) => ['solid', 'dashed', 'dotted', 'dashed', 'dotted', 'dashed', 'solid'][panel.lines[i - 1]?.style ?? 2],
                stroke: (_, i) => look.lines[panel.lines[i - 1]?.style] ?? look.soft,
                fill: () => 'transparent',
            } },
            scales: { x: { time: false, range: [low, high] }, y: { distr: isLog ? 3 : 1, range } },
            axes: [{
                font, stroke: look.soft, size: xAxis, gap: px(7), space: px(axis === 'seconds' && high >= 3600 ? 76 : 56),
                grid: { stroke: look.grid, width: scale, show: axis !== 'names' }, ticks: { show: false },
                border: { show: true, stroke: look.soft, width: scale },
                ...(axis === 'names' ? {
                    splits: () => names.map((_, i) => i),
                    values: (u, places) => places.map(i => fit(names[i], u.bbox.width / uPlot.pxRatio / names.length - px(4), font)),
                } : axis === 'seconds' ? { incrs: SECONDS, values: (_, places) => places.map(v => clock(v, high)) }
                    : { values: (_, places) => places.map(v => tick('count', v, high)) }),
            }, {
                font, stroke: look.soft, size: look.left, gap: px(6), space: px(26),
                grid: { stroke: look.grid, width: scale, ...(isLog ? { filter: (_, splits) => powers(splits) } : {}) },
                ticks: { show: false },
                ...(panel.unit === 'bytes' ? { incrs: BYTES } : {}),
                ...(panel.zero ? { splits: () => [0] } : {}),
                values: (u, levels) => levels.map(v => v === null ? '' : tick(panel.unit, v, u.scales.y.max)),
            }],
            series: [{}, ...panel.lines.map(line => ({
                label: line.name,
                stroke: look.lines[line.style],
                width: px(1.6),
                dash: DASHES[line.style].map(px),
                value: (_, value, __, i) => i === null ? line.peak : value === null ? '—' : say(panel.unit, value),
                points: {
                    size: px(axis === 'names' ? 8 : 5), fill: look.lines[line.style], width: 0, show: true,
                    // A value between two gaps is a dot: no line goes through it.
                    filter: (u, i) => axis === 'names' ? null : alone(u.data[i]),
                },
            })), ...(limit ? [{
                label: limit.name, stroke: look.soft, width: scale, dash: [px(2), px(3)], value: () => '', points: { show: false },
            }] : [])],
            hooks: {
                drawClear: [u => {
                    u.ctx.fillStyle = look.warm;
                    for (const [from, to] of bands) {
                        const x = u.valToPos(from, 'x', true);
                        u.ctx.fillRect(x, u.bbox.top, u.valToPos(to, 'x', true) - x, u.bbox.height);
                    }
                }],
                draw: [u => this.mark(u, labels, look)],
                setCursor: [u => this.show(u, panel, look)],
            },
        };
        const plot = new uPlot(options, [
            at, ...panel.lines.map(line => line.values), ...(limit ? [at.map(() => limit.at)] : []),
        ], this.box);
        plot.over.addEventListener('mouseenter', () => { this.active = plot; });
        plot.over.addEventListener('mouseleave', () => { this.tip.hidden = true; });
        return plot;
    }

    // Marks go through all panels; their names stand over the first.
    mark({ ctx, bbox, valToPos }, labels, { scale, size, font, ink, paper }) {
        const ratio = uPlot.pxRatio;
        ctx.save();
        ctx.strokeStyle = ctx.fillStyle = ink;
        ctx.lineWidth = scale * ratio;
        ctx.setLineDash([5 * scale * ratio, 3 * scale * ratio]);
        for (const { at } of this.data.marks) {
            const x = valToPos(at, 'x', true);
            const label = labels.find(label => label.at === at);
            ctx.beginPath();
            ctx.moveTo(x, label ? (label.y + 3 * scale) * ratio : bbox.top);
            ctx.lineTo(x, bbox.top + bbox.height);
            ctx.stroke();
        }
        ctx.font = `600 ${font.replace(/^[\d.]+px/, `${size * ratio}px`)}`;
        ctx.textAlign = 'center';
        ctx.textBaseline = 'alphabetic';
        // The line of one mark may go through the name of another.
        ctx.setLineDash([]);
        ctx.strokeStyle = paper;
        ctx.lineWidth = 4 * scale * ratio;
        for (const { text, x, y } of labels) {
            ctx.strokeText(text, x * ratio, y * ratio);
            ctx.fillText(text, x * ratio, y * ratio);
        }
        ctx.restore();
    }

    // What is said of the place that is pointed at, beside it. The keys of all panels say their values too.
    show(u, panel, look) {
        if (u !== this.active) return;
        const { idx, left } = u.cursor;
        this.tip.hidden = idx === null || idx === undefined;
        if (this.tip.hidden) return;
        this.tip.replaceChildren(element('p', 'at', this.along(this.data.at[idx])), ...panel.lines.map(line => {
            const value = line.values[idx];
            const row = element('p', '', ` ${line.name} `);
            const sign = element('span', 'sign');
            sign.style.borderColor = look.lines[line.style];
            row.prepend(sign);
            row.append(element('b', '', value === null || value === undefined ? '—' : say(panel.unit, value)));
            return row;
        }));
        const box = this.box.getBoundingClientRect(), plot = u.over.getBoundingClientRect();
        const x = plot.left - box.left + left;
        const beside = x + 14 + this.tip.offsetWidth > box.width ? x - 14 - this.tip.offsetWidth : x + 14;
        this.tip.style.left = `${Math.max(0, beside)}px`;
        this.tip.style.top = `${plot.top - box.top + 6}px`;
    }

    key(event) {
        const last = this.data.at.length - 1;
        const now = this.plots[0]?.cursor.idx;
        const steps = { ArrowRight: 1, ArrowLeft: -1, PageDown: 10, PageUp: -10 };
        const next = event.key === 'Home' ? 0 : event.key === 'End' ? last : event.key === 'Escape' ? null
            : event.key in steps ? (now === null || now === undefined ? 0 : now + steps[event.key]) : undefined;
        if (next === undefined) return;
        event.preventDefault();
        this.point(next === null ? null : Math.min(Math.max(next, 0), last));
    }

    // Points at a place without a mouse, and says it.
    point(place) {
        this.active = place === null ? null : this.plots[0];
        if (this.tip && place === null) this.tip.hidden = true;
        for (const plot of this.plots) {
            plot.setCursor({ left: place === null ? -10 : plot.valToPos(this.data.at[place], 'x'), top: 0 }, true, false);
        }
        this.said.textContent = place === null ? '' : [this.along(this.data.at[place]), ...this.data.panels.map(panel =>
            `${panel.title}: ` + panel.lines.filter(line => line.values[place] !== null && line.values[place] !== undefined)
                .map(line => `${line.name} ${say(panel.unit, line.values[place])}`).join(', '))].join('. ');
    }
}

function alone(values) {
    const found = [];
    for (let i = 0; i < values.length; i++) {
        if (values[i] != null && values[i - 1] == null && values[i + 1] == null) found.push(i);
    }
    return found;
}

const charts = [...document.querySelectorAll('figure.chart')].map(figure => new Chart(figure));
const drawAll = () => {
    for (const chart of charts) chart.draw(Math.floor(chart.box.clientWidth), 1);
};
drawAll();
let printing = false;
new ResizeObserver(() => requestAnimationFrame(() => {
    if (printing) return;
    for (const chart of charts) {
        const width = Math.floor(chart.box.clientWidth);
        if (width > 0 && width !== chart.width) chart.draw(width, 1);
    }
})).observe(document.body);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
addEventListener('beforeprint', () => {
    printing = true;
    root.classList.add('print');
    for (const chart of charts) chart.draw(PAPER, 2);
});
addEventListener('afterprint', () => {
    printing = false;
    root.classList.remove('print');
    drawAll();
});
})();
