import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_readmes_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict = {}
    for block in blocks:
        exec(compile(block.replace("max_epochs=3", "max_epochs=1"), "README.md", "exec"), names)
    assert (names["forecast"].value_at_risk(0.99)[-1, 0].nan_to_num(1.0) > 0).all()
    assert set(names["tonight"]["level"]) == {0.99}


def test_the_readmes_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_readmes_tables_are_those_of_the_documentation():
    """Each row of figures or of peers stands on a page too; a row that is changed in one place alone is found."""
    pages = "\n".join((ROOT / "docs" / page).read_text() for page in ("benchmarks.md", "explanation/comparison.md"))
    said = set(re.sub(r"\]\([^)]*/", "](", pages).splitlines())
    rows = [row for row in re.sub(r"\]\([^)]*/", "](", README).splitlines() if row.startswith("| ")]
    assert len(rows) > 40
    assert [row for row in rows if row not in said] == []
