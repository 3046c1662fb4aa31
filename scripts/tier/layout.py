"""What is where: names, addresses, ports."""

from dataclasses import dataclass

SERVICE = "10.80.200.1"
PORT = 443
L7_PORT = 8080
APP_PORT = 8000
ADMIN = "127.0.0.1:9440"
CLIENT_ADDRESSES = [f"10.80.0.{host}" for host in range(2, 10)]
ROUTER_AS, NODES_AS = 65000, 65010

#: What clients ask for; the wildcard covers the second and the third.
NAMES = ["tier.test", "www.tier.test", "shop.tier.test"]


@dataclass(frozen=True)
class Place:
    """A namespace on a network of its own with the router."""

    name: str
    network: int

    @property
    def address(self) -> str:
        return f"10.80.{self.network}.2"

    @property
    def gateway(self) -> str:
        return f"10.80.{self.network}.1"

    @property
    def router_device(self) -> str:
        return f"to-{self.name}"


CLIENT = Place("client", 0)
NODES = [Place(f"node{number}", number) for number in (1, 2, 3)]
BALANCERS = [Place(f"l7-{number}", 10 + number) for number in (1, 2)]
APPLICATIONS = [Place(f"app-{number}", 20 + number) for number in (1, 2)]
PLACES = [CLIENT, *NODES, *BALANCERS, *APPLICATIONS]
