"""A server's figures for Prometheus, by way of prometheus_client. Needs ``pip install wtio[prometheus]``.

``register`` adds them to a registry, in one call. The names are those of ``ServerStats`` behind ``wtio_``. ``import
wtio`` does not load this module. docs/metrics.md has queries, alerts and a dashboard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
    from prometheus_client.registry import Collector
except ImportError as _error:
    raise ImportError("wtio.prometheus needs prometheus_client; install wtio[prometheus]") from _error

import wtio
from wtio._arguments import check_instance
from wtio._stats import ServerStats
from wtio.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.core import Metric

__all__ = ["ServerCollector", "register"]

# What tells the servers apart, if there are several.
_SERVER: Final = "server"
# By field: the label under which a mapping's counts are. Of the others it is ``cause``.
_LABELS: Final = {
    "sessions_rejected_total": "status",
    "streams_opened_total": "kind",
    "streams_received_total": "kind",
}
_HELP: Final = {
    "connections_open": "Connections with a complete handshake.",
    "connections_half_open": "Connections whose handshake is not complete.",
    "connections_accepted_total": "Handshakes begun.",
    "connections_validated_total": "Handshakes begun by clients that had shown their address.",
    "connections_opened_total": "Handshakes completed.",
    "connections_closed_total": "Connections that ended after their handshake, by cause.",
    "connections_refused_total": "Clients refused before their handshake, by cause.",
    "connections_shed_total": "Connections closed because the server was short of memory.",
    "handshakes_failed_total": "Handshakes that failed, by cause.",
    "retries_total": "First packets answered with Retry.",
    "sessions_open": "Sessions that are not over on both sides.",
    "requests_waiting": "Requests for sessions that are not answered yet.",
    "sessions_opened_total": "Sessions established.",
    "sessions_closed_total": "Sessions that are over, by who ended them.",
    "sessions_rejected_total": "Requests for sessions that were refused, by HTTP status.",
    "streams_opened_total": "Streams of sessions that the server opened.",
    "streams_received_total": "Streams of sessions that clients opened.",
    "stream_sent_bytes_total": "Payload sent on streams of sessions.",
    "stream_received_bytes_total": "Payload received on streams of sessions.",
    "datagrams_sent_total": "Datagrams of sessions that were sent.",
    "datagrams_received_total": "Datagrams of sessions that arrived.",
    "datagrams_dropped_total": "Datagrams of sessions that were dropped, by cause.",
    "datagram_sent_bytes_total": "Payload of datagrams that were sent.",
    "datagram_received_bytes_total": "Payload of datagrams that arrived.",
    "udp_sent_bytes_total": "UDP payload sent on all connections.",
    "udp_received_bytes_total": "UDP payload received on all connections.",
    "packets_sent_total": "QUIC packets sent.",
    "packets_received_total": "UDP datagrams received on connections.",
    "packets_lost_total": "QUIC packets declared lost.",
    "packets_astray_total": "Packets of connections of other processes at the same address.",
    "loop_late_total": "How often the event loop was late.",
    "memory_limit_bytes": "The memory budget of the server.",
    "memory_used_bytes": "What the memory budget is charged for.",
    "memory_held_bytes": "What is held for connections and sessions.",
    "memory_promised_bytes": "What clients may still send.",
}


class ServerCollector(Collector):
    """Asks servers for their figures whenever the registry is read, on whatever thread that is.

    Most programs call ``register``, which makes one. There are as many time series as causes and kinds, about 80 for
    each server, and one for each status that was the answer to a request; no client can add any.

    Args:
        servers: As for ``register``.

    Raises:
        TypeError: ``servers`` is something else.
    """

    def __init__(self, servers: Server | Mapping[str, Server]) -> None:
        if isinstance(servers, Mapping):
            for name, server in servers.items():
                if not isinstance(name, str):
                    raise TypeError(f"servers has the name {name!r}; names are str")
                check_instance(f"servers[{name!r}]", server, Server, "from wtio.serve", optional=False)
        else:
            check_instance("servers", servers, Server, "from wtio.serve, or a mapping of several", optional=False)
        # A mapping stays the caller's, who may add servers and remove them.
        self._servers = servers

    def collect(self) -> Iterator[Metric]:
        """Return the figures of this moment. Called by the registry."""
        if isinstance(self._servers, Mapping):
            # A copy, because other threads may change it.
            named = [((name,), server.stats()) for name, server in list(self._servers.items())]
            return self._families(named, (_SERVER,))
        return self._families([((), self._servers.stats())], ())

    def describe(self) -> Iterable[Metric]:
        """Return all metrics without values. Called by the registry, to find names that are there twice."""
        return self._families([], ())

    def _families(
        self, stats: Sequence[tuple[tuple[str, ...], ServerStats]], labels: tuple[str, ...]
    ) -> Iterator[Metric]:
        """The metrics of servers, each with the values of ``labels`` and its figures."""
        build = InfoMetricFamily("wtio_build", "The version of wtio.", labels=())
        if stats:
            build.add_metric((), {"version": wtio.__version__})
        yield build
        for field in dataclasses.fields(ServerStats):
            is_total = field.name.endswith("_total")
            unit = "bytes" if field.name.removesuffix("_total").endswith("_bytes") else ""
            values = [(given, getattr(one, field.name)) for given, one in stats]
            own = (_LABELS.get(field.name, "cause"),) if _is_mapping(field) else ()
            kind = CounterMetricFamily if is_total else GaugeMetricFamily
            family = kind(f"wtio_{field.name}", _HELP[field.name], labels=(*labels, *own), unit=unit)
            for given, value in values:
                if own:
                    for name, count in value.items():
                        family.add_metric((*given, str(name)), count)
                elif value is not None:  # the memory budget, if there is none
                    family.add_metric(given, value)
            yield family


def register(servers: Server | Mapping[str, Server], *, registry: CollectorRegistry = REGISTRY) -> ServerCollector:
    """Let a registry show the figures of a server, under names that begin with ``wtio_``.

    ::

        async with wtio.serve(handler, port=4433, tls=tls) as server:
            wtio.prometheus.register(server)
            prometheus_client.start_http_server(9464, addr="127.0.0.1")

    Reading takes 1 or 2 ms for each 1000 connections. If it fails, whoever reads sees that; the server does not.

    Args:
        servers: A server, started or not; or a mapping from names to servers, for several in one process. Then every
            time series has the label ``server``. A mapping is looked at with each reading, so a ``dict`` may change.
            The figures of a server stay when it is closed.
        registry: Of prometheus_client. Default: the one that prometheus_client shows unless told otherwise.

    Returns:
        The collector, for ``registry.unregister``.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: The registry has such metrics already: register a mapping once, not each server.
    """
    check_instance("registry", registry, CollectorRegistry, "of prometheus_client", optional=False)
    collector = ServerCollector(servers)
    registry.register(collector)
    return collector


def _is_mapping(field: dataclasses.Field[object]) -> bool:
    # Annotations are text in that module.
    return str(field.type).startswith("Mapping")
