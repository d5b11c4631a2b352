"""The site and the README say what is so: pages, links, commands, examples and the ledger's table."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from examples import blocks
from examples import wrong as wrong_in

import rushlight as rl
from rushlight.core.arguments import Positive, settings
from rushlight.core.catalogue import entries, load_method
from rushlight.jobs.claims.run import ledger
from rushlight.run.recipe import Recipe
from rushlight.run.stage import Stage

ROOT = Path(__file__).parents[1]
WRITTEN = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
WRITTEN += sorted(p for p in (ROOT / "docs").rglob("*.md") if "generated" not in p.parts)
ENTRY = {
    "verdict": "unclear",
    "headline": "twins agree",
    "data": "photos",
    "baseline": "supervised",
    "metric": "accuracy",
    "seeds": 5,
    "effects": [
        {
            "name": "a",
            "says": "a | b",
            "unit": "points",
            "margin": 0.0,
            "mean": 1.25,
            "low": -0.5,
            "high": 3.0,
            "verdict": "unclear",
            "values": [],
        }
    ],
    "recorded": {},
    "minutes": 4.25,
    "elapsed_minutes": 2.5,
    "note": "few seeds",
    "version": "0.1.0",
    "machine": {"cores": 2},
    "date": "2026-11-23",
    "command": "rushlight claims run barlow-twins",
}


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("rushlight_docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(docs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole source of the site."""
    out = tmp_path_factory.mktemp("docs") / "generated"
    docs.generate(out)
    return out


# Pages ----------------------------------------------------------------------------------------------------------------


def test_every_method_has_a_page_with_its_card_and_each_argument(docs: ModuleType, site: Path) -> None:
    shown = docs.pages()
    assert sorted(name for names in shown.values() for name in names) == sorted(entries())
    for page, names in shown.items():
        text = (site / "methods" / f"{page}.md").read_text()
        for name in names:
            card = load_method(name).card
            assert f"`{name}`" in text
            assert docs._cell(card.gives) in text
            assert docs._cell(card.says) in text
            for argument in docs.arguments(load_method(name)):
                assert argument.says, f"{name}: the setting {argument.name} has no documentation below its field"
                assert f"| `{argument.name}` |" in text
        assert f"({page}.md)" in (site / "methods" / "index.md").read_text()


def test_attacks_share_the_page_of_their_file(docs: ModuleType) -> None:
    assert docs.pages()["fgsm-cw"] == ["fgsm-cw", "carlini-wagner", "defensive-distillation", "fgsm", "pgd"]


def test_a_method_without_notes_is_refused_by_name(docs: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"docs/methods/nobody\.md is missing"):
        docs.notes("nobody", tmp_path)
    (tmp_path / "nobody.md").write_text("# Nobody\n\n## Usage\n\nNone.\n")
    assert docs.notes("nobody", tmp_path) == "## Usage\n\nNone.\n"


def test_a_setting_is_shown_with_the_documentation_below_its_field(docs: ModuleType) -> None:
    @settings
    class Method:
        weight: Positive = 1 / 3
        """λ, the weight
        of redundancy."""
        bare: int = 2

    weight, bare = docs.arguments(Method)
    assert (weight.name, weight.default, weight.may_be) == ("weight", "0.333", "a number above 0")
    assert weight.says == "λ, the weight of redundancy."
    assert bare.says == ""


# The ledger -----------------------------------------------------------------------------------------------------------


def test_the_readme_shows_the_ledger_as_it_is(docs: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme == docs.with_table(readme, ledger()), "run `python docs/generate.py --readme`"


def test_an_entry_is_shown_with_interval_seeds_minutes_and_verdict(docs: ModuleType) -> None:
    row = docs.readme_table({"barlow-twins": ENTRY}).splitlines()[2]
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
    assert cells[0] == "[`barlow-twins`](docs/methods/barlow-twins.md)"
    assert cells[1:] == [r"a \| b", "+1.25 points", "-0.5 … +3", "5", "4.2", "**unclear**"]
    page = docs.ledger_page({"barlow-twins": ENTRY}, {"barlow-twins": "barlow-twins"})
    for what in ("twins agree", "few seeds", "`rushlight claims run barlow-twins`", "0 … 4", "cores 2", "2026-11-23"):
        assert what in page
    beside = docs.beside_the_paper(load_method("barlow-twins").card, ENTRY)
    assert "twins agree" in beside
    assert "-0.5 … +3" in beside


def test_a_second_claim_of_a_page_stands_on_it_and_is_linked_to_it(docs: ModuleType) -> None:
    entries = {"slides": ENTRY}
    assert "[`slides`](docs/methods/histopath-ssl.md)" in docs.readme_table(entries)
    page = docs.method_page("histopath-ssl", ["histopath-ssl", "slides"], entries)
    assert "`slides`:\n\n" in page
    assert "[**unclear**](../ledger.md#slides)" in page


def test_an_empty_ledger_has_a_page_and_a_sentence(docs: ModuleType) -> None:
    assert "No claim has been run yet" in docs.ledger_page({}, {})
    assert "No claim has been run yet" in docs.readme_table({})


# Links ----------------------------------------------------------------------------------------------------------------


def links(text: str) -> Iterator[str]:
    """Relative links and images of a Markdown text, outside of code."""
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", plain):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    named = [match[1] for head in heads if (match := re.search(r"\{ #([\w-]+) \}", head))]
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads} | set(named)


def broken(path: Path) -> list[str]:
    found = []
    for link in links(path.read_text()):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(f"{path.name}: {link}")
    return found


def test_links_of_the_readme_and_its_neighbours_resolve() -> None:
    assert [link for path in WRITTEN[:3] for link in broken(path)] == []


def test_links_of_the_site_resolve(site: Path) -> None:
    assert [link for path in sorted(site.rglob("*.md")) for link in broken(path)] == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One `x`\n\n[b](b.md) [c](#one-x) [d](#two) `[e](e.md)` [f](https://x.org)\n")
    assert broken(tmp_path / "a.md") == ["a.md: b.md", "a.md: #two"]


def test_the_navigation_names_pages_that_are_made(site: Path) -> None:
    named = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(named) > 10
    assert [name for name in named if not (site / name).exists()] == []
    made = {path.relative_to(site).as_posix() for path in site.rglob("*.md") if path.parent.name != "methods"}
    assert made - set(named) == set()


def test_the_reference_names_things_that_exist(site: Path) -> None:
    identifiers = [
        name
        for page in site.glob("reference/*.md")
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
    ]
    assert len(identifiers) > 20
    assert [name for name in identifiers if not exists(name)] == []


# References to the code -----------------------------------------------------------------------------------------------

FLOORS = "api|augment|cli|core|data|jobs|losses|measure|methods|nets|present|run|tasks|train"
FORMER = "bench|engine|objectives|report|systems"
"""Folders of earlier editions: what is named in one of them is gone."""
REFERENCE = re.compile(
    rf"`((?:rushlight|{FLOORS}|{FORMER})(?:\.[A-Za-z_]\w*)+)(?=[`(])|(?<![\w/])(rushlight(?:\.\w+)+)"
)
FILE = re.compile(r"(?<![\w/.])((?:src|tests|docs|benchmarks|scripts)/[\w/.-]*\w\.(?:py|md|toml))\b")
PLANNED = {"mixup", "domain"}
"""What the pages that add a method and a task make up."""
GROUPS = {"rushlight.methods", "rushlight.tasks", "rushlight.columns", "rushlight.encoders"}


def exists(name: str) -> bool:
    """Whether this is a module, or an attribute of one (or of a class in it), in or below `rushlight`."""
    found: object = rl
    for part in name.removeprefix("rushlight.").split("."):
        below = f"{getattr(found, '__name__', '')}.{part}"
        if hasattr(found, part):
            found = getattr(found, part)
        elif hasattr(found, "__path__") and importlib.util.find_spec(below) is not None:
            found = importlib.import_module(below)
        else:
            return part in getattr(found, "__dataclass_fields__", {})  # one without a default
    return True


def gone(text: str) -> list[str]:
    """What a text names of this repository's code and files that does not exist."""
    names = {dotted or plain for dotted, plain in REFERENCE.findall(text)} - GROUPS
    names = {name for name in names if not name.endswith((".csv", ".html")) and PLANNED.isdisjoint(name.split("."))}
    lost = {name for name in names if not exists(name) and not _of_data(name)}
    files = {name for name in FILE.findall(text) if Path(name).stem.removeprefix("test_") not in PLANNED}
    return sorted(lost | {name for name in files if not (ROOT / name).exists()})


def _of_data(name: str) -> bool:
    """Whether `data.…` is an attribute of a data set that goes by that name."""
    first, attribute = name.split(".")[:2]
    return first == "data" and (attribute == "info" or hasattr(rl.Dataset, attribute))


def docstrings(path: Path) -> str:
    """Every text of a Python file that stands alone: docstrings, and the documentation of settings."""
    lines = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Expr)]
    return "\n".join(each.value for each in lines if isinstance(each, ast.Constant) and isinstance(each.value, str))


def test_pages_name_code_and_files_that_exist() -> None:
    pages = [path for path in WRITTEN if path.name != "CHANGELOG.md"]
    assert {path.name: found for path in pages if (found := gone(path.read_text()))} == {}


def test_docstrings_name_code_and_files_that_exist() -> None:
    files = [
        path for each in ("src", "tests", "claims", "benchmarks", "scripts") for path in (ROOT / each).rglob("*.py")
    ]
    assert len(files) > 300
    assert {str(path): found for path in files if (found := gone(docstrings(path)))} == {}


def test_a_reference_to_nothing_is_found() -> None:
    text = "`run.stage.Stage.run`, `rushlight.run.gone`, `report.plots`, `data.balance` and `src/rushlight/bench/x.py`"
    assert gone(text) == ["data.balance", "report.plots", "rushlight.run.gone", "src/rushlight/bench/x.py"]
    assert gone("rushlight.run.context.RunContext.budget, `tests/test_docs.py`, `core.card.Card(id=…)`") == []


# Commands and examples ------------------------------------------------------------------------------------------------


def typed(text: str) -> Iterator[list[str]]:
    """The words of each `rushlight …` command in a text's code."""
    fenced = re.findall(r"```(?:console|sh|bash|text)?\n(.*?)```", text, flags=re.DOTALL)
    inline = re.findall(r"(?<!`)`(rushlight [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*(line for block in fenced for line in block.replace("\\\n", " ").splitlines()), *inline]:
        line = line.strip().removeprefix("$ ")
        if line.startswith("rushlight ") and "…" not in line:
            yield shlex.split(line, comments=True)[1:]


def wrong(words: list[str], docs: ModuleType) -> str:
    """What is wrong with a command, or nothing."""
    known = {command.name: command for command in docs.commands()}
    words = [word for word in words if word not in ("--help", "--debug", "--version")]
    if not words:
        return ""
    name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
    if name not in known and words[0] != "COMMAND":
        return f"there is no command '{name}'"
    if name not in known:
        return ""
    options = {option for p in known[name].parameters for option in p.names if p.option}
    unknown = [word for word in words if word.startswith("--") and word not in options]
    return f"'{name}' has no option {unknown[0]}" if unknown else ""


def test_commands_in_the_docs_exist_with_their_options(docs: ModuleType) -> None:
    found = [(path.name, words) for path in WRITTEN for words in typed(path.read_text())]
    assert len(found) > 30
    assert [(name, words, why) for name, words in found if (why := wrong(words, docs))] == []


def test_a_wrong_command_is_found(docs: ModuleType) -> None:
    assert wrong(["compair", "photos/"], docs) == "there is no command 'compair'"
    assert wrong(["compare", "photos/", "--seed", "3"], docs) == "'compare' has no option --seed"
    assert wrong(["claims", "run", "iomatch", "--workers", "2"], docs) == ""


def test_recipes_in_the_docs_can_be_read(docs: ModuleType) -> None:
    from rushlight.jobs.trials import split_recipes

    recipes = set()
    for path in WRITTEN:
        for words in typed(path.read_text()):
            recipes |= {words[2]} if words[0] == "fit" and len(words) > 2 else set()
            for option, value in pairwise(words):
                recipes |= set(split_recipes(value)) - {"auto"} if option == "--methods" else set()
    assert len(recipes) > 8
    for recipe in recipes:
        assert all(isinstance(step.stage(), Stage) for step in Recipe.parse(recipe).steps)


def test_every_command_and_option_is_in_the_reference(docs: ModuleType, site: Path) -> None:
    import typer.main

    page = (site / "cli.md").read_text()
    group = typer.main.get_command(__import__("rushlight.cli.app", fromlist=["app"]).app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            assert parameter.name == "help" or all(
                f"`{option}`" in section for option in parameter.opts if "-" in option
            )


EXAMPLES = [
    pytest.param(code, id=f"{path.stem}-{number}") for path in WRITTEN for number, code in enumerate(blocks(path))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_python_examples_name_only_what_exists(code: str) -> None:
    assert wrong_in(code) == []


def test_a_wrong_example_is_found() -> None:
    code = """
import rushlight as rl
from rushlight.data import tissue
from rushlight.methods.pretrain.dino import DINO
from rushlight.run.budget import Budget
from rushlight.run.context import RunContext

_, model = DINO(locals=2).run(data, model, RunContext(budget=Budget(pass_=3)))
done = DINO().run(data, rl.fit(data, "dino", passes=3), RunContext())
print(done.pools, done.model, rl.look(data).nothing, data.nothing, data.info)
"""
    found = " | ".join(wrong_in(code))
    for what in ("tissue", "'locals'", "'pass_'", "Outcome cannot be unpacked", "'passes'", "'pools'", "data.nothing"):
        assert what in found
    assert "done.model" not in found
    assert "data.info" not in found


TINY = (
    (r'budget="\w+"', 'budget="200"'),
    (r"passes=\d[\d_]*", "passes=200"),
    (r"size=224, patches=5000", "size=32, patches=24"),
    (r"clusters=1000", "clusters=8"),
    (r"samples=\d+", "samples=40"),
    (r"images=\d+", "images=40"),
    (r"seeds=\d+", "seeds=2"),
)
"""What makes an example small."""
QUICK = (
    "barlow-twins", "bss", "data", "dcl", "dino", "fixmatch", "histopath-ssl", "iomatch", "judging", "label-free",
    "mae", "mlcd", "moco", "moco-v3", "pass", "relabel", "simclr", "simcore", "supervised",
)  # fmt: skip
"""Pages whose examples run in seconds."""
AROUND = """
import warnings

import torch
from PIL import Image
from pathlib import Path

warnings.simplefilter("ignore")
torch.set_num_threads(1)

import rushlight as rl
from rushlight.data.synthetic import fashion, tissue
from rushlight.nets import encoders
from rushlight.run.model import Model, ModelInfo

photos = fashion.load().select(torch.arange(60))
for number, (image, label) in enumerate(zip(photos["image"], photos["class"] % 2)):
    folder = Path("photos") / ("unlabelled" if number % 3 == 0 else "ab"[label])
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
known = [path for path in Path("photos").rglob("*.png") if path.parent.name != "unlabelled"]
rows = [f"{path.relative_to('photos')},{path.parent.name}" for path in known]
Path("labels.csv").write_text("\\n".join(["file,class", *rows]))
data = rl.load("photos/")
info = ModelInfo.of(data.info, (data.height, data.width), None)
model = Model(encoders.create("conv16", image_size=data.height, seed=0), {}, info)
model_a = model_b = model
classifier = rl.fit(data, "supervised", budget="200", encoder="conv16", device="cpu")
slide_a, slide_b = tissue.compose(2, size=96)["image"]
my_detector = lambda images: torch.zeros(len(images))
"""


@pytest.mark.slow
@pytest.mark.parametrize("page", QUICK)
def test_python_examples_run(page: str, tmp_path: Path) -> None:
    (path,) = [path for path in WRITTEN if path.stem == page and path.parent.name != "reference"]
    code = "\n".join([AROUND, *blocks(path)])
    for what, small in TINY:
        code = re.sub(what, small, code)
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]


# Extensions -----------------------------------------------------------------------------------------------------------

MODULES = {"adding-a-method": ["mixup"], "adding-a-task": ["domain"], "adding-an-input": ["thermal", "thermal_encoder"]}
ENTRY_POINTS = """
[rushlight.methods]
mixup = mixup:Mixup
[rushlight.tasks]
domain = domain:Domain
[rushlight.columns]
thermal = thermal:KINDS
[rushlight.encoders]
thermal32 = thermal_encoder:ThermalConv
"""
USE = """
import torch
import rushlight as rl
from rushlight import tasks
from rushlight.measure.features import pooled
from rushlight.nets import encoders
from rushlight.run.model import Model

torch.set_num_threads(1)
card = rl.catalogue("mixup")
model = rl.fit(tasks.find("class").example(), "mixup(alpha=0.3)", budget=100, encoder="conv16", device="cpu")
print(card.title, model.head_names)
model = rl.fit(tasks.find("domain").example(), "supervised", task="domain", budget=100, encoder="conv16", device="cpu")
print(model.head_names)
degrees = torch.full((6, 8, 8), 20.0)
degrees[0, 0, 0] = torch.nan
data = rl.Dataset({"thermal": degrees, "class": torch.arange(6) % 2})
model = encoders.arrange(Model(encoders.create("thermal32", seed=0))).eval()  # as a training and `load` lay it out
model.save("thermal-model")
again = Model.load("thermal-model")
print(data.select(torch.arange(4)), torch.equal(pooled(model, data), pooled(again, data)))
"""


@pytest.mark.slow
def test_the_examples_of_methods_tasks_and_inputs_run(tmp_path: Path) -> None:
    """As another package's, found by its entry points."""
    for page, modules in MODULES.items():
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text(), re.DOTALL)
        for name, code in zip(modules, blocks, strict=False):
            (tmp_path / f"{name}.py").write_text(code)
    package = tmp_path / "mine-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (package / "entry_points.txt").write_text(ENTRY_POINTS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    ran = subprocess.run([sys.executable, "-c", USE], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    mixup, domain, thermal = ran.stdout.splitlines()
    assert mixup == "mixup: Beyond Empirical Risk Minimization ['class']"
    assert domain == "['domain']"
    assert "4 thermals" in thermal
    assert thermal.endswith("True")


NO_VERB = re.compile(
    "a|all|an|any|as|at|both|by|each|every|for|from|how|if|in|is|it|its|mean|no|of|on|one|over|several|some|that|the|"
    "their|these|this|those|to|two|what|when|where|whether|which|while|who|whole|whose|why|with"
)
"""Words, in lower case, that no docstring of a function begins with."""


def imperative(docstring: str) -> bool:
    """Return whether the first word can be a verb: a capitalised word, no plural, and none of `NO_VERB`."""
    word = docstring.split()[0].rstrip(",:;.")
    plural = word.endswith("s") and not word.endswith(("ss", "us"))
    return word.isalpha() and word.istitle() and not plural and not NO_VERB.fullmatch(word.lower())


def functions(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the docstring of each function of a file that has one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (said := ast.get_docstring(node)):
            yield f"{path.relative_to(ROOT)}:{node.lineno}", said


def test_docstrings_of_functions_are_in_the_imperative() -> None:
    found = [each for path in sorted((ROOT / "src").rglob("*.py")) for each in functions(path)]
    assert len(found) > 1000
    wrong = [f"{place} {said.splitlines()[0]}" for place, said in found if not imperative(said)]
    assert not wrong, "begin these with a verb (Return, Yield, Check, …):\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "said", ["The factor on it.", "How many there are.", "Rows by share.", "SimCLR's views.", "1 − x."]
)
def test_other_beginnings_are_found(said: str) -> None:
    assert not imperative(said)
