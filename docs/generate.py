"""Make the pages of the site that are facts of the code, and put them beside those written by hand.

    python docs/generate.py             the site's source, whole, in docs/generated; then `mkdocs build`
    python docs/generate.py --readme    the ledger's table in README.md

Made here: a page for each method (its card, its module's docstring, its settings, what the ledger says, then the
notes of `docs/methods/ID.md`), the index of methods, the ledger and the command line's reference. Everything else is
copied. Attacks, judges and defences that share a file share its page.
"""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
OUT = DOCS / "generated"
BEGIN, END = "<!-- ledger: made by docs/generate.py --readme -->", "<!-- /ledger -->"
FAMILIES = {
    "baseline": "Baselines",
    "semi": "Some labels",
    "labels": "Several, partial or doubtful labels",
    "weak": "Labels weaker than the answer",
    "pretrain": "No labels",
    "curate": "Better data",
    "transfer": "From other models and domains",
    "medical": "Medical images",
    "generate": "Generating images",
    "graphs": "Graphs",
    "robust": "Attack and defence",
    "evaluate": "Judges",
}
NO_CLAIMS = "No claim has been run yet: `rushlight claims run ID` runs one.\n"


# Methods --------------------------------------------------------------------------------------------------------------


def pages() -> dict[str, list[str]]:
    """Each page's id (its file's, with hyphens), and the ids of the methods that it shows, its own first."""
    from rushlight.core.catalogue import entries

    found: dict[str, list[str]] = {}
    for name, entry in entries().items():
        *_, folder, file = entry.module.split(".")
        page = (folder if file == "method" else file).strip("_").replace("_", "-")
        found.setdefault(page, []).append(name)
    return {page: sorted(names, key=lambda name: (name != page, name)) for page, names in sorted(found.items())}


def homes(shown: dict[str, list[str]]) -> dict[str, str]:
    """The page of each method."""
    return {name: page for page, names in shown.items() for name in names}


def notes(page: str, folder: Path = DOCS / "methods") -> str:
    """What was written by hand for a page; a title of its own is left out.

    Raises:
        SystemExit: it has not been written.
    """
    path = folder / f"{page}.md"
    if not path.exists():
        raise SystemExit(
            f"docs/methods/{page}.md is missing: write it (## Usage, ## What is logged, ## Implementation details, "
            f"## Pitfalls), as docs/adding-a-method.md says"
        )
    return re.sub(r"\A\s*# .*\n+", "", path.read_text(encoding="utf-8")).strip() + "\n"


def method_page(page: str, names: list[str], ledger: dict[str, Any]) -> str:
    """A method's page, from top to bottom."""
    from rushlight.core.catalogue import load_method

    kinds = [load_method(name) for name in names]
    first = kinds[0].card
    module = inspect.getmodule(kinds[0])
    parts = [f"# {first.title}\n", *map(card_table, kinds), "## Idea\n", idea(module.__doc__ or "")]
    parts += [text for kind in kinds if (text := arguments_table(kind, alone=len(kinds) == 1))]
    parts += ["## In the ledger\n", beside_the_paper(first, ledger.get(page))]
    parts += [
        f"`{name}`:\n\n{beside_the_paper(load_method(name).card, ledger[name])}" for name in names[1:] if name in ledger
    ]
    parts += [notes(page)]
    return "\n".join(parts)


def idea(docstring: str) -> str:
    """A module's docstring as Markdown: its indented equations are code blocks already."""
    return inspect.cleandoc(docstring) + "\n"


def card_table(kind: Any) -> str:
    card = kind.card
    rows = {
        "id": f"`{card.id}`",
        "paper": _paper(card.paper),
        "code": f"[{card.code}](https://github.com/{card.code})" if card.code else "",
        "role": f"{card.role}, family {card.family}",
        "predicts": ", ".join(f"`{task}`" for task in sorted(card.task)),
        "needs": str(card.needs),
        "gives": card.gives,
        "the source says": card.says,
        "extra": f"`pip install 'rushlight[{card.extra}]'`" if card.extra else "",
    }
    return table(["", ""], [[key, value] for key, value in rows.items() if value])


def _paper(reference: str) -> str:
    number = re.fullmatch(r"arXiv:(\S+)", reference)
    return f"[{reference}](https://arxiv.org/abs/{number[1]})" if number else reference


def arguments_table(kind: Any, *, alone: bool = True) -> str:
    """The settings with their defaults, and the line of documentation below each field."""
    found = arguments(kind)
    if not found:
        return ""
    head = "## Arguments\n" if alone else f"## Arguments of `{kind.card.id}`\n"
    rows = [[f"`{a.name}`", f"`{a.default}`", a.may_be, a.says] for a in found]
    return f"{head}\n{table(['argument', 'default', 'can be', 'what it is'], rows)}"


@dataclass(frozen=True)
class Argument:
    """One setting of a method: its default as written, its type in words, and the documentation below its field."""

    name: str
    default: str
    may_be: str
    says: str


def arguments(kind: Any) -> list[Argument]:
    """The settings of a method."""
    if kind.__init__ is object.__init__:
        return []
    from rushlight.core.arguments import documented, hints_of, in_words

    said, hints = documented(kind), hints_of(kind)
    return [
        Argument(p.name, _default(p.default), in_words(hints.get(p.name, Any)), said.get(p.name, ""))
        for p in inspect.signature(kind).parameters.values()
    ]


def _default(value: Any) -> str:
    if isinstance(value, float) and len(repr(value)) > 8:
        return f"{value:.3g}"
    if isinstance(value, tuple) and len(value) > 4:
        return f"{_default(value[0])} … {_default(value[-1])}, {len(value)} of them"
    return "" if value is inspect.Parameter.empty else repr(value)


def methods_index(shown: dict[str, list[str]], ledger: dict[str, Any]) -> str:
    """All methods by family, each with what it needs, what it gives and its verdict."""
    from rushlight.core.catalogue import cards

    known = cards()
    home = homes(shown)
    parts = [INDEX]
    families = sorted({card.family for card in known.values()}, key=list(FAMILIES).index)
    for family in families:
        rows = [
            [f"[`{card.id}`]({home[card.id]}.md)", card.role, str(card.needs), card.gives, verdict(ledger, card.id)]
            for card in known.values()
            if card.family == family
        ]
        parts += [f"## {FAMILIES[family]}\n", table(["method", "role", "needs", "gives", "claim"], rows)]
    return "\n".join(parts)


INDEX = """# Methods

A method is a learner, a curator, a judge, an attack or a defence. Its card says which columns it needs and how
unknown they may be; that alone decides which methods fit which data (`rushlight look PATH` lists them). *Claim* is
what the [ledger](../ledger.md) says of the paper's headline. `rushlight methods` prints this list, and
`rushlight methods ID` one card.
"""


def verdict(ledger: dict[str, Any], name: str) -> str:
    return f"[{ledger[name]['verdict']}](../ledger.md#{name})" if name in ledger else ""


# The ledger -----------------------------------------------------------------------------------------------------------


def ledger_rows(ledger: dict[str, Any], link: str, home: dict[str, str] | None = None) -> list[list[str]]:
    """A row a claim, for the README and for the site; `link` holds `{}` for the method's id, or for its page's."""
    return [
        [
            f"[`{name}`]({link.format((home or {}).get(name, name))})",
            entry["effects"][0]["says"],
            *interval(entry["effects"][0]),
            str(entry["seeds"]),
            f"{entry['minutes']:.1f}",
            f"**{entry['verdict']}**",
        ]
        for name, entry in ledger.items()
    ]


LEDGER_HEAD = ["method", "claim", "effect", "95 % interval", "seeds", "minutes", "verdict"]


def interval(effect: dict[str, Any]) -> tuple[str, str]:
    """The effect with its unit, and its interval."""
    return f"{effect['mean']:+.3g} {effect['unit']}", f"{effect['low']:+.3g} … {effect['high']:+.3g}"


def ledger_page(ledger: dict[str, Any], home: dict[str, str]) -> str:
    if not ledger:
        return LEDGER + NO_CLAIMS
    summary = table(LEDGER_HEAD, ledger_rows(ledger, "#{}"))
    return LEDGER + summary + "\n" + "\n".join(claim(name, entry, home) for name, entry in ledger.items())


LEDGER = """# The ledger

For each paper one small experiment asks whether its headline effect shows at a size that two CPU cores finish in
minutes. Data, baseline, metric, direction and seeds are fixed in `claims/` before it runs, and the baseline gets the
same budget. The verdict follows from the 95 % interval of the paired differences over the seeds, and from nothing
else: **holds** where all of it lies on the claimed side, **fails** where all of it lies on the other, **unclear**
where it covers the margin. A small experiment that is unclear or fails says nothing of the paper at its own size; it
says what to expect at this one.

`rushlight claims run ID` runs a claim again and writes its entry; `rushlight claims` prints the table. *Minutes* are
the sum over all seeds.

"""


def claim(name: str, entry: dict[str, Any], home: dict[str, str]) -> str:
    """One claim in full."""
    rows = [[e["says"], *interval(e), f"{e['margin']:g} {e['unit']}", e["verdict"]] for e in entry["effects"]]
    info = {
        "data": entry["data"],
        "baseline": entry["baseline"],
        "metric": entry["metric"],
        "seeds": f"0 … {entry['seeds'] - 1}",
        "run": _circumstances(entry),
        "again": f"`{entry['command']}`",
    }
    method = f"methods/{home[name]}.md" if name in home else ""
    parts = [f"## `{name}` {{ #{name} }}\n", f"The paper says: {entry['headline']}.\n"]
    parts += [f"The method: [`{name}`]({method}).\n"] if method else []
    parts += [f"**{entry['verdict']}**{': ' + entry['note'] if entry['note'] else ''}\n"]
    parts += [table(["effect", "measured", "95 % interval", "claimed above", "verdict"], rows)]
    return "\n".join([*parts, table(["", ""], [list(pair) for pair in info.items()])])


def _circumstances(entry: dict[str, Any]) -> str:
    machine = entry["machine"]
    where = ", ".join(f"{k} {v}" for k, v in machine.items()) if isinstance(machine, dict) else str(machine)
    return f"{entry['date']}, version {entry['version']}, {entry['minutes']:.1f} minutes over all seeds; {where}"


def beside_the_paper(card: Any, entry: dict[str, Any] | None) -> str:
    """What the small experiment found, beside what the paper says."""
    if entry is None:
        return f"`{card.id}` has no claim in the [ledger](../ledger.md).\n"
    measured, between = interval(entry["effects"][0])
    rows = [
        ["the paper", entry["headline"]],
        ["claimed here", entry["effects"][0]["says"]],
        ["measured", f"{measured} (95 % interval {between}), {entry['seeds']} seeds, {entry['minutes']:.1f} minutes"],
        ["verdict", f"[**{entry['verdict']}**](../ledger.md#{card.id})"],
        ["note", entry["note"]],
        ["again", f"`{entry['command']}`"],
    ]
    return table(["", ""], [row for row in rows if row[1]])


def readme_table(ledger: dict[str, Any]) -> str:
    """The ledger's table as it stands in the README."""
    return table(LEDGER_HEAD, ledger_rows(ledger, "docs/methods/{}.md", homes(pages()))) if ledger else NO_CLAIMS


def with_table(readme: str, ledger: dict[str, Any]) -> str:
    """The README with the ledger's table between its two marks."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise SystemExit(f"README.md must hold '{BEGIN}' and '{END}' once each")
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n\n{readme_table(ledger)}\n{END}{rest.split(END)[1]}"


# The command line -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """An argument (without dashes) or an option of a command."""

    names: tuple[str, ...]
    default: str
    says: str

    @property
    def option(self) -> bool:
        return self.names[0].startswith("-")


@dataclass(frozen=True)
class Command:
    """A command as it is typed, without `rushlight`."""

    name: str
    says: str
    parameters: tuple[Parameter, ...]


def commands() -> list[Command]:
    """Every command of the Typer app, those of sub-apps too."""
    from rushlight.cli.app import app

    return list(_commands(app, ""))


def _commands(app: Any, prefix: str) -> Iterator[Command]:
    for info in app.registered_commands:
        yield _command(prefix + (info.name or info.callback.__name__.replace("_", "-")), info.callback)
    for group in app.registered_groups:
        name = prefix + group.name
        if group.typer_instance.registered_callback is not None:
            yield _command(name, group.typer_instance.registered_callback.callback)
        yield from _commands(group.typer_instance, f"{name} ")


def _command(name: str, function: Any) -> Command:
    hints = typing.get_type_hints(function, include_extras=True)
    found = [_parameter(p, hints[p.name]) for p in inspect.signature(function).parameters.values()]
    return Command(name, inspect.cleandoc(function.__doc__ or ""), tuple(p for p in found if p is not None))


def _parameter(parameter: inspect.Parameter, hint: Any) -> Parameter | None:
    if typing.get_origin(hint) is not typing.Annotated:
        return None  # Typer's own context
    kind, info = typing.get_args(hint)[:2]
    default = "" if parameter.default in (None, inspect.Parameter.empty) else str(parameter.default)
    says = (info.help or "").strip()
    if type(info).__name__ == "ArgumentInfo":
        return Parameter(((info.metavar or parameter.name.upper()).strip("[]"),), default, says)
    names = tuple(info.param_decls or ()) or (f"--{parameter.name.replace('_', '-')}",)
    return Parameter(names, "" if _is_flag(kind) else default, says)


def _is_flag(kind: Any) -> bool:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return bool in options


def cli_page() -> str:
    return CLI + "\n".join(map(_command_section, commands()))


CLI = """# Command line

Every command is one call of the [Python functions](reference/index.md) of the same name. `rushlight COMMAND --help`
prints what stands here. An error that you can mend is one sentence on standard error and exit code 2; `--debug`
anywhere on the line shows the traceback instead. `rushlight --version` prints the version.

"""


def _command_section(command: Command) -> str:
    given = [p for p in command.parameters if not p.option]
    options = [p for p in command.parameters if p.option]
    words = ["rushlight", command.name, *(p.names[0] for p in given), *(["[OPTIONS]"] if options else [])]
    parts = [f"## {command.name}\n", f"{command.says}\n", f"```console\n$ {' '.join(words)}\n```\n"]
    rows = [
        [", ".join(f"`{n}`" for n in p.names), f"`{p.default}`" if p.default else "", p.says] for p in given + options
    ]
    return "\n".join([*parts, table(["", "default", "what it is"], rows)] if rows else parts)


# Tables within pages --------------------------------------------------------------------------------------------------


def filled(page: str, ledger: dict[str, Any]) -> str:
    """A page with its marked tables in place: `<!-- table: members -->` and `<!-- table: taxonomy -->`."""
    made = {"members": members_table, "taxonomy": taxonomy_table}
    return re.sub(r"<!-- table: (\w+) -->", lambda mark: made[mark[1]](ledger), page)


def members_table(ledger: dict[str, Any]) -> str:
    """What each pretraining method gained in the protocol that the claims of all of them share."""
    rows = []
    for name, entry in ledger.items():
        effects = {effect["name"]: effect for effect in entry["effects"]}
        if "linear gain" in effects and "knn gain" in effects:
            recorded = entry["recorded"]
            rows.append((effects["linear gain"]["mean"], [
                f"[`{name}`](methods/{name}.md)",
                entry["data"].split(", ")[2],
                *(f"{effects[gain]['mean']:+.1f} ({effects[gain]['low']:+.1f} … {effects[gain]['high']:+.1f})"
                  for gain in ("linear gain", "knn gain")),
                *(f"{sum(recorded[key]) / len(recorded[key]):.1f}" for key in ("linear pretrained", "knn pretrained")),
                f"{entry['minutes'] / entry['seeds']:.1f}",
            ]))  # fmt: skip
    head = ["method", "encoder", "linear probe: gain", "neighbours: gain", "linear %", "neighbours %", "minutes a seed"]
    return table(head, [row for _, row in sorted(rows, reverse=True)]) if rows else NO_CLAIMS


def taxonomy_table(ledger: dict[str, Any]) -> str:
    """The survey's taxonomy with the methods of this catalogue."""
    from rushlight.core.catalogue import load_method

    columns = load_method("vit-ssl-survey").taxonomy()  # type: ignore[attr-defined]
    return table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)])


# Files ----------------------------------------------------------------------------------------------------------------


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def generate(out: Path = OUT) -> None:
    """Write the whole source of the site."""
    from rushlight.jobs.claims.run import ledger

    entries, shown = ledger(), pages()
    shutil.rmtree(out, ignore_errors=True)
    leave = shutil.ignore_patterns("generated", "*.py", "__pycache__", "methods")
    shutil.copytree(DOCS, out, ignore=leave)
    shutil.copy(ROOT / "CHANGELOG.md", out / "changelog.md")
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "](")
    (out / "contributing.md").write_text(contributing, encoding="utf-8")
    made = {f"methods/{page}.md": method_page(page, names, entries) for page, names in shown.items()}
    home = homes(shown)
    made |= {"methods/index.md": methods_index(shown, entries), "ledger.md": ledger_page(entries, home)}
    made |= {"cli.md": cli_page()}
    made |= {path.name: path.read_text(encoding="utf-8") for path in out.glob("*.md")}
    for name, text in made.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(filled(text, entries), encoding="utf-8")


def on_config(config: Any) -> Any:
    """A hook of MkDocs: the methods' pages take their place in the navigation."""
    found = sorted(path.name for path in (Path(config["docs_dir"]) / "methods").glob("*.md"))
    for section in config["nav"]:
        if "Methods" in section:
            section["Methods"] = [{"All of them": "methods/index.md"}]
            section["Methods"] += [
                {name.removesuffix(".md"): f"methods/{name}"} for name in found if name != "index.md"
            ]
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--readme", action="store_true", help="refresh the ledger's table in README.md, and no more")
    if parser.parse_args().readme:
        from rushlight.jobs.claims.run import ledger

        path = ROOT / "README.md"
        path.write_text(with_table(path.read_text(encoding="utf-8"), ledger()), encoding="utf-8")
        return
    generate()
    print(f"written: {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
