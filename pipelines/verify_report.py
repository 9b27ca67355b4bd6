"""The report of ``caef-data verify`` for people."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import printable_path
from .terminal import print_table
from .verify import Report

_SHOWN = 20  # findings printed; --json gives all that were kept
CHECKS = {  # what is checked, with the kinds of its findings
    "files are those of the manifest, byte for byte": {"manifest", "file", "foreign", "schema"},
    "settings, identities, versions and counts agree": {"settings", "identity", "versions", "counts"},
    "all that the declaration asks for is there, and nothing else, in its order": {"missing", "added", "order"},
    "each row has its variant, each machine its instruction": {"variant", "instruction"},
    "rows parse, and steps and answers are right": {"row"},
    "no row stands twice": {"duplicate"},
    "no expression stands in two splits": {"overlap", "split"},
    "the card tells what the manifest does": {"card"},
}


def print_report(report: Report, console: Console) -> None:
    """Print what was checked and the first findings."""
    console.print(Text(f"verify {report.directory}"), soft_wrap=True)
    table = Table(show_header=False, min_width=40)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row("shards", f"{report.shards:,}")
    table.add_row("rows read", f"{report.rows:,}")
    share = "" if report.fraction >= 1 else f" ({report.fraction:.4g} of all)"
    table.add_row("rows re-executed", f"{report.rows_checked:,}{share}")
    table.add_row("transitions re-executed", f"{report.transitions:,}")
    table.add_row("seconds", f"{report.seconds:.1f}")
    if report.seconds > 0:
        table.add_row("transitions per second", f"{report.transitions / report.seconds:,.0f}")
    table.add_row("findings", f"{report.num_findings:,}")
    print_table(console, table)
    for note in report.notes:
        console.print(Text(f"note: {note}"))
    kinds = Counter(finding.kind for finding in report.findings)
    known = "" if len(report.findings) == report.num_findings else " or more"  # of many in a file some are kept
    unread = any(kinds[kind] for kind in ("manifest", "file", "schema"))
    for check, own in CHECKS.items():
        count = sum(kinds[kind] for kind in own)
        right = "right, as far as the files could be read" if unread else "right"
        if own == {"row"} and report.fraction < 1:
            right += f", in the {report.rows_checked:,} rows re-executed"
        told = f"wrong: {count:,} finding{'' if count == 1 else 's'}{known}" if count else right
        console.print(Text(f"{check}: {told}", style="bold red" if count else ""))
    for finding in report.findings[:_SHOWN]:
        row = "" if finding.row is None else f", row {finding.row}"
        console.print(Text(f"  {finding.path}{row}: {finding.message}"), soft_wrap=True)
    more = report.num_findings - min(len(report.findings), _SHOWN)
    if more > 0:
        console.print(Text(f"  ... and {more:,} more"))
    if report.ok:
        console.print(Text("everything checked is right", style="bold green"))
        return
    console.print(Text(f"not right{_advice(report, kinds)}", style="bold red"), soft_wrap=True)


def _advice(report: Report, kinds: Counter[str]) -> str:
    """Return what mends a folder: nothing that a build would do again where files or rows are not ours."""
    foreign = [finding.path for finding in report.findings if finding.kind == "foreign"]
    others = kinds.keys() - {"foreign"}
    if foreign and not others:
        return f"; no build touches what is not its own: {remove(foreign)}"
    if others <= {"foreign", "file"}:
        advice = "; the command that built it makes damaged and missing shards again"
        return f"{advice} (caef-data info {report.directory} shows it)"
    if others == {"card"}:
        return "; the command that built it writes its part of the card again"
    return "; this is not what its declaration gives: build it anew into another folder"


def remove(foreign: Sequence[str]) -> str:
    """Return the advice to remove files that are no part of a dataset."""
    more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
    return f"remove {', '.join(map(printable_path, foreign[:5]))}{more}"
