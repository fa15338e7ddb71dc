"""Shared fixtures: real data by --data-root, closed sockets, an accelerator of its own for every test."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data-root", type=Path, default=None, help="folder with real data sets; marks `data` need it")


def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("--data-root")
    if given is not None and not given.is_dir():
        raise pytest.UsageError(f"--data-root {given}: no such folder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--data-root") is None:
        for item in items:
            if item.get_closest_marker("data"):
                item.add_marker(pytest.mark.skip(reason="needs --data-root DIR (make test DATA=DIR)"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> object:
    """With --data-root, a test that needs data may not skip."""
    report = yield
    if report.skipped and item.get_closest_marker("data") and item.config.getoption("--data-root") is not None:
        report.outcome = "failed"
        report.longrepr = f"skipped although --data-root was given: {report.longrepr}"
    return report


@pytest.fixture
def data_root(request: pytest.FixtureRequest) -> Path:
    """The folder with real data sets (tests marked `data`)."""
    return request.config.getoption("--data-root").resolve()


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches the network: connections other than to this machine are refused at once."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "local"
        if host not in ("127.0.0.1", "::1", "localhost", "local"):
            raise OSError(f"tests may not reach the network: {host}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _own_accelerator() -> Iterator[None]:
    """What a test says of precision and processes dies with it: accelerate keeps it in a state that all share."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
