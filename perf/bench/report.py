"""What a command says: tables with intervals, the rows with their verdicts, figures; as Markdown and JSON in one folder."""

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
from samples import Estimate, Row, Samples

PERF = Path(__file__).resolve().parent.parent
# Names a folder for reports, where it is not to be that of the day.
RESULTS = "STROWGER_PERF_RESULTS"
LEGEND = (
    "A figure is the median of runs, each in a server that was started for it; in brackets its 95 % interval (bootstrap; with two "
    "runs the range), then how many runs. Runs beside which the machine was disturbed were taken again; CPU of a call is of the "
    "moments in which the core had its full speed (README.md, Slices). g: the generator was the "
    "limit, so that a cost is an upper bound (≤) and a rate a lower one (≥). !: something was lost, repeated, refused or wrong "
    "(the JSON says what). f: the host had the two cores elsewhere than usual, so compare within a line only; m: in two places, "
    "or the core was slow throughout, which decides nothing. A row is met or not if its whole interval is on one side of the "
    "target."
)


def directory(named: str | None = None) -> Path:
    """Where reports go: what is named, or what the environment names, or the folder of the day on which the run began."""
    named = named or os.environ.get(RESULTS) or str(PERF / "results" / f"{time.strftime('%Y-%m-%d')}-{platform.node()}")
    path = Path(named).resolve()
    os.environ[RESULTS] = str(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def text(estimate: Estimate | None) -> str:
    return "—" if estimate is None else estimate.text()


class Report:
    legend = LEGEND

    def __init__(self, name: str, title: str, about: dict[str, Any]) -> None:
        self.name, self.title, self.about = name, title, about
        self.tables: list[tuple[str, pandas.DataFrame]] = []
        self.notes: dict[str, str] = {}
        self.rows: list[dict[str, Any]] = []
        self.figures: list[tuple[str, str]] = []
        self.data: dict[str, Any] = {}

    def table(self, title: str, head: Sequence[str], lines: Sequence[Sequence[Any]], note: str = "") -> None:
        """Cells are texts, numbers or estimates. A table without lines is left out. The note stands above it."""
        if lines:
            cells = [[text(cell) if isinstance(cell, Estimate) or cell is None else cell for cell in line] for line in lines]
            self.tables.append((title, pandas.DataFrame(cells, columns=list(head))))
            self.notes[title] = note

    def row(self, row: Row, samples: Samples) -> None:
        found = row.estimate(samples)
        self.rows.append(
            {
                "row": row.name,
                "what": row.what,
                "target": row.target(),
                "measured": text(found),
                "verdict": row.verdict(samples),
                "note": row.note,
                "value": found and found.value,
                "low": found and found.low,
                "high": found and found.high,
                "runs": found and found.runs,
            }
        )

    def figure(self, name: str, caption: str) -> None:
        """A plot that stands beside the report as NAME.svg and NAME.png."""
        self.figures.append((name, caption))

    def settings(self) -> str:
        said = [f"{self.about['machine']}. {self.about['minutes']:g} minutes"]
        if self.about.get("how"):
            said.append(self.about["how"])
        if self.about.get("taken_again"):
            said.append(f"{self.about['taken_again']} results of disturbed runs not counted")
        for name, word in [("given_up", "given up, the machine being disturbed"), ("failures", "FAILED")]:
            if self.about.get(name):
                said.append(f"{word}: {'; '.join(' '.join(one.split()) for one in self.about[name])}")
        return "; ".join(said) + "."

    def markdown(self) -> str:
        out = [f"# {self.title}", "", self.settings(), ""]
        if self.rows:
            columns = ["row", "what", "target", "measured", "verdict", "note"]
            out += ["## Rows", "", markdown(pandas.DataFrame(self.rows)[columns]), ""]
        for title, frame in self.tables:
            out += [f"## {title}", "", *([self.notes[title], ""] if self.notes[title] else []), markdown(frame), ""]
        for name, caption in self.figures:
            out += [f"![{caption}]({name}.svg)", "", f"*{caption}*", ""]
        return "\n".join([*out, self.legend, ""])

    def write(self, folder: Path) -> None:
        (folder / f"{self.name}.md").write_text(self.markdown())
        data = {
            "title": self.title,
            **self.about,
            "rows": self.rows,
            "tables": {title: split(frame) for title, frame in self.tables},
            "figures": self.figures,
            **self.data,
        }
        (folder / f"{self.name}.json").write_text(json.dumps(data, indent=1))


def split(frame: pandas.DataFrame) -> dict[str, list[Any]]:
    """For JSON; as pandas would, but two columns may have one name."""
    return {"index": list(frame.index), "columns": list(frame.columns), "data": frame.values.tolist()}


def markdown(frame: pandas.DataFrame) -> str:
    """A table; a bar within a cell would end it."""
    lines = [list(map(str, frame.columns)), ["---"] * len(frame.columns), *frame.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
