"""A result as SVG: each plot by its name."""

import math
from html import escape

from .figures import ALL, COSTS, LATENCY_QUANTILES, Figure
from .goals import FOREBAY, GOALS, HAPROXY, Goal
from .result import Result

_COLOURS = {
    "forebay": "#0b63c5",
    "haproxy": "#d9822b",
    "nginx": "#4b9e5f",
    "hitch": "#8b6fc0",
    "stunnel": "#c2607f",
    "plain": "#8a8f98",
}
#: For the operator's own servers.
_MORE_COLOURS = ("#1a9ba1", "#a07f2c", "#5a5f68", "#c0392b")

_TEXT, _FAINT, _LINE = "#24292f", "#57606a", "#d0d7de"


class _Drawing:
    """SVG elements, in pixels from the top left corner."""

    def __init__(self, width: float):
        self.width = width
        self._elements: list[str] = []

    def text(
        self, x: float, y: float, text: str, *, size=12, colour=_TEXT, anchor="start", bold=False
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        self._elements.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" '
            f'text-anchor="{anchor}"{weight}>{escape(text)}</text>'
        )

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self._elements.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" '
            f'rx="1.5" fill="{colour}"/>'
        )

    def line(self, points: list[tuple[float, float]], colour=_LINE, width=1.0, dash="") -> None:
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._elements.append(
            f'<polyline points="{places}" fill="none" stroke="{colour}" '
            f'stroke-width="{width:g}"{dashes}/>'
        )

    def dot(self, x: float, y: float, colour: str, *, hollow=False) -> None:
        fill = "#ffffff" if hollow else colour
        self._elements.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{fill}" stroke="{colour}" '
            f'stroke-width="2"/>'
        )

    def svg(self, height: float, title: str) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} '
                f'{height:.0f}" width="{self.width:.0f}" height="{height:.0f}" role="img" '
                'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
                f"<title>{escape(title)}</title>",
                f'<rect width="{self.width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
                *self._elements,
                "</svg>\n",
            ]
        )


def cost(result: Result) -> str:
    """CPU time (and memory) of each server as a multiple of HAProxy's; bars."""
    left, right, row, gap = 300.0, 80.0, 15.0, 14.0
    drawing = _Drawing(900)
    reach = drawing.width - left - right
    groups = [
        (figure, base, bars)
        for figure in (*COSTS, ALL["idle_memory"])
        if (base := _base(result, figure)) and (bars := _bars(result, figure))
    ]
    widest = max((value / base for _, base, bars in groups for _, value in bars), default=1.0)
    most = min(widest, 3.0)
    title = "CPU time of the server for each operation, and memory: multiples of HAProxy's"
    drawing.text(16, 28, title, size=16, bold=True)
    drawing.text(16, 47, _source(result), colour=_FAINT, size=11)
    y = top = _legend(drawing, result, 70) + 12
    goals = {goal.figure.key: goal for goal in GOALS}
    for figure, base, bars in groups:
        lines = _broken(figure.title)
        for index, text in enumerate(lines):
            drawing.text(left - 12, y + 11 + row * index, text, anchor="end", bold=index == 0)
        goal_at = _goal_ratio(result, goals.get(figure.key), base)
        for name, value in bars:
            length = reach * min(value / base, most) / most
            drawing.bar(left, y, length, row - 3, _colour(result, name))
            cut = " →" if value / base > most else ""
            text = f"{figure.text(value)} {figure.unit}{cut}"
            end = left + length
            own = name == FOREBAY
            if own and goal_at is not None and goal_at <= most:
                x = left + reach * goal_at / most
                drawing.line([(x, y - 3), (x, y + row)], _TEXT, 2)
                end = max(end, x)
            drawing.text(end + 6, y + 10, text, size=11, bold=own)
            y += row
        y += gap + row * max(len(lines) - len(bars), 0)
    one = left + reach / most
    drawing.line([(one, top - 6), (one, y - gap + 4)], _FAINT, 1, dash="3 3")
    drawing.line([(left, top - 6), (left, y - gap + 4)], _FAINT, 1)
    drawing.text(one, y + 6, "HAProxy = 1", anchor="middle", colour=_FAINT, size=11)
    drawing.text(left - 12, y + 6, "┃ goal for forebay", anchor="end", colour=_FAINT, size=11)
    return drawing.svg(y + 22, title)


def storm(result: Result) -> str:
    """p99 of established connections, quiet and in a storm, and what becomes of the storm."""
    quiet, once, tenfold = ("storm_p99_quiet", "storm_p99_1", "storm_p99_10")
    names = [name for name in result.servers if result.median(name, tenfold) is not None]
    left, right, row = 130.0, 250.0, 40.0
    drawing = _Drawing(900)
    title = "Established connections while others shake hands: p99 of a 1 KiB request"
    drawing.text(16, 28, title, size=16, bold=True)
    drawing.text(16, 47, _source(result), colour=_FAINT, size=11)
    if not names:
        drawing.text(16, 80, "not part of this run", colour=_FAINT)
        return drawing.svg(100, title)
    values = [result.median(name, key) or 1 for name in names for key in (quiet, once, tenfold)]
    top, bottom = 84.0, 84.0 + row * len(names)
    x_of = _log_axis(drawing, values, left, drawing.width - right, top, bottom)
    drawing.text(drawing.width - right + 24, top - 8, "10 × / quiet", size=11, colour=_FAINT)
    drawing.text(drawing.width - right + 110, top - 8, "goodput 10 × / 1 ×", size=11, colour=_FAINT)
    for index, name in enumerate(names):
        y = top + row * (index + 0.5)
        colour = _colour(result, name)
        own = name == FOREBAY
        drawing.text(left - 14, y + 4, result.server(name)["title"], anchor="end", bold=own)
        places = [x_of(result.median(name, key)) for key in (quiet, once, tenfold)]
        drawing.line([(min(places), y), (max(places), y)], colour, 2)
        for place, key in zip(places, (quiet, once, tenfold), strict=True):
            drawing.dot(place, y, colour, hollow=key != tenfold)
        for key, x in (("storm_p99_ratio", 24), ("storm_goodput_ratio", 110)):
            text = ALL[key].text(result.median(name, key))
            drawing.text(drawing.width - right + x, y + 4, text, bold=own)
    note = "○ quiet and at 1 × the server's own capacity for handshakes   ● at 10 ×"
    drawing.text(left, bottom + 42, note, size=11, colour=_FAINT)
    return drawing.svg(bottom + 56, title)


def latency(result: Result) -> str:
    """Latency of a request by quantile, each server as an operator would run it; curves."""
    keys = list(LATENCY_QUANTILES)
    names = [name for name in result.servers if result.median(name, f"latency_{keys[0]}")]
    drawing = _Drawing(900)
    title = "1 KiB requests at a constant rate, every server on all CPUs: latency in µs"
    drawing.text(16, 28, title, size=16, bold=True)
    drawing.text(16, 47, _source(result), colour=_FAINT, size=11)
    top = _legend(drawing, result, 70, names) + 14
    left, right, bottom = 80.0, 850.0, top + 300
    values = [result.median(name, f"latency_{key}") or 1 for name in names for key in keys]
    least, most = _bounds(values)

    def y_of(value: float) -> float:
        share = (math.log10(value) - math.log10(least)) / (math.log10(most) - math.log10(least))
        return bottom - share * (bottom - top)

    for tick in _ticks(least, most):
        drawing.line([(left, y_of(tick)), (right, y_of(tick))])
        drawing.text(left - 8, y_of(tick) + 4, f"{tick:,.0f}", anchor="end", colour=_FAINT, size=11)
    step = (right - left) / (len(keys) - 1)
    for index, key in enumerate(keys):
        x = left + step * index
        drawing.line([(x, top), (x, bottom)])
        label = LATENCY_QUANTILES[key]
        drawing.text(x, bottom + 18, label, anchor="middle", colour=_FAINT, size=11)
    for name in reversed(names):  # forebay's on top
        points = [
            (left + step * index, y_of(result.median(name, f"latency_{key}") or 1))
            for index, key in enumerate(keys)
        ]
        drawing.line(points, _colour(result, name), 3.0 if name == FOREBAY else 1.8)
    return drawing.svg(bottom + 34, title)


def _broken(title: str) -> list[str]:
    """In lines that fit beside the bars."""
    first, comma, rest = title.partition(", ")
    return [title] if len(title) <= 36 or not comma else [first, rest]


def _base(result: Result, figure: Figure) -> float | None:
    """What the bars are multiples of."""
    own = result.median(HAPROXY, figure.key)
    if own is not None:
        return own
    goal = next((goal for goal in GOALS if goal.figure == figure and goal.reference), None)
    return result.median(*goal.reference) if goal else None


def _bars(result: Result, figure: Figure) -> list[tuple[str, float]]:
    values = ((name, result.median(name, figure.key)) for name in result.servers)
    return [(name, value) for name, value in values if value is not None]


def _goal_ratio(result: Result, goal: Goal | None, base: float) -> float | None:
    """Where the goal lies among the bars."""
    if goal is None:
        return None
    if goal.reference is None:
        return goal.bound / base
    reference = result.median(*goal.reference)
    return goal.bound * reference / base if reference else None


def _source(result: Result) -> str:
    machine = result.data["machine"]
    return (
        f"medians of {result.rounds}, {machine['processor']}, "
        f"Linux {machine['kernel']}, forebay {result.data['commit'][:9]}, "
        f"{result.data['date'][:10]}"
    )


def _legend(drawing: _Drawing, result: Result, y: float, names: list[str] | None = None) -> float:
    x = 16.0
    for name in names or result.servers:
        title = result.title(name)
        drawing.bar(x, y - 9, 12, 10, _colour(result, name))
        drawing.text(x + 17, y, title, size=12, bold=name == FOREBAY)
        x += 34 + 6.9 * len(title)
    return y


def _colour(result: Result, name: str) -> str:
    if name in _COLOURS:
        return _COLOURS[name]
    others = [server for server in result.servers if server not in _COLOURS]
    return _MORE_COLOURS[others.index(name) % len(_MORE_COLOURS)]


def _log_axis(drawing: _Drawing, values, left, right, top, bottom):
    """Draws a logarithmic axis for microseconds; returns value → x."""
    least, most = _bounds(values)

    def x_of(value: float) -> float:
        share = (math.log10(value) - math.log10(least)) / (math.log10(most) - math.log10(least))
        return left + share * (right - left)

    for tick in _ticks(least, most):
        drawing.line([(x_of(tick), top), (x_of(tick), bottom)])
        text = f"{tick:,.0f} µs" if tick < 1000 else f"{tick / 1000:,.0f} ms"
        drawing.text(x_of(tick), bottom + 18, text, anchor="middle", colour=_FAINT, size=11)
    return x_of


def _bounds(values: list[float]) -> tuple[float, float]:
    """The next 1, 2 or 5 × 10ⁿ below all values, and above."""
    least, most = min(values, default=1.0), max(values, default=10.0)
    steps = [factor * 10**power for power in range(-1, 9) for factor in (1, 2, 5)]
    below = max((step for step in steps if step <= least), default=steps[0])
    above = min((step for step in steps if step >= most and step > below), default=steps[-1])
    return below, above


def _ticks(least: float, most: float) -> list[float]:
    ticks = [factor * 10**power for power in range(-1, 9) for factor in (1, 2, 5)]
    return [tick for tick in ticks if least <= tick <= most]


#: By the name of their files.
PLOTS = {"cost": cost, "storm": storm, "latency": latency}
