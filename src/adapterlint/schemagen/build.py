"""Sources -> the files under ``schemas/peft``. Everything in there but ``index.json`` is generated; nobody edits it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterlint.schemagen.browse import DEFS_FILE, load_tables
from adapterlint.schemagen.extract import ConfigClass, Extraction, Field, extract
from adapterlint.schemagen.patches import Patches, load_patches
from adapterlint.schemagen.schema import Definitions, release_schema, umbrella, untranslated
from adapterlint.schemagen.sources import load
from adapterlint.schemagen.tables import FIELDS_FILE, Table, dump, history, sort_releases

UMBRELLA_FILE = "adapter_config.schema.json"


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made.

    Attributes:
        releases: the releases that were read.
        files: path below ``schemas/`` -> text.
        remarks: what a person should look at: oddities of the sources, and refusals that no schema expresses yet.
    """

    releases: tuple[str, ...]
    files: dict[str, str]
    remarks: tuple[str, ...]


def extract_all(origins: Iterable[str | Path]) -> dict[str, Extraction]:
    """Read several sources (see :func:`adapterlint.schemagen.sources.load`): release -> what its sources say."""
    found = {}
    for origin in origins:
        sources = load(origin)
        found[sources.release] = extract(sources.tree)
    return found


def build_all(extractions: Mapping[str, Extraction], patches: Patches) -> Built:
    """All files of all releases. The same input gives the same bytes."""
    return _build(extractions, patches, {}, Definitions())


def add(origin: str | Path, folder: Path) -> Built:
    """Read one more release and build the files that it changes, on top of those in ``folder``; nothing is written.

    Args:
        origin: a wheel, an sdist, a checkout, or a version that pip downloads.
        folder: the ``schemas`` folder, with ``patches/`` and ``peft/`` in it.

    Raises:
        ValueError: what is there is no PEFT, or holds a construct that is not understood.
        FileNotFoundError: neither a path nor a version.
        subprocess.CalledProcessError: pip could not get the release.
    """
    document = json.loads((folder / "peft" / DEFS_FILE).read_text(encoding="utf-8"))
    definitions = Definitions.restored(document["$defs"])
    return _build(extract_all([origin]), load_patches(folder / "patches"), load_tables(folder), definitions)


def _build(
    extractions: Mapping[str, Extraction], patches: Patches, known: dict[str, Table], definitions: Definitions
) -> Built:
    releases = sort_releases(extractions)
    corrected = {release: patches.apply(release, extractions[release]) for release in releases}
    files = {
        f"peft/{release}.json": _text(release_schema(release, corrected[release], patches, definitions))
        for release in releases
    }
    tables = {**known, **{release: table(corrected[release]) for release in releases}}
    files[f"peft/{DEFS_FILE}"] = _text(definitions.document())
    files[f"peft/{FIELDS_FILE}"] = dump(history(tables))
    newest = sort_releases(tables)[-1]
    if newest in corrected:
        files[UMBRELLA_FILE] = _text(umbrella(newest, corrected[newest], patches))
    return Built(tuple(releases), files, tuple(_remarks(corrected, patches)))


def table(extraction: Extraction) -> Table:
    """A release's extraction as a plain table."""
    owners = {peft_type: extraction.classes[name] for peft_type, name in extraction.mapping.items()}
    return Table(
        {name: [str(value) for value in values] for name, values in extraction.enums.items()},
        dict(extraction.mapping),
        {peft_type: _entries(owner) for peft_type, owner in owners.items()},
    )


def _entries(owner: ConfigClass) -> dict[str, dict[str, Any]]:
    return {field.name: _entry(field) for field in owner.fields.values()}


def _entry(field: Field) -> dict[str, Any]:
    plain = [kind.plain() for kind in field.kinds]
    kinds = [kind for index, kind in enumerate(plain) if kind not in plain[:index]]
    made = field.factory not in ("", "lambda")
    default = {"factory": field.factory} if made else field.default
    head = {"required": True} if field.required else {"default": default}
    return {**head, "kind": kinds, **({} if field.init else {"init": False})}


def _remarks(extractions: Mapping[str, Extraction], patches: Patches) -> Iterator[str]:
    for release, extraction in extractions.items():
        yield from (f"{release}: {remark}" for remark in extraction.remarks)
        for owner in extraction.classes.values():
            for text in untranslated(owner, extraction, patches):
                yield f"{release}: {owner.name} raises under a condition that no schema expresses yet: {text}"


def write(built: Built, folder: Path) -> list[Path]:
    """Write the files that changed below ``folder`` (the ``schemas`` folder) and say which."""
    changed = []
    for name, text in built.files.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def _text(schema: dict[str, Any]) -> str:
    """A schema with one selection and one definition a line, so that its changes can be read."""
    head = json.dumps({**schema, "allOf": [], "$defs": {}}, indent=1, ensure_ascii=False)
    selections = ",\n  ".join(_line(item) for item in schema.get("allOf", ()))
    definitions = ",\n  ".join(f"{_line(name)}: {_line(value)}" for name, value in schema.get("$defs", {}).items())
    head = head.replace(',\n "allOf": []', f',\n "allOf": [\n  {selections}\n ]' if selections else "")
    return head.replace(',\n "$defs": {}', f',\n "$defs": {{\n  {definitions}\n }}' if definitions else "") + "\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
