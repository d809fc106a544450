"""Writes the pages of docs/reference that follow from the code, and the import table of docs/architecture.md.

python docs/generate.py            # after a change of commands, keys or rooms
python docs/generate.py --check    # exit 1 and the names of pages that are out of date
"""

import argparse
import inspect
import sys
import types
import typing
from pathlib import Path

from pydantic import BaseModel
from typer.models import ArgumentInfo

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests" / "unit"))

from test_import_rules import MAY_IMPORT  # noqa: E402

from hpcbackmap.cli.app import COMMANDS, function_of  # noqa: E402
from hpcbackmap.config.campaign import Campaign  # noqa: E402
from hpcbackmap.runtime import errors  # noqa: E402

NOTE = "<!-- Written by docs/generate.py; change the code, then run it. -->\n\n"
TABLE = ("<!-- imports -->\n", "<!-- end of imports -->\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="Write nothing.")
    check = parser.parse_args().check
    stale = [
        path for path, text in pages().items() if not path.exists() or path.read_text() != text
    ]
    for path in stale:
        if check:
            print(f"{path.relative_to(DOCS.parent)}: out of date; run python docs/generate.py")
        else:
            path.write_text(pages()[path])
    sys.exit(check and bool(stale))


def pages() -> dict[Path, str]:
    """Path and text of every page that is made from the code."""
    return {
        DOCS / "reference" / "cli.md": NOTE + commands_page(),
        DOCS / "reference" / "config.md": NOTE + configuration_page(),
        DOCS / "architecture.md": with_import_table((DOCS / "architecture.md").read_text()),
    }


def commands_page() -> str:
    """Every command with its arguments and options, from the signatures of their functions."""
    parts = [
        "# Commands\n\nEvery command has `--help`. Exit codes stand at the end of this page.\n"
    ]
    for name in COMMANDS:
        function = function_of(name)
        rows = list(parameter_rows(function))
        parts.append(f"## {name}\n\n{paragraphs(function.__doc__ or '')}\n")
        parts.append(table(("argument or option", "default", "meaning"), rows))
    codes = (errors.__doc__ or "").partition("\n\n")[2].strip()
    return "\n".join([*parts, "## Exit codes\n", codes, ""])


def parameter_rows(function):
    """Name, default and help of each parameter."""
    hints = typing.get_type_hints(function, include_extras=True)
    for key, parameter in inspect.signature(function).parameters.items():
        kind, info = typing.get_args(hints[key])[:2]
        if getattr(info, "hidden", False):
            continue
        default = parameter.default
        if isinstance(info, ArgumentInfo):
            name = f"`{info.metavar or key.upper()}`"
        else:
            first = [info.default] if isinstance(info.default, str) else []
            flags = [*first, *(info.param_decls or ())] or [f"--{key.replace('_', '-')}"]
            name = ", ".join(f"`{flag}`" for flag in flags)
            name += "" if kind is bool else f" {info.metavar or option_type(kind)}"
        needed = "required" if default is inspect.Parameter.empty else ""
        shown = "" if needed or default in (None, False) else f"`{default}`"
        yield name, needed or shown, info.help or ""


def option_type(kind) -> str:
    """What an option is followed by, as `--help` shows it."""
    parts = [part for part in typing.get_args(kind) or (kind,) if part is not type(None)]
    names = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}
    return names.get(parts[0], "TEXT")


def configuration_page() -> str:
    """Every key of a campaign file."""
    parts = [
        "# Keys of a campaign file\n\nUnknown keys are errors. `hpcbackmap init FILES` writes a file that "
        "runs; any key can be changed on the command line, `stages.ca-fg.train.max_steps=200`.\n"
    ]
    for place, model in models(Campaign, ""):
        parts.append(f"## {place or 'The campaign'}\n\n{paragraphs(model.__doc__ or '')}\n")
        rows = [
            (f"`{key}`", type_text(field.annotation), default_text(field), field.description or "")
            for key, field in model.model_fields.items()
        ]
        parts.append(table(("key", "type", "default", "meaning"), rows))
    return "\n".join(parts)


def models(model: type[BaseModel], place: str) -> list[tuple[str, type[BaseModel]]]:
    """A model and those of its keys, by where they stand in the file; each once."""
    found = [(place, model)]
    for key, field in model.model_fields.items():
        many = typing.get_origin(field.annotation)
        step = {list: f"{key}[]", dict: f"{key}.NAME"}.get(many, key)
        inner = models_in(field.annotation)
        for one in inner:
            kind = one.model_fields["kind"].default if len(inner) > 1 else None
            name = f"{place}.{step}".lstrip(".") + (f" (kind: {kind})" if kind else "")
            known = {each for _, each in found}
            found += [item for item in models(one, name) if item[1] not in known]
    return found


def models_in(annotation) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def type_text(annotation) -> str:
    """A type as a reader of YAML knows it."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_text(parts[0])
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_text(part) for part in parts))
    if origin is list:
        return f"list of {type_text(parts[0])}"
    if origin is dict:
        return f"mapping of names to {type_text(parts[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    names = {str: "text", int: "whole number", float: "number", bool: "yes or no"}
    return names.get(annotation, "none" if annotation is type(None) else str(annotation))


def default_text(field) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "none" if default is None else f"`{default}`"


def with_import_table(text: str) -> str:
    """The page of the architecture with the table of who may import whom, as the test holds it."""
    start, end = TABLE
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit("docs/architecture.md: the marks around its import table are gone")
    rows = [
        (f"`{room}/`", ", ".join(f"`{other}`" for other in sorted(known)) or "nothing")
        for room, known in MAY_IMPORT.items()
    ]
    return before + start + table(("room", "may import"), rows) + end + after


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell.replace("\n", " ").replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def paragraphs(text: str) -> str:
    """Docstring text: indented blocks of examples stay, other lines flow."""
    return "\n".join(line.removeprefix("    ") for line in text.strip().splitlines())


if __name__ == "__main__":
    main()
