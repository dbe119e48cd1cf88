"""What of building wheels needs no compiler: the list of crates, their licences, stubs, and what the checks find."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from tools.wheels import check, crates, frameworks, outcomes, suites, targets
from tools.wheels.crates import Crate
from tools.wheels.interpreters import Interpreter

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


# Below which directories people build: what an archive must not tell of them.
@pytest.mark.parametrize("place", [("", "home", "someone"), ("", "root"), ("", "Users", "x"), ("C:", "build")])
def test_a_path_of_a_machine_is_found_in_an_archive(place: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    path = ("\\" if place[0] else "/").join((*place, "wtio"))
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


# -- suites under Wine


def test_the_change_for_wine_is_made_once_or_not_at_all(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    (original / "src").mkdir(parents=True)
    (original / "Cargo.toml").write_text("[package]", encoding="utf-8")
    (original / suites.PATCHED_FILE).write_text(f"fn new() {{\n{suites.FROM_WINDOWS}}}\n", encoding="utf-8")
    suites.patch_crate(original, copy)
    assert (copy / suites.PATCHED_FILE).read_text(encoding="utf-8") == f"fn new() {{\n{suites.FOR_WINE}}}\n"
    built = (copy / suites.PATCHED_FILE).stat().st_mtime_ns
    suites.patch_crate(original, copy)
    assert (copy / suites.PATCHED_FILE).stat().st_mtime_ns == built
    (original / suites.PATCHED_FILE).write_text("fn new() {}\n", encoding="utf-8")
    with pytest.raises(LookupError, match=r"quinn-udp has changed: src/windows\.rs has 0 times, not once"):
        suites.patch_crate(original, copy)


def test_cargo_takes_the_changed_crate_and_all_others_as_they_are_locked(tmp_path: Path) -> None:
    for name in ("Cargo.toml", "Cargo.lock"):
        (tmp_path / name).write_text((TOP / name).read_text(encoding="utf-8"), encoding="utf-8")
    suites.patch_manifests(tmp_path, tmp_path / "crate")
    before = (TOP / "Cargo.lock").read_text(encoding="utf-8").splitlines()
    after = (tmp_path / "Cargo.lock").read_text(encoding="utf-8").splitlines()
    begin = before.index('name = "quinn-udp"')
    assert after == before[: begin + 2] + before[begin + 4 :]
    assert before[begin + 2].startswith("source = ")
    assert before[begin + 3].startswith("checksum = ")
    with pytest.raises(LookupError, match=r"Cargo\.lock has 0 versions of quinn-udp"):
        suites.patch_manifests(tmp_path, tmp_path / "crate")


def test_what_the_suites_need_comes_from_the_list_for_development() -> None:
    text = (TOP / "requirements-dev.txt").read_text(encoding="utf-8")
    lines = suites.requirements(text)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    names = [line.partition("==")[0] for line in lines]
    assert len(names) == len(set(names))
    assert {"pytest", "aioquic", "winloop", *suites.MADE_HERE} <= set(names)
    assert not set(names) & set(suites.LEFT_OUT)
    for name in suites.LEFT_OUT:
        assert f"\n{name}==" in text, f"{name} is left out of what does not have it"


def test_tests_that_are_known_to_fail_under_wine_exist() -> None:
    assert suites.unknown_entries(TOP, suites.KNOWN) == []
    assert suites.unknown_entries(TOP, ["tests/test_wheels.py::test_nothing", "tests/test_none.py::test_x"]) == [
        "tests/test_wheels.py::test_nothing",
        "tests/test_none.py::test_x",
    ]


def test_only_what_the_table_of_known_failures_says_may_fail_and_must() -> None:
    table = {
        "a.py::always": suites.Known("Wine"),
        "a.py::one[x]": suites.Known("Wine"),
        "a.py::at_times": suites.Known("Wine", sometimes=True),
    }
    right = {
        "a.py::always[x]": "failed",
        "a.py::one[x]": "failed",
        "a.py::one[y]": "passed",
        "a.py::at_times": "passed",
    }
    assert suites.surprises(right, table) == []
    assert suites.surprises(right | {"a.py::at_times": "failed", "a.py::always[z]": "skipped"}, table) == []
    assert suites.surprises(right | {"a.py::one[y]": "failed"}, table) == ["FAILED a.py::one[y]"]
    (line,) = suites.surprises(right | {"a.py::always[x]": "passed"}, table)
    assert line.startswith("PASSED")
    assert line.endswith("a.py::always[x]")


# Runs tests here. Plugins are not needed, and take time to load.
HERE = (
    "PYTHONPATH=$(echo \"$PYTHONPATH\" | sed 's/Z://g; s/;/:/g') WTIO_OUTCOMES=${WTIO_OUTCOMES#Z:} "
    f'PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 exec "{sys.executable}" "$@"'
)


def runner_of(tmp_path: Path, command: str) -> suites.Runner:
    """Runs tests here, with a script in the place of Wine."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
    program.chmod(0o755)
    for name in ("logs", "site"):
        (tmp_path / name).mkdir()
    (tmp_path / "tools").symlink_to(TOP / "tools")
    interpreter = Interpreter("here", "windows-x86_64", program)
    return suites.Runner(interpreter, source=tmp_path, site=tmp_path / "site", logs=tmp_path / "logs")


@pytest.mark.skipif(sys.platform == "win32", reason="the program in the place of Wine is a script")
def test_a_test_that_ends_its_process_fails_and_those_behind_it_run(tmp_path: Path) -> None:
    runner = runner_of(tmp_path, HERE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(
        "import os, pytest\n"
        "def test_right(): pass\n"
        "def test_wrong(): assert 0\n"
        "def test_end(): os._exit(1)\n"
        "def test_skipped(): pytest.skip('for a reason')\n"
        "@pytest.fixture\n"
        "def torn():\n"
        "    yield\n"
        "    assert 0\n"
        "def test_torn(torn): pass\n",
        encoding="utf-8",
    )
    expected = {"right": "passed", "wrong": "failed", "end": "failed", "skipped": "skipped", "torn": "failed"}
    found = runner.run("tests/test_some.py")
    assert found == {f"tests/test_some.py::test_{name}": outcome for name, outcome in expected.items()}
    (tmp_path / "tests" / "test_broken.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    assert runner.run("tests/test_broken.py") == {"tests/test_broken.py": "failed"}


@pytest.mark.skipif(sys.platform == "win32", reason="the program in the place of Wine is a script")
def test_a_run_that_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    runner = runner_of(tmp_path, HERE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_some.py").write_text(
        "def test_ended(): assert 0, 'it runs again'\ndef test_interrupted(): pass\ndef test_later(): pass\n",
        encoding="utf-8",
    )
    path = tmp_path / "logs" / "test_some.jsonl"
    for node, outcome in (("ended", "began"), ("ended", "passed"), ("interrupted", "began")):
        outcomes.write(path, f"tests/test_some.py::test_{node}", outcome)
    found = runner.run("tests/test_some.py")
    assert found == {f"tests/test_some.py::test_{name}": "passed" for name in ("ended", "interrupted", "later")}


@pytest.mark.skipif(sys.platform == "win32", reason="the program in the place of Wine is a script")
def test_a_file_that_hangs_is_killed_and_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "QUIET_LIMIT", 0.1)
    runner = runner_of(tmp_path, "exec sleep 600")
    assert runner.run("tests/test_some.py") == {"tests/test_some.py": "failed"}
