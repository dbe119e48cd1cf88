"""``python -m wtio run``: serve an application with workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import wtio
from wtio.cli._options import add_certificate_options, refuse, server_tls
from wtio.workers import Supervisor, WorkerLimits
from wtio.workers._log import LEVELS, configure

if TYPE_CHECKING:
    import argparse

    from wtio.cli._types import Subparsers


def add_parser(commands: Subparsers) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "run",
        help="serve an application with several processes",
        description="Serve an application: a session handler, a wtio.Router or an ASGI application. "
        "SIGHUP starts new code beside the old, SIGUSR1 reads certificates again, SIGTERM and Ctrl-C end it in good "
        "order.",
    )
    parser.add_argument("app", help="where it is: module:attribute, such as shop.main:app")
    parser.add_argument("--workers", type=int, default=1, help="processes that serve (default: 1)")
    parser.add_argument("--host", help="name or address to listen on (default: all addresses)")
    parser.add_argument(
        "--port",
        type=int,
        default=443,
        help="UDP port; 0 takes a free one (default: 443, that of URLs without one, which takes a privilege)",
    )
    parser.add_argument("--systemd", action="store_true", help="use the sockets that systemd passes, not host and port")
    add_certificate_options(parser)
    parser.add_argument("--secret", help="file with the secret that keys are derived from; see wtio.Secret")
    parser.add_argument("--server-id", action="store_true", help="take the server ID from AWS_LBC_QUIC_SERVER_ID")
    parser.add_argument("--factory", action="store_true", help="call the attribute to get the application")
    parser.add_argument("--app-dir", default=".", help="where modules are looked for first (default: here)")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio", help="event loop of the workers")
    parser.add_argument(
        "--drain-delay", type=float, default=0.0, help="seconds between SIGTERM and the end of welcome (default: 0)"
    )
    parser.add_argument("--drain", type=float, default=0.0, help="seconds that sessions may then go on (default: 0)")
    parser.add_argument(
        "--deploy-drain",
        type=float,
        help="seconds that sessions with old code may go on (default: 3600; with --reload: 0)",
    )
    parser.add_argument("--pid-file", help="write the number of the process there")
    parser.add_argument("--health", metavar="HOST:PORT", help="TCP address at which /health and /metrics are answered")
    parser.add_argument("--reload", action="store_true", help="deploy whenever a Python file changes, for development")
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="least level of the log (default: info)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    if options.systemd:
        refuse(options, ("--host", "--port"), "does nothing with --systemd, which says where to listen; leave one out")
    tls = server_tls(options)
    configure(options.log_level)
    drain = options.deploy_drain
    if drain is None:
        drain = 0.0 if options.reload else WorkerLimits().drain
    supervisor = Supervisor(
        options.app,
        options.host,
        options.port,
        tls=tls,
        workers=options.workers,
        factory=options.factory,
        directory=options.app_dir,
        origins=options.origin,
        timeouts=wtio.Timeouts(drain_delay=options.drain_delay, drain=options.drain),
        worker_limits=WorkerLimits(drain=drain),
        secret=wtio.Secret.from_file(options.secret) if options.secret else None,
        server_id=wtio.ServerId.from_environment() if options.server_id else None,
        sock=wtio.systemd_sockets() if options.systemd else None,
        loop=options.loop,
        log_level=options.log_level,
        pid_file=options.pid_file,
        health=_address(options.health) if options.health else None,
        watch=options.reload,
    )
    try:
        supervisor.run()
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    return 0


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError(f"--health is `{text}`; it must be HOST:PORT, such as 127.0.0.1:8081")
    return host.strip("[]"), int(port)
