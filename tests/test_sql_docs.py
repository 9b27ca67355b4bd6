"""docs/sql.md lists the tables as they are, and its queries give answers.

``python tests/test_sql_docs.py`` writes the list of tables anew.
"""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from caef_data.eval.query import WRITERS, Database, print_tables
from caef_data.schemas import RESULT_TEXT
from caef_data.tests.results_data import RUNS, UNREACHED

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "sql.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
LIST = re.compile(r"(<!-- tables: -->\n).*(<!-- /tables -->)", re.DOTALL)
QUESTIONS = dict(re.findall(r"^\*\*(.+?\?)\*\*.*?^```sql\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
FIRST, SECOND, ROLLED = (run.id for run in RUNS[:3])


def listed() -> str:
    with redirect_stdout(io.StringIO()) as out:
        print_tables("json")
    held = json.loads(out.getvalue())
    with redirect_stdout(io.StringIO()) as out:
        for table, text in RESULT_TEXT.items():
            print(f"### {table}\n\n{text}\n")
            names = ["column", "type", "meaning"]
            WRITERS["md"](names, [tuple(row[name] for name in names) for row in held if row["view"] == table])
            print()
    return LIST.sub(lambda found: f"{found[1]}\n{out.getvalue()}{found[2]}", TEXT)


@pytest.fixture(scope="module")
def database(results: Path) -> Any:
    with Database(results) as opened:
        yield opened


def answer(database: Database, question: str) -> list[dict[str, Any]]:
    (name,) = (one for one in QUESTIONS if question in one)
    (statement,) = database.statements(QUESTIONS[name])
    names, rows = database.run(statement)
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_the_tables_are_listed_as_they_are() -> None:
    assert listed() == TEXT, "python tests/test_sql_docs.py writes them"


def test_every_block_is_a_question() -> None:
    assert len(QUESTIONS) == TEXT.count("```sql") >= 12


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_is_answered(database: Database, question: str) -> None:
    found = answer(database, question)
    assert found
    assert all(any(row[name] is not None for row in found) for name in found[0]), "a column of nulls"


def test_the_answers_are_right(database: Database) -> None:
    hardest = answer(database, "hardest")
    assert all((row["len_a"], row["len_b"]) != UNREACHED for row in hardest)
    assert hardest[0]["accuracy"] == 0 and hardest[0]["mode"] == "raw"

    right: dict[tuple[str, str, str], dict[int, bool]] = {}
    for row in answer(database, "fall with length"):
        right.setdefault((row["run_id"], row["task"], row["mode"]), {})[row["length"]] = row["accuracy"] >= 0.99
    for row in answer(database, "99%"):
        lengths = right.pop((row["run_id"], row["task"], row["mode"]))
        assert row["longest"] == max((length for length, good in lengths.items() if good), default=None)
        assert row["all_up_to"] == next((n for n in range(4) if not lengths[n + 1]), 4)
    assert not right

    repaired = answer(database, "repair")
    wrong = {run: 0 for run in (FIRST, SECOND)}
    for row in repaired:
        wrong[FIRST] += row["repaired"] + row["still_wrong"]
        wrong[SECOND] += row["broken"] + row["still_wrong"]
    states = answer(database, "In which states")
    (counts,) = database.statements("SELECT run_id, count(*) FROM calls WHERE NOT correct GROUP BY ALL")
    held = dict(database.run(counts)[1])
    assert {run: held[run] for run in wrong} == wrong and wrong[FIRST] > wrong[SECOND] > 0
    assert sum(row["wrong"] for row in states if row["run_id"] == SECOND) <= held[SECOND]

    (rolled,) = answer(database, "though a step was not")
    assert rolled["run_id"] == ROLLED and rolled["n"] > rolled["final_answer"] > rolled["every_step"]


def test_intervals_of_the_document_are_those_of_the_table(database: Database) -> None:
    sql = QUESTIONS[next(one for one in QUESTIONS if "fall with length" in one)]
    same = sql.replace("greatest(len_a, len_b) AS length", "len_a AS length, len_b, variant")
    joined = f"SELECT d.low, d.high, t.low, t.high FROM ({same.strip().removesuffix(';')}) d JOIN class_accuracy t"
    (statement,) = database.statements(
        f"{joined.replace('length, n,', 'length, len_b, variant, n,')} ON d.run_id = t.run_id AND d.task = t.task"
        " AND d.mode = t.mode AND d.length = t.len_a AND d.len_b = t.len_b AND d.variant = t.variant"
    )
    found = list(database.run(statement)[1])
    assert len(found) > 50
    for low, high, wanted_low, wanted_high in found:
        assert (low, high) == pytest.approx((wanted_low, wanted_high), abs=1e-4)


if __name__ == "__main__":
    DOCUMENT.write_text(listed(), encoding="utf-8")
