"""``wtio.Secret``: where it comes from, and what is refused."""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.protocol.raw import raw_options

import wtio
from wtio import testing

if TYPE_CHECKING:
    from pathlib import Path

VALUE = bytes(range(32))
needs_modes = pytest.mark.skipif(sys.platform == "win32", reason="files have no modes on Windows")


def written(path: Path, value: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(value)
    path.chmod(mode)
    return path


def test_a_file_is_read_as_it_is_but_for_a_newline_at_its_end(tmp_path: Path) -> None:
    text = VALUE.hex().encode()
    for content, value in (
        (VALUE, VALUE),
        (text + b"\n", text),
        (text + b"\r\n", text),
        (VALUE[:31] + b"\n", VALUE[:31] + b"\n"),
    ):
        assert wtio.Secret.from_file(written(tmp_path / "secret", content)).value == value
        assert wtio.Secret.from_file(str(tmp_path / "secret")) == wtio.Secret(value)


@needs_modes
@pytest.mark.parametrize("mode", [0o604, 0o602, 0o660, 0o644, 0o620, 0o777])
def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "secret", VALUE, mode)
    with pytest.raises(ValueError, match=rf"secret file `{path}` has mode 0{mode:o}, .* `chmod 600`"):
        wtio.Secret.from_file(path)


@needs_modes
def test_a_group_may_read_the_file_of_root_if_nobody_who_is_root_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "secret", VALUE, 0o640)
    with pytest.raises(ValueError, match="mode 0640"):
        wtio.Secret.from_file(path)
    if path.stat().st_uid == 0:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert wtio.Secret.from_file(path).value == VALUE
        path.chmod(0o644)
        with pytest.raises(ValueError, match="mode 0644"):
            wtio.Secret.from_file(path)


def test_a_file_that_is_not_there_or_too_short_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        wtio.Secret.from_file(tmp_path / "nothing")
    path = written(tmp_path / "short", b"x" * 31)
    with pytest.raises(ValueError, match=r"short` has 31 bytes; it must have 32 or more: .*openssl rand"):
        wtio.Secret.from_file(path)
    with pytest.raises(TypeError, match="path must be"):
        wtio.Secret.from_file(VALUE)  # type: ignore[arg-type]


def test_an_environment_variable_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WTIO_SECRET", VALUE.hex())
    monkeypatch.setenv("OTHER", "short")
    assert wtio.Secret.from_environment() == wtio.Secret(VALUE.hex().encode())
    with pytest.raises(ValueError, match="environment variable OTHER has 5 bytes"):
        wtio.Secret.from_environment("OTHER")
    with pytest.raises(ValueError, match="environment variable NOTHING is not set"):
        wtio.Secret.from_environment("NOTHING")
    with pytest.raises(TypeError, match="name must be"):
        wtio.Secret.from_environment(5)  # type: ignore[arg-type]


def test_no_repr_shows_a_secret() -> None:
    secret = wtio.Secret(VALUE)
    options = replace(raw_options(), secret=secret)
    for shown in (repr(secret), repr(options), str(secret)):
        assert repr(VALUE) not in shown
        assert VALUE.hex() not in shown
    assert pickle.loads(pickle.dumps(secret)) == secret


def test_bytes_in_place_of_a_secret_are_named() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match=r"secret must be wtio\.Secret or None, not bytes; .*from_file"):
            testing.Network().serve(secret=VALUE)  # type: ignore[arg-type]

    testing.run(main())
