"""One agent acts for a host at a time: a lease in the database, with a fencing token.

A holder that was suspended or cut off may wake up after another agent took over. Every transaction
of an agent therefore checks its token first, and locks it until it commits.
"""

import ipaddress
import os
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from engine.launch.adopted_process import Identity
from engine.serving.tables import AgentLease
from registry.errors import Conflict
from registry.settings import settings

LEASE_SECONDS = 15
NOBODY = ""


class Lease:
    """The lease of one agent on one host."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.token: int | None = None
        self._holder = _whereabouts(Identity.of(os.getpid()))

    def hold(self, session: Session) -> bool:
        """Take or renew the lease; return False while another agent holds it.

        Takes a lease that has expired, or whose holder ran on this machine and has ended.
        """
        nobody = {"host": self.host, "token": 0, "holder": NOBODY, "expires_at": func.now()}
        session.execute(insert(AgentLease).values(nobody).on_conflict_do_nothing())
        row = session.scalars(select(AgentLease).filter_by(host=self.host).with_for_update()).one()
        is_ours = self.token is not None and (row.token, row.holder) == (self.token, self._holder)
        if not is_ours:
            has_expired = select(AgentLease.expires_at <= func.now()).filter_by(host=self.host)
            if not session.scalar(has_expired) and not _has_ended(row.holder):
                self.token = None
                return False
            row.token += 1
            row.holder = self._holder
            self.token = row.token
        row.web_address = _web_address()
        row.expires_at = func.now() + text(f"interval '{LEASE_SECONDS} seconds'")
        session.flush()
        return True

    def check(self, session: Session) -> None:
        """Keep the lease until the transaction ends. Raises Conflict when another agent has it."""
        query = select(AgentLease.token).filter_by(host=self.host, holder=self._holder)
        if self.token is None or session.scalar(query.with_for_update(read=True)) != self.token:
            raise Conflict(f"another agent acts for host {self.host!r}")

    def release(self, session: Session) -> None:
        """Let another agent take the lease at once."""
        self.check(session)
        row = session.get_one(AgentLease, self.host)
        row.holder, row.expires_at = NOBODY, func.now()
        session.flush()
        self.token = None


def _whereabouts(identity: Identity) -> str:
    """Return where a process runs and which one it is."""
    return f"{_machine()} {identity.pid} {identity.started}"


def _has_ended(holder: str) -> bool:
    """Tell whether a holder ran on this machine and has ended."""
    if holder == NOBODY:
        return True
    machine, pid, started = holder.rsplit(" ", 2)
    return machine == _machine() and not Identity(int(pid), int(started)).is_running()


def _web_address() -> str | None:
    """Return where other hosts reach the service of this one."""
    host, port = settings().host, settings().port
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None if host == "localhost" else f"http://{host}:{port}"
    if address.is_loopback:
        return None
    if address.is_unspecified:
        host = settings().host_name
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _machine() -> str:
    """Name this boot of this machine, and its space of process ids: containers have their own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
