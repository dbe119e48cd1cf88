"""The pytest plugin, in pytest processes of its own: alone, and beside pytest-asyncio in both of its modes."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALONE = ("-p", "no:asyncio")
SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")
STRICT = ("-o", "asyncio_mode=strict", *SCOPE)
AUTO = ("-o", "asyncio_mode=auto", *SCOPE)

TESTS = """
    import asyncio

    import pytest
    import wtio
    from wtio import testing

    async def wait(session):
        await session.wait_closed()

    async def test_a_pair_and_its_network(wtio_session_pair, wtio_network):
        client, server = wtio_session_pair
        assert (client.is_client, server.is_client) == (True, False)
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        assert asyncio.get_running_loop().time() == before + 3600
        sent = wtio_network.counts.sent
        stream = await client.create_bidirectional_stream()
        await stream.write(data=b"hello", end_stream=True)
        incoming = await anext(server.incoming_bidirectional_streams())
        assert await incoming.read_all() == b"hello"
        assert wtio_network.counts.sent > sent

    def test_an_ordinary_test(wtio_run, wtio_session_pair):
        client, server = wtio_session_pair

        async def exchange():
            client.send_datagram(b"x")
            return await server.receive_datagram()

        assert wtio_run(exchange()) == b"x"
        assert wtio_run(exchange()) == b"x"
        wtio_run(client.close(7, "done"))
        assert wtio_run(server.wait_closed()).code == 7

    @pytest.mark.wtio_network(loss=0.05, seed=7)
    class TestMarks:
        @pytest.mark.wtio_network(latency=0.5)
        async def test_marks_add_up(self, wtio_network):
            assert wtio_network.to_client.loss == 0.05
            assert wtio_network.to_server.latency == 0.5
            assert wtio_network._wire.seed == 7
            async with wtio_network.serve(wait), wtio_network.connect() as session:
                assert not session.is_closed

        def test_marks_of_a_class(self, wtio_network):
            assert (wtio_network.conditions.loss, wtio_network.conditions.latency) == (0.05, 0.01)

    @pytest.fixture
    def echo(wtio_network):
        async def handle(session):
            async for stream in session.incoming_bidirectional_streams():
                await stream.write(data=await stream.read_all(), end_stream=True)

        return wtio_network.serve(handle)

    @pytest.mark.parametrize("word", [b"one", b"two"])
    async def test_a_fixture_on_top(echo, wtio_network, word):
        async with echo, wtio_network.connect() as session:
            stream = await session.create_bidirectional_stream()
            await stream.write(data=word, end_stream=True)
            assert await stream.read_all() == word

    async def test_threads(wtio_run):
        async with asyncio.timeout(1e-3):
            assert await asyncio.to_thread(lambda: 42) == 42
"""
TESTS_PASSED = 7


def run_pytest(directory: Path, program: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_it.py").write_text(textwrap.dedent(program))
    (directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    path = os.pathsep.join([str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        # Named, so that the test does not depend on what is installed; naming it twice does no harm.
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_wtio", *options],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("options", [ALONE, STRICT, AUTO], ids=["alone", "beside-strict", "beside-auto"])
def test_fixtures_work_without_pytest_asyncio_and_beside_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    result = run_pytest(tmp_path, TESTS, *options)
    assert result.returncode == 0, result.stdout
    assert f"{TESTS_PASSED} passed" in result.stdout


def test_nothing_of_wtio_is_imported_before_a_fixture_is_used(tmp_path: Path) -> None:
    program = """
        import sys

        import pytest

        def loaded():
            return sorted(name for name in sys.modules if name.partition(".")[0] == "wtio")

        def test_without(request):
            assert request.config.pluginmanager.has_plugin("pytest_wtio")
            assert loaded() == []

        def test_with(wtio_network):
            assert "wtio.testing" in loaded()
    """
    result = run_pytest(tmp_path, program, *ALONE)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


def test_tests_that_other_plugins_run_may_use_the_network_on_a_virtual_loop(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        textwrap.dedent("""
            from wtio.testing import VirtualTimeLoop

            def pytest_asyncio_loop_factories(config, item):
                return {"virtual": VirtualTimeLoop}
        """)
    )
    program = """
        import asyncio

        import pytest
        import pytest_asyncio

        async def wait(session):
            await session.wait_closed()

        @pytest_asyncio.fixture
        async def session(wtio_network):
            async with wtio_network.serve(wait), wtio_network.connect() as session:
                yield session

        @pytest.mark.asyncio
        async def test_with_their_fixture(session):
            await asyncio.sleep(3600)
            assert not session.is_closed
    """
    for options in (STRICT, AUTO):
        result = run_pytest(tmp_path, program, *options)
        assert result.returncode == 0, result.stdout
        assert "1 passed" in result.stdout


def test_a_test_that_another_plugin_runs_cannot_use_our_loop_and_its_error_says_so(tmp_path: Path) -> None:
    program = """
        import pytest

        @pytest.mark.asyncio
        async def test_it(wtio_session_pair):
            pass
    """
    result = run_pytest(tmp_path, program, *STRICT)
    assert result.returncode == 1
    assert "marked `asyncio`, so it runs on a loop of another plugin" in result.stdout
    assert "Leave the mark out, or use `wtio_network` alone" in result.stdout


@pytest.mark.parametrize(
    ("mark", "words"),
    [("7", "keyword arguments only"), ("loss=50", "loss is 50"), ("los=0.1", "unexpected keyword argument 'los'")],
)
def test_a_wrong_mark_is_refused_in_words(tmp_path: Path, mark: str, words: str) -> None:
    program = f"""
        import pytest

        @pytest.mark.wtio_network({mark})
        def test_it(wtio_network):
            pass
    """
    result = run_pytest(tmp_path, program, *ALONE, "--strict-markers")
    assert result.returncode == 1
    assert words in result.stdout


def test_a_failing_test_fails_with_its_own_error_and_leaves_the_next_alone(tmp_path: Path) -> None:
    program = """
        import asyncio

        async def test_fails(wtio_session_pair):
            client, _ = wtio_session_pair
            asyncio.ensure_future(client.receive_datagram())
            assert client.is_closed

        async def test_hangs(wtio_session_pair):
            async with asyncio.timeout(10):
                await wtio_session_pair[0].receive_datagram()

        async def test_passes(wtio_session_pair):
            await wtio_session_pair[1].close()
    """
    result = run_pytest(tmp_path, program, *ALONE)
    assert result.returncode == 1
    assert "assert client.is_closed" in result.stdout
    assert "TimeoutError" in result.stdout
    assert "2 failed, 1 passed" in result.stdout


def test_the_plugin_is_registered_where_wtio_is_installed() -> None:
    [(name, module)] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "pytest11"
    ].items()
    assert name == module == "pytest_wtio"
    assert (ROOT / "python" / module / "__init__.py").is_file()
    # What is installed may be older than this tree; then it has no entry yet.
    for entry in importlib.metadata.entry_points(group="pytest11", name=name):
        assert entry.value == module
