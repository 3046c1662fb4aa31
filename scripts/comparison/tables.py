"""A result as Markdown: each section of a document by its name."""

from .figures import ALL, COSTS, COSTS_OF_ONE_SUITE, LATENCY, STORM, WORKERS, Figure
from .goals import FLOOR, FOREBAY, GOALS, HAPROXY, Goal
from .result import Result, Summary

#: Figures that one compares servers by, in the order of the table.
_COMPARED = (
    *COSTS,
    *COSTS_OF_ONE_SUITE,
    ALL["idle_memory"],
    ALL["request_beside_idle_ratio"],
)


def line(result: Result) -> str:
    """Where the figures come from, in one sentence."""
    machine = result.data["machine"]
    modified = " with changes" if result.data["modified"] else ""
    virtual = "virtual, " if machine["virtual"] else ""
    load = result.data["load_before"]
    # Costs are higher then, for everybody; the ratios between servers are what counts.
    busy = f"; the machine was busy with other work (load average {load:.0f})" if load >= 1 else ""
    return (
        f"Medians of {result.rounds}; commit {result.data['commit'][:9]}{modified}; "
        f"{machine['processor']}, {virtual}{machine['cpus']} CPUs, Linux {machine['kernel']}; "
        f"{result.data['date'][:10]}{busy}; [{result.name}]({{results}}/{result.name})."
    )


def servers(result: Result) -> str:
    """Every server's figures side by side, forebay's relative to HAProxy's, and the goal."""
    names = result.servers
    both = FOREBAY in names and HAPROXY in names
    head = ["CPU time of the server for", *(result.title(name) for name in names)]
    if both:
        head.append("forebay / HAProxy")
    rows = []
    for figure in _COMPARED:
        medians = [result.median(name, figure.key) for name in names]
        if not any(value is not None for value in medians):
            continue
        row = [_named(figure), *(figure.text(value) for value in medians)]
        if both:
            ours, theirs = result.median(FOREBAY, figure.key), result.median(HAPROXY, figure.key)
            ratio = ours is not None and theirs and figure.unit != "×"
            row.append(f"{ours / theirs:.2f}" if ratio else "")
        rows.append(row)
    return _table(head, rows)


def goals(result: Result) -> str:
    """What forebay has set itself, and where it stands; of a storm: `storm_goals`."""
    return _goals(result, [goal for goal in GOALS if goal.figure not in STORM])


def storm_goals(result: Result) -> str:
    return _goals(result, [goal for goal in GOALS if goal.figure in STORM])


def _goals(result: Result, goals: list[Goal]) -> str:
    rows = []
    for goal in goals:
        reached = goal.reached(result)
        if reached is None:
            continue
        rows.append([goal.figure.title, goal.text(result), *_standing(goal, result, reached)])
    return _table(["work", "goal", "reached", "forebay", "reference", "best peer", ""], rows)


def _standing(goal: Goal, result: Result, reached: float) -> list[str]:
    figure = goal.figure
    digits = 2 if goal.reference or figure.unit == "×" else figure.digits
    own = figure.text(result.median(FOREBAY, figure.key))
    reference = ""
    if goal.reference:
        peer, key = goal.reference
        reference = ALL[key].text(result.median(peer, key))
        own, reference = (f"{text} {figure.unit}" for text in (own, reference))
    return [
        f"{reached:.{digits}f}",
        own,
        reference,
        _best_peer(result, figure),
        "reached" if goal.holds(result) else _missed(figure, result),
    ]


def _missed(figure: Figure, result: Result) -> str:
    """Where there is a floor, how far above it forebay is."""
    own, floor = (result.median(name, figure.key) for name in (FOREBAY, FLOOR))
    return f"**missed**; {own / floor:.2f} × the bare loop" if own and floor else "**missed**"


def floor(result: Result) -> str:
    """forebay beside the bare loop, where that was measured."""
    rows = []
    for figure in COSTS:
        own, bare = (result.median(name, figure.key) for name in (FOREBAY, FLOOR))
        if own and bare:
            rows.append([_named(figure), figure.text(own), figure.text(bare), f"{own / bare:.2f}"])
    if not rows:
        return "*Not part of this run.*"
    return _table(["CPU time of the server for", "forebay", "bare loop", "ratio"], rows)


def _best_peer(result: Result, figure: Figure) -> str:
    """The server that does TLS and is nearest to forebay in this."""
    values = {
        name: value
        for name in result.servers
        if name not in (FOREBAY, FLOOR)
        and not result.server(name).get("plain")
        and (value := result.median(name, figure.key)) is not None
    }
    if not values:
        return ""
    best = (max if figure.more_is_better else min)(values, key=values.get)
    return f"{figure.text(values[best])} ({result.server(best)['title']})"


def spread(result: Result) -> str:
    """Medians with the least and the greatest value of all rounds."""
    names = result.servers
    rows = [
        [_named(figure), *(_spread(figure, result.summary(name, figure.key)) for name in names)]
        for figure in _COMPARED
        if any(result.summary(name, figure.key) for name in names)
    ]
    return _table(["", *(result.title(name) for name in names)], rows)


def _spread(figure: Figure, summary: Summary | None) -> str:
    if summary is None:
        return ""
    least, greatest = figure.text(summary.minimum), figure.text(summary.maximum)
    return f"{figure.text(summary.median)} ({least}–{greatest})"


def workers(result: Result) -> str:
    return _by_server(result, WORKERS)


def storm(result: Result) -> str:
    return _by_server(result, STORM)


def latency(result: Result) -> str:
    return _by_server(result, LATENCY)


def _by_server(result: Result, figures: tuple[Figure, ...]) -> str:
    """A row for each server, a column for each figure."""
    rows = []
    for name in result.servers:
        medians = [result.median(name, figure.key) for figure in figures]
        if any(value is not None for value in medians):
            texts = (figure.text(value) for figure, value in zip(figures, medians, strict=True))
            rows.append([result.title(name), *texts])
    if not rows:
        return "*Not part of this run.*"
    return _table(["server", *map(_named, figures)], rows)


def machine(result: Result) -> str:
    """All facts about the run."""
    data = result.data
    facts, settings = data["machine"], data["settings"]
    mitigations = "; ".join(f"{name}: {state}" for name, state in facts["mitigations"].items())
    rows = [
        ["commit", data["commit"] + (" with changes" if data["modified"] else "")],
        ["date (UTC)", data["date"]],
        ["command", f"`{data['command']}`"],
        ["time taken", f"{data['seconds'] / 60:.0f} minutes"],
        ["processor", f"{facts['processor']}, {facts['cpus']} CPUs"],
        ["virtual machine", "yes" if facts["virtual"] else "no"],
        ["memory", f"{facts['memory_gib']} GiB"],
        ["kernel", f"Linux {facts['kernel']} {facts['architecture']}"],
        ["mitigations (others: not affected)", mitigations or "none known"],
        ["frequency governor", facts["governor"] or "not visible"],
        ["load average before, after", f"{data['load_before']}, {data['load_after']}"],
        ["CPU time stolen by the hypervisor", f"{100 * data['stolen_share']:.1f} %"],
        ["descriptor limit", f"{facts['descriptor_limit']:,}"],
        ["`net.core.somaxconn`", f"{facts['somaxconn']:,}"],
        *([name, version] for name, version in data["software"].items() if version),
        ["CPU of the server", str(settings["server_cpu"])],
        ["CPUs of load and backend", ", ".join(map(str, settings["load_cpus"]))],
        ["seconds for each sample", f"{settings['seconds']:g} after {settings['warm_up']:g}"],
        ["idle connections", f"{settings['idle_connections']:,}"],
        ["cipher suites agreed on", _suites(result)],
        *(["failed sample", error.split(": exit code")[0]] for error in result.errors),
        *(["not measured", f"{name}: {why}"] for name, why in data["absent"].items()),
    ]
    return _table(["", ""], rows)


def _suites(result: Result) -> str:
    """What each server picked in full handshakes."""
    suites = {}
    for name in result.servers:
        for reports in result.reports(name, "full_ecdsa"):
            tls = reports["load"].get("tls")
            if tls:
                suites.setdefault(tls["suite"], {})[result.server(name)["title"]] = True
    return "; ".join(f"{suite}: {', '.join(names)}" for suite, names in suites.items())


def _named(figure: Figure) -> str:
    return f"{figure.title}, {figure.unit}" if figure.unit not in ("", "×") else figure.title


def _table(head: list[str], rows: list[list[str]]) -> str:
    def text(cells: list[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    numbers = ["---", *["---:"] * (len(head) - 1)] if len(head) > 2 else ["---"] * len(head)
    return "\n".join([text(head), "|" + "|".join(numbers) + "|", *map(text, rows)])


#: By the name that a document asks for. Those of a single measurement begin with its key:
#: a run of nothing else can be shown in them.
SECTIONS = {
    "line": line,
    "servers": servers,
    "goals": goals,
    "spread": spread,
    "floor": floor,
    "workers": workers,
    "storm": storm,
    "storm_goals": storm_goals,
    "storm_line": line,
    "latency": latency,
    "machine": machine,
}
