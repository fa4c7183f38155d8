import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from qtorch.fitting import FitConfig
from qtorch.nightly import NightlyConfig

DOCS = Path(__file__).parents[1] / "docs"
SHOWN = {
    "tutorial/first-forecast.md": lambda names: (
        (names["tonight"]["value_at_risk"].dropna() > 0).all()
        and (names["State"](int(names["panel"].state[names["row"], names["apple"]])).name == "CLOSED")
        and (names["State"](int(names["panel"].state[names["row"], names["euro"]])).name == "OBSERVED")
    ),
    "tutorial/markets-that-do-not-line-up.md": lambda names: (
        names["london"].session_day[-1, names["new_york"]] < names["panel"].session_day[-1, names["new_york"]]
    ),
    "how-to/say-how-sure-a-model-is.md": lambda names: (names["low"] <= names["high"])[
        names["doubt"].mask[:, None].expand_as(names["low"])
    ].all(),
    "how-to/calibrate.md": lambda names: (
        (names["record"].value_at_risk(0.99).nan_to_num() != names["raw"].value_at_risk(0.99).nan_to_num()[:-1]).any()
        and names["corrected"].levels == (0.99,)
    ),
    "how-to/portfolios-under-constraints.md": lambda names: names["track"].violations().empty,
}
PAGES = sorted(page for page in DOCS.rglob("*.md") if "```python\n" in page.read_text())


def missing_packages(text: str) -> list[str]:
    return [package for package in re.findall(r"<!-- needs: (\w+) -->", text) if find_spec(package) is None]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """As one program, with short trainings, without the sections whose `<!-- needs: bt -->` names a missing package."""
    first, *others = re.split(r"^(?=## )", page.read_text(), flags=re.MULTILINE)
    if missing := missing_packages(first):  # it counts for the page
        pytest.skip(f"{missing[0]} is not installed")
    text = "".join([first, *(section for section in others if not missing_packages(section))])
    if "```python\n" not in text:
        pytest.skip("no section can run without a package that is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names: dict = {"__name__": page.stem}
    blocks = [
        re.sub(r"max_epochs=\d+", "max_epochs=1", block)
        for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    ]
    if "to_torchscript(" in text:  # while it traces, conditions are tensors, which the checks of types refuse
        subprocess.run([sys.executable, "-c", "\n".join(blocks)], check=True)
        return
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    plt.close("all")
    assert SHOWN.get(str(page.relative_to(DOCS)), lambda names: True)(names)


@pytest.mark.parametrize(
    ("page", "kind"), [("run-every-night.md", NightlyConfig), ("train-on-your-own-universe.md", FitConfig)]
)
def test_the_yaml_of_a_page_is_a_configuration(page, kind):
    given: dict = {}
    for block in re.findall(r"```yaml\n(.*?)```", (DOCS / "how-to" / page).read_text(), flags=re.DOTALL):
        for section, content in yaml.safe_load(block).items():
            given[section] = given.get(section, {}) | content if isinstance(content, dict) else content
    given = json.loads(
        json.dumps(given, default=str)
    )  # the command line's reader of YAML leaves dates as they are written
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, None)
    assert parser.parse_object(given).data.path == "markets.parquet"
    with pytest.raises(ArgumentError, match="unheard"):
        parser.parse_object(given | {"unheard": 1})


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_the_files_that_a_page_links_exist(page):
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target
