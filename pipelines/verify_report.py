"""What ``verify`` finds, and how it is told."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import printable_path, shell_quoted
from .folder import GO_ON
from .manifest import CARD, MANIFEST
from .terminal import print_table

KEPT = 20  # findings kept of a kind and file; the rest is counted
_SHOWN = 20  # findings printed; --json gives all that were kept
CHECKS = {  # what is checked, with the kinds of its findings
    "the files are those of the manifest, byte for byte": {"manifest", "file", "foreign", "schema", "unfinished"},
    "settings, identities, versions and counts agree": {"machine", "settings", "identity", "versions", "counts"},
    "all planned rows are there, in order, and no others": {"missing", "added", "order"},
    "each row has its variant, each machine its instruction": {"variant", "instruction"},
    "each text is what its machine writes": {"row"},
    "no row stands twice": {"duplicate"},
    "no expression stands in two splits": {"overlap", "split"},
    f"{CARD} agrees with {MANIFEST}": {"card"},
}
# What the command that built the folder mends, or leaves to its owner; an unfinished build's command goes on with it.
_REBUILT = {"file", "card", "foreign", "unfinished"}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: the rule that fails (of ``CHECKS``), the file, its row (None for all), and what.

    ``path`` is relative to the dataset's folder.
    """

    kind: str
    path: str
    row: int | None
    message: str


@dataclass
class Findings:
    """What is wrong: everything is counted, and ``KEPT`` of a kind and file are kept.

    Args:
        path: the file that findings are about, unless they name another one.
        notes: what the reader should know of how it was checked.
    """

    path: str
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    same: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, kind: str, message: str, row: int | None = None, path: str | None = None) -> None:
        """Count a finding, and keep it unless there are many of its kind."""
        finding = Finding(kind, path or self.path, row, message)
        self.same[kind, finding.path] += 1
        if self.same[kind, finding.path] <= KEPT:
            self.findings.append(finding)

    def take(self, others: "Findings") -> None:
        """Take over what somebody else found."""
        self.findings += others.findings
        self.same += others.same
        self.notes += others.notes

    @property
    def num_findings(self) -> int:
        """How many there were."""
        return self.same.total()


@dataclass(frozen=True)
class Report:
    """What was checked and what was found.

    Args:
        directory: the folder.
        shards: shards that the manifest names.
        rows: rows read (digests, duplicates, overlap, split).
        rows_checked: rows computed again; fewer than ``rows`` with a fraction.
        transitions: steps computed again: a full row counts as all its steps, aligner and raw rows as none.
        seconds: wall clock.
        fraction: the share of rows asked for.
        findings: what is wrong, at most ``KEPT`` of a kind and file.
        num_findings: how many there were.
        notes: what the reader should know of how it was checked.
    """

    directory: str
    shards: int
    rows: int
    rows_checked: int
    transitions: int
    seconds: float
    fraction: float
    findings: tuple[Finding, ...]
    num_findings: int
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.num_findings == 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"ok": self.ok, **asdict(self)}


def print_report(report: Report, console: Console) -> None:
    """Print what was checked and the first findings."""
    console.print(Text(f"verify {report.directory}"), soft_wrap=True)
    table = Table(show_header=False, min_width=40)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    share = "" if report.fraction >= 1 else f" ({report.fraction:.4g} of all)"
    table.add_row("shards", f"{report.shards:,}")
    table.add_row("rows read", f"{report.rows:,}")
    table.add_row("rows computed again", f"{report.rows_checked:,}{share}")
    table.add_row("steps computed again", f"{report.transitions:,}")
    table.add_row("seconds", f"{report.seconds:.1f}")
    table.add_row("steps per second", f"{report.transitions / max(report.seconds, 0.001):,.0f}")
    table.add_row("findings", f"{report.num_findings:,}")
    print_table(console, table)
    for note in report.notes:
        console.print(Text(f"note: {note}"))
    kinds = {finding.kind for finding in report.findings}
    for check, own in CHECKS.items():  # where something is wrong, rows may not have been read: nothing is called right
        if kinds & own:
            console.print(Text(f"{check}: NO", style="bold red"))
        elif report.ok:
            part = "" if own != {"row"} or report.fraction >= 1 else f", in {report.rows_checked:,} rows computed again"
            console.print(Text(f"{check}: yes{part}"))
    for finding in _shown(report):
        row = "" if finding.row is None else f", row {finding.row}"
        console.print(Text(f"  {finding.path}{row}: {finding.message}"), soft_wrap=True)
    if (left := report.num_findings - min(len(report.findings), _SHOWN)) > 0:
        console.print(Text(f"  ... and {left:,} more"))
    verdict = "everything checked is right" if report.ok else f"not right; {_advice(report)}"
    console.print(Text(verdict, style="bold green" if report.ok else "bold red"), soft_wrap=True)


def _shown(report: Report) -> list[Finding]:
    """Return some findings: the first of each kind and file, then the second ones, and so on."""
    seen, ranks = Counter[tuple[str, str]](), list[int]()
    for finding in report.findings:
        ranks.append(seen[finding.kind, finding.path])
        seen[finding.kind, finding.path] += 1
    return [report.findings[at] for at in sorted(range(len(ranks)), key=ranks.__getitem__)[:_SHOWN]]


def _advice(report: Report) -> str:
    """Return what mends a folder: nothing that a build would do again where files or rows are not ours."""
    foreign = [finding.path for finding in report.findings if finding.kind == "foreign"]
    if len(foreign) == len(report.findings):
        return f"no build touches what is not its own: remove {', '.join(map(printable_path, foreign[:5]))}"
    damaged = {finding.path for finding in report.findings if finding.kind == "file"}
    if all(finding.kind in _REBUILT or finding.path in damaged for finding in report.findings):
        if any(finding.kind == "unfinished" for finding in report.findings):
            return f"a build is unfinished; {GO_ON}"
        shows = f"caef-data info {shell_quoted(report.directory)} shows it"
        return f"the command that built it makes damaged and missing files again: {shows}"
    return "this is not what its declaration gives: build it anew into another folder"
