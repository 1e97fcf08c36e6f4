"""The page of ``mooring report``: HTML with its plots as SVG, no script, nothing loaded.

All that comes from the cluster is escaped, and the page forbids scripts and requests by itself.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import datetime

from mooring.cli.drift_picture import FeaturePicture, Picture
from mooring.cli.words import plain

_MOST_BINS = 24
_WIDTH, _HEIGHT = 520, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 10, 62
_LABEL = 14

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root{--ink:#1b2430;--dim:#5d6b7a;--line:#d5dbe2;--paper:#fff;--side:#f5f7f9;
--reference:#9aa7b5;--now:#0b6bcb;--bad:#b3261e;--warn:#9a6700;--good:#1a7f37}
@media (prefers-color-scheme:dark){:root{--ink:#e6ebf0;--dim:#9aa7b5;--line:#37414d;
--paper:#12171d;--side:#1a2129;--reference:#67737f;--now:#4aa3ff;--bad:#ff7b72;--warn:#e3b341;
--good:#56d364}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:28px 20px 60px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:24px;margin:0 0 2px}h2{font-size:17px;margin:30px 0 10px}h3{font-size:15px;margin:0}
p{margin:4px 0}.dim{color:var(--dim)}
.Drifted{color:var(--bad)}.Unhealthy,.InsufficientData,.NoData{color:var(--warn)}
.Steady{color:var(--good)}
.state{font-weight:600}
.box{border:1px solid var(--line);border-radius:8px;background:var(--side);padding:12px 16px;
margin:12px 0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 12px 5px 0;border-bottom:1px solid var(--line);
vertical-align:top;overflow-wrap:break-word}
th{font-weight:600;color:var(--dim);font-size:13px;white-space:nowrap}
td.number,th.number{text-align:right}td.number,td.state{white-space:nowrap}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,500px),1fr));gap:16px}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:12px 14px}
figcaption{overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--dim);font-size:11px}
.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 5px 0 12px}
.wide{overflow-x:auto}.wide td:last-child{min-width:20em}
"""


def page(found: Picture, now: datetime) -> str:
    """The whole page."""
    state = plain(found.drift.get("state")) or "NoData"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{_(found.name)}: data</title><style>{_STYLE}</style></head><body>",
        f'<h1>{_(found.name)} <span class="state {_(state)}">{_(state)}</span></h1>',
        _about(found, now),
        _summary(found),
    ]
    if found.past:
        parts += ["<h2>Windows</h2>", _windows(found)]
    if found.features:
        parts += ["<h2>Features and answers</h2>", _table(found.features)]
        parts += ["<h2>Reference and last window</h2>", _legend(), '<div class="plots">']
        parts += [_figure(one, found) for one in found.features]
        parts.append("</div>")
    parts.append("</body></html>\n")
    return "".join(parts)


def _(text: object) -> str:
    return html.escape(plain(text), quote=True)


def _about(found: Picture, now: datetime) -> str:
    where = f"namespace {_(found.namespace)} · model {_(found.model)}"
    return f'<p class="dim">{where} · written {now:%Y-%m-%d %H:%M} UTC</p>'


def _summary(found: Picture) -> str:
    drift = found.drift
    lines = [f"<p>{_(drift.get('message') or 'No window is over yet.')}</p>"]
    for kind in ("DataHealthy", "Drifted"):
        one = found.conditions.get(kind) or {}
        if one:
            lines.append(
                f"<p><strong>{kind}: {_(one.get('status'))}</strong> "
                f'<span class="dim">{_(one.get("reason"))}</span> {_(one.get("message"))}</p>'
            )
    concept = drift.get("concept") or {}
    if concept:
        lines.append(
            f"<p><strong>Labels of {_(concept.get('output'))}: {_(concept.get('state'))}</strong> "
            f'<span class="dim">{_(concept.get("labels") or 0)} judged</span> '
            f"{_(concept.get('message'))}</p>"
        )
    facts = [
        ("rows", drift.get("rows")),
        ("window to", drift.get("windowEnd")),
        ("drift began", drift.get("changePoint")),
        ("alarm since", drift.get("since")),
        ("reference", drift.get("reference")),
    ]
    said = " · ".join(f"{name} {_(value)}" for name, value in facts if value is not None)
    lines.append(f'<p class="dim">{said}</p>')
    if found.note:
        lines.append(f'<p class="NoData">{_(found.note)}</p>')
    return f'<div class="box">{"".join(lines)}</div>'


def _windows(found: Picture) -> str:
    """Rows per window, coloured by state."""
    width, height, base = 1120, 110, 88
    most = max((rows for _end, rows, _state in found.past), default=0) or 1
    step = width / max(len(found.past), 24)
    bars = []
    for place, (end, rows, state) in enumerate(found.past):
        size = max(rows / most * 76, 2)
        colour = {"Drifted": "bad", "Steady": "good"}.get(state, "warn")
        bars.append(
            f'<rect x="{place * step:.1f}" y="{base - size:.1f}" width="{step * 0.8:.1f}" '
            f'height="{size:.1f}" rx="2" fill="var(--{colour})"><title>'
            f"{end:%Y-%m-%d %H:%M:%S} UTC: {_(state)}, {rows:.0f} rows</title></rect>"
        )
    first, last = found.past[0][0], found.past[-1][0]
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="rows per window, coloured by '
        f'state">{"".join(bars)}<line x1="0" x2="{width}" y1="{base}" y2="{base}" '
        f'stroke="var(--line)"/><text x="0" y="104">{first:%Y-%m-%d %H:%M} UTC</text>'
        f'<text x="{len(found.past) * step:.1f}" y="104" text-anchor="end">'
        f"{last:%m-%d %H:%M}</text></svg>"
        '<p class="dim"><span class="key" style="background:var(--good)"></span>steady'
        '<span class="key" style="background:var(--bad)"></span>drifted'
        '<span class="key" style="background:var(--warn)"></span>unhealthy, or too little data; '
        "height: rows</p>"
    )


def _table(features: Sequence[FeaturePicture]) -> str:
    rows = "".join(
        f'<tr><td>{_(one.label)}</td><td class="state {_(one.state)}">{_(one.state)}</td>'
        f'<td class="number">{_number(one.psi)}</td>'
        f'<td class="number">{_percent(one.evidence)}</td>'
        f'<td class="number">{one.reference_rows}</td><td class="number">{one.rows}</td>'
        f"<td>{_(one.message)}</td></tr>"
        for one in features
    )
    return (
        '<div class="wide"><table><thead><tr><th>feature</th><th>state</th>'
        '<th class="number">PSI</th><th class="number">evidence</th>'
        '<th class="number">reference rows</th><th class="number">window rows</th>'
        f"<th>what</th></tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="dim">Evidence gathers over the windows; at 100% an alarm begins, and it ends at '
        "0.</p>"
    )


def _legend() -> str:
    return (
        '<p class="dim"><span class="key" style="background:var(--reference)"></span>reference'
        '<span class="key" style="background:var(--now)"></span>last window; share of rows per '
        "tested bin. The line below is the PSI of the windows so far, dashed where it is tolerated."
        "</p>"
    )


def _figure(one: FeaturePicture, found: Picture) -> str:
    besides = ", ".join(f"{share:.1%} {name}" for name, share in one.odd.items())
    note = f'<p class="dim">besides: {_(besides)}</p>' if besides else ""
    return (
        f'<figure><figcaption><h3>{_(one.label)} <span class="state {_(one.state)}">'
        f"{_(one.state)}</span></h3></figcaption>{_histogram(one)}{_course(one, found)}{note}"
        "</figure>"
    )


def _histogram(one: FeaturePicture) -> str:
    if not one.bins:
        return '<p class="dim">constant in the reference</p>'
    bins = min(len(one.bins), _MOST_BINS)
    most = max((*one.reference[:bins], *one.current[:bins]), default=0.0) or 1.0
    inner = _WIDTH - _LEFT - _RIGHT
    step, floor = inner / bins, _HEIGHT - _BOTTOM
    drawn = [_axis(most, floor)]
    for place in range(bins):
        at = _LEFT + place * step
        for side, (colour, shares) in enumerate(
            (("reference", one.reference), ("now", one.current))
        ):
            share = shares[place] if place < len(shares) else 0.0
            size = share / most * (floor - _TOP)
            drawn.append(
                f'<rect x="{at + step * (0.1 + 0.4 * side):.1f}" y="{floor - size:.1f}" '
                f'width="{step * 0.38:.1f}" height="{size:.1f}" fill="var(--{colour})"><title>'
                f"{_(one.bins[place])}: {share:.2%}</title></rect>"
            )
        x, y = at + step / 2, floor + 12
        drawn.append(
            f'<text x="{x:.1f}" y="{y}" text-anchor="end" '
            f'transform="rotate(-32 {x:.1f} {y})">{_(_short(one.bins[place]))}</text>'
        )
    empty = "" if one.current else ": nothing was counted in the last window"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_(one.label)}, reference '
        f'and last window{empty}">{"".join(drawn)}</svg>'
    )


def _axis(most: float, floor: float) -> str:
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = floor - share * (floor - _TOP)
        lines.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="var(--line)"/><text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{most * share:.0%}</text>"
        )
    return "".join(lines)


def _course(one: FeaturePicture, found: Picture) -> str:
    """PSI over the windows; gaps where there was none."""
    known = [value for value in one.psis if value is not None]
    if len(known) < 2:
        return ""
    height, base = 64, 54
    top = max(*known, 1.5 * found.floor)
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(one.psis) - 1, 1)

    def y(value: float) -> float:
        return base - value / top * (base - 6)

    lines, run = [], []
    for place, value in enumerate((*one.psis, None)):
        if value is not None:
            run.append(f"{_LEFT + place * step:.1f},{y(value):.1f}")
            continue
        if len(run) > 1:
            lines.append(
                f'<polyline points="{" ".join(run)}" fill="none" stroke="var(--now)" '
                'stroke-width="1.6"/>'
            )
        elif run:
            x, at = run[0].split(",")
            lines.append(f'<circle cx="{x}" cy="{at}" r="1.6" fill="var(--now)"/>')
        run = []
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="PSI of {_(one.label)} over '
        f'{len(one.psis)} windows"><line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" '
        f'y2="{base}" stroke="var(--line)"/><line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
        f'y1="{y(found.floor):.1f}" y2="{y(found.floor):.1f}" stroke="var(--dim)" '
        f'stroke-dasharray="3 3"/><text x="{_LEFT - 6}" y="10" text-anchor="end">{top:.2g}</text>'
        f'<text x="{_LEFT - 6}" y="{base + 4}" text-anchor="end">PSI</text>{"".join(lines)}</svg>'
    )


def _short(label: str) -> str:
    """Bins follow one another, so the upper end of one says all."""
    text = plain(label)
    if text.startswith("(") and text.endswith("]"):
        text = "≤ " + text[1:-1].rpartition(", ")[2]
    elif text.startswith("<= "):
        text = "≤ " + text[3:]
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
