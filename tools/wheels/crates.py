"""The crates that are linked into the extension: their licence texts, and the list of them (SBOM) that a wheel carries.

Both come from `cargo metadata`, for one platform, and are the same for the same Cargo.lock.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
import tomllib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

# What a crate's author calls files with licences.
_LICENCE_FILES = re.compile(r"(licen[cs]e|copying|notice|unlicense|copyright)", re.IGNORECASE)
_RULE = "-" * 100


@dataclass(frozen=True)
class Crate:
    """A crate, as far as those who get it in a wheel have to know."""

    name: str
    version: str
    # An SPDX expression.
    licence: str
    # Of the archive in the registry; None for crates of this project.
    checksum: str | None
    repository: str | None
    directory: Path
    # By name and version.
    dependencies: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name and version, as people write them."""
        return f"{self.name} {self.version}"


def linked(source: Path, triple: str, environment: dict[str, str]) -> list[Crate]:
    """Every crate that the extension depends on at run time on a platform, itself included, by name.

    Macros are among them, since what they write is compiled. What only builds or tests is not.
    """
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", triple]
    found = subprocess.run(command, cwd=source, env=environment, check=True, stdout=subprocess.PIPE)
    metadata = json.loads(found.stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    lock = tomllib.loads((source / "Cargo.lock").read_text(encoding="utf-8"))
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}

    needed: dict[str, list[str]] = {}
    waiting = [id for id, package in packages.items() if package["name"] == "wtio-core"]
    while waiting:
        id = waiting.pop()
        if id in needed:
            continue
        # A kind of None is that of ordinary dependencies.
        needed[id] = [
            dependency["pkg"]
            for dependency in nodes[id]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        waiting += needed[id]

    def label(id: str) -> str:
        return f"{packages[id]['name']} {packages[id]['version']}"

    crates = [
        Crate(
            name=packages[id]["name"],
            version=packages[id]["version"],
            licence=(packages[id]["license"] or "").replace("/", " OR "),
            checksum=checksums.get((packages[id]["name"], packages[id]["version"])),
            repository=packages[id]["repository"],
            directory=Path(packages[id]["manifest_path"]).parent,
            dependencies=tuple(sorted(map(label, dependencies))),
        )
        for id, dependencies in needed.items()
    ]
    return sorted(crates, key=lambda crate: (crate.name, crate.version))


def licence_texts(crates: list[Crate], *, extra: dict[str, str]) -> str:
    """The licences of crates: a list, and then each text once, with those to which it applies.

    Args:
        crates: The crates; those of this project are left out, since its licences are files of their own.
        extra: What else is linked, by name, with the text of its licence.

    Raises:
        LookupError: A crate has no text, and its licence is not among those whose text is the same for everybody.
    """
    foreign = [crate for crate in crates if crate.checksum is not None]
    owners: dict[str, list[str]] = {}
    shown: dict[str, str] = {}
    # The licence in general words, for crates that name it and have no copy of it.
    apache = next(text for crate in foreign for text in _texts(crate) if "apache license" in text[:200].lower())
    for crate in foreign:
        texts = _texts(crate)
        if not texts and "Apache-2.0" in crate.licence:
            texts = [apache]
        if not texts:
            raise LookupError(f"{crate.label} ({crate.licence}) comes without the text of its licence")
        for text in texts:
            _add(owners, shown, crate.label, text)
    for name, text in extra.items():
        _add(owners, shown, name, text)
    lines = ["Software of others in this extension, and its licences.", ""]
    lines += [f"{crate.label}: {crate.licence}" for crate in foreign]
    lines += list(extra)
    for key, names in owners.items():
        lines += ["", _RULE, *_wrapped(names), _RULE, "", shown[key]]
    return "\n".join(lines) + "\n"


def _texts(crate: Crate) -> list[str]:
    files = [path for path in sorted(crate.directory.iterdir()) if path.is_file() and _LICENCE_FILES.match(path.name)]
    files = [path for path in files if path.suffix not in {".rs", ".toml", ".json"}]
    if not files:
        return _text_in_source(crate)
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in files]


def _text_in_source(crate: Crate) -> list[str]:
    """The licence at the head of a crate's source, for those that have it there and nowhere else."""
    source = crate.directory / "src" / "lib.rs"
    if not source.is_file():
        return []
    head = itertools.takewhile(lambda line: line.startswith("//"), source.read_text(encoding="utf-8").splitlines())
    text = "\n".join(line.removeprefix("//").removeprefix(" ") for line in head).strip()
    return [text] if "redistribution and use" in text.lower() else []


def _add(owners: dict[str, list[str]], shown: dict[str, str], owner: str, text: str) -> None:
    # The same text in other lines is the same text.
    key = " ".join(text.split()).lower()
    owners.setdefault(key, [])
    if owner not in owners[key]:
        owners[key].append(owner)
    shown.setdefault(key, "\n".join(line.rstrip() for line in text.splitlines()))


def _wrapped(names: list[str]) -> list[str]:
    lines = [""]
    for name in names:
        if lines[-1] and len(lines[-1]) + len(name) > 98:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{name}"
    return lines


def bill_of_materials(crates: list[Crate], *, version: str, triple: str, epoch: int) -> str:
    """The same crates as a CycloneDX 1.5 document, for programs that look for known holes."""
    components = [
        {
            "type": "library",
            "bom-ref": _reference(crate.label),
            "name": crate.name,
            "version": crate.version,
            "licenses": [{"expression": crate.licence}],
            "purl": _reference(crate.label),
            **({"hashes": [{"alg": "SHA-256", "content": crate.checksum}]} if crate.checksum else {}),
            **({"externalReferences": [{"type": "vcs", "url": crate.repository}]} if crate.repository else {}),
        }
        for crate in crates
    ]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).isoformat().replace("+00:00", "Z"),
            "component": {
                "type": "library",
                "bom-ref": f"pkg:pypi/wtio@{version}",
                "name": "wtio",
                "version": version,
                "purl": f"pkg:pypi/wtio@{version}",
            },
            "properties": [{"name": "target", "value": triple}],
        },
        "components": components,
        "dependencies": [
            {"ref": f"pkg:pypi/wtio@{version}", "dependsOn": [_reference(f"wtio-core {version}")]},
            *(
                {"ref": _reference(crate.label), "dependsOn": [_reference(label) for label in crate.dependencies]}
                for crate in crates
            ),
        ],
    }
    # A number of its own that depends on nothing but the contents.
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
    return (
        json.dumps({"serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}", **document}, indent=1) + "\n"
    )


def _reference(label: str) -> str:
    name, version = label.split(" ")
    return f"pkg:cargo/{name}@{version}"
