"""Every input that fuzzing found worth keeping, once through its target."""

import pytest
from fuzz.run import CORPUS, MOST_BYTES, MOST_FILES, RUST_TARGETS
from fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_hold(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            error.add_note(f"the input is {path}")
            raise


def test_corpora_are_small_and_have_a_target() -> None:
    folders = {folder.name: [path.stat().st_size for path in folder.iterdir()] for folder in CORPUS.iterdir()}
    assert folders.keys() == {*TARGETS, *RUST_TARGETS}
    for name, sizes in folders.items():
        assert len(sizes) <= MOST_FILES, name
        assert sum(sizes) <= MOST_BYTES, name
