"""What the router and the nodes speak BGP with: BIRD or FRR."""

from pathlib import Path
from typing import Protocol

from .layout import Place


class Routing(Protocol):
    """One of the two. Everything it reads and writes is in the directory of its place."""

    #: What must be installed.
    programs: list[str]
    #: Whose routes they are, as ip-route(8) says it.
    kernel_protocol: str

    def configure_router(self, directory: Path) -> None:
        """Writes what it reads on the router."""

    def configure_node(self, directory: Path, node: Place) -> None:
        """Writes what it reads on a node."""

    def commands(self, directory: Path) -> list[tuple[list, Path]]:
        """What is to be started, in this order, and stays in the foreground; each with the
        socket that it has made when the next may be started."""

    def announcement(self, directory: Path) -> list:
        """How announce-while-healthy tells it."""
