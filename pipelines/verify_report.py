"""The report of ``caef-data verify`` for people."""

from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .verify import Report

_SHOWN = 20  # findings printed; --json gives all that were kept


def print_report(report: Report, console: Console) -> None:
    """Print what was checked and the first findings."""
    console.print(Text(f"verify {report.directory}"), soft_wrap=True)
    table = Table(show_header=False, min_width=40)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_row("shards", f"{report.shards:,}")
    table.add_row("rows read", f"{report.rows:,}")
    share = "" if report.fraction >= 1 else f" ({report.fraction:.4g} of all)"
    table.add_row("rows re-executed", f"{report.rows_checked:,}{share}")
    table.add_row("transitions re-executed", f"{report.transitions:,}")
    table.add_row("seconds", f"{report.seconds:.1f}")
    if report.seconds > 0:
        table.add_row("transitions per second", f"{report.transitions / report.seconds:,.0f}")
    table.add_row("findings", f"{report.num_findings:,}")
    console.print(table)
    for note in report.notes:
        console.print(Text(f"note: {note}"))
    for kind, count in Counter(finding.kind for finding in report.findings).items():
        console.print(Text(f"{kind}: {count:,} of the findings listed or in --json", style="bold red"))
    for finding in report.findings[:_SHOWN]:
        row = "" if finding.row is None else f", row {finding.row}"
        console.print(Text(f"  {finding.path}{row}: {finding.message}"), soft_wrap=True)
    more = report.num_findings - min(len(report.findings), _SHOWN)
    if more > 0:
        console.print(Text(f"  ... and {more:,} more"))
    if report.ok:
        console.print(Text("everything checked is right", style="bold green"))
    else:
        console.print(
            Text(
                "not right; shards that are damaged or missing are rebuilt by the command that built them",
                style="bold red",
            )
        )
