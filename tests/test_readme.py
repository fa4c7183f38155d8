import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_readmes_python_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 12
    names: dict = {}
    for block in blocks:
        block = block.replace("max_epochs=3", "max_epochs=1").replace("runs/", f"{tmp_path.as_posix()}/")
        exec(compile(block, "README.md", "exec"), names)
    assert (names["forecast"].value_at_risk(0.99)[-1, 0].nan_to_num(1.0) > 0).all()
    assert set(names["tonight"]["level"]) == {0.99}
    assert (names["low"] <= names["high"])[names["doubt"].mask[:, None].expand_as(names["low"])].all()
    raw, record = (names[name].value_at_risk(0.99).nan_to_num() for name in ("raw", "record"))
    assert (record != raw[:-1]).any()
    assert names["corrected"].levels == (0.99,)
    assert names["track"].violations().empty


def test_the_readmes_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
