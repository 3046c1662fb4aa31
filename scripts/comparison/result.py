"""The file that a run leaves: raw samples, and what one must know to judge them.

Its shape (JSON):

    format     1
    commit     what was built, and `modified` if its sources differed from that commit
    date       UTC, when the run began
    seconds    how long it took
    machine    processor, kernel, mitigations, limits
    software   versions of what servers and load are built on
    settings   rounds, seconds for each sample, CPUs, connections
    servers    [{name, title, version, plain, configuration}] in the order of the tables
    absent     {server: why it was not measured}
    samples    [{measurement, server, round, values | error | unsupported, reports}]

`values` are figures by key, `reports` what forebay-load said, whole.
"""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

FORMAT = 1


@dataclass(frozen=True)
class Summary:
    """The values of one figure of one server over all rounds."""

    median: float
    minimum: float
    maximum: float
    count: int

    @property
    def spread(self) -> float:
        """From the least to the greatest value, as a share of the median."""
        return (self.maximum - self.minimum) / self.median if self.median else 0.0


def summarize(values: list[float]) -> Summary | None:
    if not values:
        return None
    return Summary(statistics.median(values), min(values), max(values), len(values))


class Result:
    """One run, as it is in its file."""

    def __init__(self, data: dict, name: str = "result"):
        if data.get("format") != FORMAT:
            raise ValueError(f"{name}: not a result of scripts/compare in format {FORMAT}")
        self.data = data
        self.name = name

    @classmethod
    def read(cls, path: Path) -> "Result":
        try:
            return cls(json.loads(path.read_text()), path.name)
        except (json.JSONDecodeError, AttributeError) as error:
            raise ValueError(f"{path}: not a result of scripts/compare: {error}") from error

    def write(self, path: Path) -> None:
        """Writes it with a line for each sample, so that a change can be read."""
        data = dict(self.data)
        samples = data.pop("samples")
        head = json.dumps(data, indent=1, ensure_ascii=False).removesuffix("\n}")
        lines = ",\n  ".join(json.dumps(sample, ensure_ascii=False) for sample in samples)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{head},\n "samples": [\n  {lines}\n ]\n}}\n')

    @property
    def file_name(self) -> str:
        """Sorts by date; names the commit."""
        day, time = self.data["date"].removesuffix("Z").split("T")
        modified = "-modified" if self.data["modified"] else ""
        return f"{day}-{time[:5].replace(':', '')}-{self.data['commit'][:9]}{modified}.json"

    @property
    def rounds(self) -> str:
        count = self.data["settings"]["rounds"]
        return "1 round" if count == 1 else f"{count} rounds"

    @property
    def servers(self) -> list[str]:
        return [server["name"] for server in self.data["servers"]]

    def server(self, name: str) -> dict:
        return next(server for server in self.data["servers"] if server["name"] == name)

    def title(self, name: str) -> str:
        """The server's name and version, as tables show them."""
        server = self.server(name)
        return f"{server['title']} {server['version']}".strip()

    def summary(self, server: str, figure: str) -> Summary | None:
        return summarize(
            [
                sample["values"][figure]
                for sample in self.data["samples"]
                if sample["server"] == server and sample.get("values", {}).get(figure) is not None
            ]
        )

    def median(self, server: str, figure: str) -> float | None:
        summary = self.summary(server, figure)
        return summary.median if summary else None

    def reports(self, server: str, measurement: str) -> list[dict]:
        """What forebay-load said of this server in this measurement, a round each."""
        return [
            sample["reports"]
            for sample in self.data["samples"]
            if (sample["server"], sample["measurement"]) == (server, measurement)
            and "values" in sample
        ]

    @property
    def errors(self) -> list[str]:
        return [
            f"{sample['server']}, {sample['measurement']}, round {sample['round']}: "
            f"{sample['error']}"
            for sample in self.data["samples"]
            if "error" in sample
        ]
