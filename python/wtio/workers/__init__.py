"""Several processes at one address: a supervisor, its workers, and deployments that drop no session.

``python -m wtio run module:app --workers 4`` is ``Supervisor("module:app", ..., workers=4).run()``. The supervisor
opens the sockets and never imports the application. Packets find their worker by their connection ID, in the kernel
(``wtio._steering``, Linux). See docs/more-than-one-core.md and docs/deploy-without-dropping-sessions.md.
"""

from __future__ import annotations

from wtio.config import WorkerLimits
from wtio.workers._health import health, wait_leaving
from wtio.workers._supervisor import Supervisor, run

__all__ = ["Supervisor", "WorkerLimits", "health", "run", "wait_leaving"]
