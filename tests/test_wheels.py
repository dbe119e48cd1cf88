"""What of building wheels needs no compiler: the list of crates, their licences, stubs, and what the checks find."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tools.wheels import check, crates, frameworks, targets
from tools.wheels.crates import Crate

TOP = Path(__file__).parents[1]
APACHE = "Apache License\nVersion 2.0\nof many words"


def crate(path: Path, name: str, licence: str = "MIT", files: dict[str, str] | None = None, **more: object) -> Crate:
    directory = path / name
    directory.mkdir()
    for file, text in (files or {}).items():
        (directory / file).write_text(text, encoding="utf-8")
    facts = {"checksum": "ab" * 32, "repository": None, "dependencies": ()} | more
    return Crate(name=name, version="1.0.0", licence=licence, directory=directory, **facts)  # type: ignore[arg-type]


def test_each_licence_is_there_once_with_all_to_which_it_applies(tmp_path: Path) -> None:
    found = [
        crate(tmp_path, "one", files={"LICENSE-MIT": "Copyright One", "LICENSE-APACHE": APACHE, "lib.rs": "fn"}),
        # The same words in other lines.
        crate(tmp_path, "two", "Apache-2.0", files={"LICENCE": APACHE.replace("\n", "  \n\n")}),
        crate(tmp_path, "three", "MIT OR Apache-2.0"),
        crate(tmp_path, "ours", checksum=None),
    ]
    text = crates.licence_texts(found, extra={"a library": "Terms of the library"})
    assert text.count("of many words") == text.count("Copyright One") == text.count("Terms of the library") == 1
    assert "one 1.0.0, two 1.0.0, three 1.0.0" in text
    assert "two 1.0.0: Apache-2.0" in text
    assert "ours" not in text


def test_a_licence_at_the_head_of_a_crates_source_counts_if_there_is_no_file(tmp_path: Path) -> None:
    found = [crate(tmp_path, "one", files={"LICENSE": APACHE}), crate(tmp_path, "headed", "BSD-2-Clause")]
    (found[1].directory / "src").mkdir()
    source = "// Copyright Headed.\n//\n// Redistribution and use are permitted.\n\n//! What it does\n"
    (found[1].directory / "src" / "lib.rs").write_text(source, encoding="utf-8")
    text = crates.licence_texts(found, extra={})
    assert "Copyright Headed.\n\nRedistribution and use are permitted." in text
    assert "What it does" not in text


def test_a_crate_without_the_text_of_its_licence_is_an_error(tmp_path: Path) -> None:
    found = [crate(tmp_path, "one", files={"LICENSE": APACHE}), crate(tmp_path, "bare", "ISC")]
    with pytest.raises(LookupError, match=r"bare 1\.0\.0 \(ISC\)"):
        crates.licence_texts(found, extra={})


def test_the_list_of_crates_is_the_same_for_the_same_crates(tmp_path: Path) -> None:
    found = [crate(tmp_path, "one"), crate(tmp_path, "wtio-core", checksum=None, dependencies=("one 1.0.0",))]
    bill = crates.bill_of_materials(found, version="1.0.0", triple="here", epoch=0)
    assert bill == crates.bill_of_materials(found, version="1.0.0", triple="here", epoch=0)
    assert bill != crates.bill_of_materials(found, version="1.0.0", triple="there", epoch=0)
    assert str(tmp_path) not in bill
    document = json.loads(bill)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["serialNumber"])
    assert document["components"][0]["hashes"][0]["content"] == "ab" * 32
    assert document["dependencies"][-1] == {"ref": "pkg:cargo/wtio-core@1.0.0", "dependsOn": ["pkg:cargo/one@1.0.0"]}


def test_a_stub_has_every_name_that_a_crate_declares(tmp_path: Path) -> None:
    source = (
        'extern "C" {\n    pub fn SecTrustCopy(\n        x: u8);\n    pub static kSecClass: u8;\n}\nfn private() {}\n'
    )
    bound = crate(tmp_path, "security-framework-sys", files={"lib.rs": source})
    frameworks.write_stubs(tmp_path / "stubs", [bound, crate(tmp_path, "other")])
    (stub,) = (tmp_path / "stubs").rglob("*.tbd")
    assert "[ _SecTrustCopy, _kSecClass ]" in stub.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["/home/someone/wtio", "/root/build/wtio", "/Users/x/wtio", "C:\\build\\wtio"])
def test_a_path_of_a_machine_is_found_in_an_archive(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "failures", [])
    check.expect_no_path(b"\0/crates/ring-0.17.14/src/lib.rs\0/rust/library/core/src/fmt.rs\0", "wheel")
    assert check.failures == []
    check.expect_no_path(b"\0" + path.encode() + b"\0", "wheel")
    assert len(check.failures) == 1


def test_every_wheel_has_a_machine_that_takes_it() -> None:
    assert {part for _, part in check.MACHINES.values()} == set(targets.TARGETS)
    assert len(check.MACHINES) == 8
    for tags, part in check.MACHINES.values():
        if "mac" not in part:
            assert set(tags) & set(targets.TARGETS[part].platform.split("."))


def test_the_workflows_run_commands_of_this_project_with_actions_that_cannot_change() -> None:
    makefile = (TOP / "Makefile").read_text(encoding="utf-8")
    for workflow in (TOP / ".github" / "workflows").glob("*.yml"):
        text = workflow.read_text(encoding="utf-8")
        for command in re.findall(r"^ +- run: (?:sudo \S+ )?make ([a-z-]+)", text, re.MULTILINE):
            assert f"\n{command}:" in makefile, f"{workflow.name} runs `make {command}`"
        for action in re.findall(r"uses: (\S+)", text):
            assert re.search(r"@[0-9a-f]{40}$", action) or action.startswith("./"), f"{workflow.name} uses {action}"
