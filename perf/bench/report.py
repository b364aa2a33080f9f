"""Medians, ranges and marks; the table of rows; JSON and Markdown into perf/results."""

import json
import os
import platform
import statistics
import time

# Names a folder for reports and plots, where it is not to be that of the day.
RESULTS = "STROWGER_PERF_RESULTS"


class Series:
    """Repeated measurements of one quantity, with the marks that any of them earned."""

    def __init__(self, results, value):
        self.values = [value(result) for result in results]
        self.values = [value for value in self.values if value is not None]
        marks = set()
        for result in results:
            if result.get("generator_bound"):
                marks.add("g")
            if result.get("disturbed"):
                marks.add("d")
            if not result.get("clean", True):
                marks.add("!")
        self.marks = "".join(sorted(marks))
        disturbed = sum(1 for result in results if result.get("disturbed"))
        # Whether a verdict may rest on it: all of it clean, and most of it undisturbed.
        self.is_sound = "!" not in marks and 2 * disturbed <= len(results)

    def __bool__(self):
        return bool(self.values)

    @property
    def median(self):
        return statistics.median(self.values)

    def text(self, digits=1):
        if not self.values:
            return "—"
        spread = ""
        if len(self.values) > 1:
            spread = f" ({min(self.values):.{digits}f}–{max(self.values):.{digits}f})"
        return f"{self.median:.{digits}f}{spread}{' ' + self.marks if self.marks else ''}"


LEGEND = (
    "Median (lowest–highest). g: the generator was the limit (its core was full while the server's was not, calls left late, "
    "or it lost datagrams; the JSON says which). "
    "d: something else had one of the cores for more than 5 % of the time. "
    "!: something was lost, sent again, refused or wrong; the JSON says what. "
    "A row is met or not only where everything was clean and most of it undisturbed."
)


class Report:
    legend = LEGEND

    def __init__(self, title, machine, settings):
        self.title, self.machine, self.settings = title, machine, settings
        self.tables, self.rows, self.raw, self.figures = [], [], [], []

    def table(self, title, head, lines):
        self.tables.append((title, head, lines))

    def figure(self, name, title):
        """A plot that stands beside the report as NAME.svg and NAME.png."""
        self.figures.append((name, title))

    def row(self, name, what, target, measured, met, note=""):
        """`met` is True, False or None where it could not be told."""
        self.rows.append((name, what, target, measured, {True: "yes", False: "NO", None: "—"}[met], note))

    def markdown(self):
        out = [f"# {self.title}", "", f"{self.machine}. {self.settings}", ""]
        for title, head, lines in self.tables:
            if not lines:
                continue
            out += [f"## {title}", "", *_table(head, lines), ""]
        if self.rows:
            out += ["## Rows", "", *_table(["row", "what", "target", "measured", "met", "note"], self.rows), ""]
        for name, title in self.figures:
            out += [f"![{title}]({name}.svg)", "", f"*{title}*", ""]
        return "\n".join(out + [self.legend, ""])

    @staticmethod
    def directory(perf):
        """Where a report and its plots go: the folder that RESULTS names, or that of the day on which this run began. It is one for
        all of a run and for what that starts, so that a run over midnight lies in one folder."""
        named = os.environ.get(RESULTS) or os.path.join(perf, "results", f"{time.strftime('%Y-%m-%d')}-{platform.node()}")
        directory = os.environ[RESULTS] = os.path.abspath(named)
        os.makedirs(directory, exist_ok=True)
        return directory

    @staticmethod
    def name(whole, chosen, known, only=()):
        """What a report is called: WHOLE, or after what it is confined to, so that a part never takes the place of the whole."""
        words = [] if set(chosen) >= set(known) else list(chosen)
        return "-".join([whole, *words, *only])

    def write(self, perf, name):
        directory = self.directory(perf)
        path = os.path.join(directory, name)
        with open(path + ".md", "w") as text:
            text.write(self.markdown())
        with open(path + ".json", "w") as text:
            json.dump(
                {"machine": self.machine, "settings": self.settings, "rows": self.rows, "measurements": self.raw}, text, indent=1
            )
        return path


def _table(head, lines):
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for line in lines:
        yield "| " + " | ".join(str(cell) for cell in line) + " |"
