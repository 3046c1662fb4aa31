"""What a tier promises, tried one after the other on a running lab."""

import contextlib
import ssl
import time
from collections.abc import Callable

from .clients import Connection, Traffic, context, enter
from .lab import Failed, Lab, comparison
from .layout import APPLICATIONS, CLIENT_ADDRESSES, NAMES, NODES, Place

SESSIONS = 300
STANDING = 60


def run(lab: Lab, trials: list[Callable], say: Callable[[str], None]) -> None:
    """These trials; the first that fails ends it with `Failed`."""
    enter(lab)
    for trial in trials:
        say(f"{trial.__doc__.splitlines()[0].rstrip('.')}:")
        for line in trial(lab):
            say(f"  {line}")


def applications_see_the_client(lab: Lab):
    """The applications see every client's true address, port and server name."""
    sent = set()
    tls = context(lab)
    for number in range(96):
        source, name = CLIENT_ADDRESSES[number % 8], NAMES[number % len(NAMES)]
        with contextlib.closing(Connection(tls, source=source, name=name)) as connection:
            connection.request(f"/seen/{number}")
            address, port = connection.local
            sent.add(f"{address}:{port} {name} /seen/{number}")

    def seen() -> set[str]:
        logs = (lab.directory / app.name / "access.log" for app in APPLICATIONS)
        return {line for log in logs for line in log.read_text().splitlines() if "/seen/" in line}

    lab.wait_until("the access logs have every request", lambda: len(seen()) >= len(sent))
    if seen() != sent:
        raise Failed(f"nginx logged what was not sent: {sorted(seen() ^ sent)[:4]}")
    yield f"{len(sent)} requests of {len(CLIENT_ADDRESSES)} addresses, all logged as they were sent"


def _resumed(lab: Lab, version: ssl.TLSVersion) -> int:
    """How many of SESSIONS connections resume what another node began."""
    tls, resumed, session = context(lab, version), 0, None
    for number in range(SESSIONS + 1):
        with contextlib.closing(
            Connection(tls, host=NODES[number % len(NODES)].address, session=session)
        ) as connection:
            connection.request("/session")
            resumed += connection.resumed
            session = connection.session
    return resumed


def sessions_resume_on_other_nodes(lab: Lab):
    """Sessions resume when every connection lands on another node."""
    versions = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
    for version in versions:
        resumed = _resumed(lab, version)
        yield f"{version.name}: {resumed} of {SESSIONS}, each on another node than the one before"
        if resumed < 0.99 * SESSIONS:
            raise Failed("fewer than 99 % were resumed")
    common = [lab.secrets(node).read_bytes() for node in NODES]
    for node in NODES:
        lab.replace_secret(node)
    for version in versions:
        resumed = _resumed(lab, version)
        yield f"{version.name}, each node with a secret of its own: {resumed} of {SESSIONS}"
        if resumed != 0:
            raise Failed("sessions crossed from one secret to another")
    for node, secret in zip(NODES, common):
        lab.secrets(node).write_bytes(secret)
        lab.reload(node)


def _standing(lab: Lab, count: int = STANDING) -> list[Connection]:
    tls = context(lab)
    connections = [
        Connection(tls, source=CLIENT_ADDRESSES[number % 8]) for number in range(count)
    ]
    for connection in connections:
        connection.request("/standing")
    return connections


def _broken(connections: list[Connection]) -> int:
    count = 0
    for connection in connections:
        try:
            connection.request("/standing")
        except OSError:
            count += 1
    return count


def _none_failed(traffic: Traffic) -> str:
    if traffic.failures:
        raise Failed(f"{len(traffic.failures)} requests failed, such as: {traffic.failures[0]}")
    return f"{traffic.done} requests meanwhile, 0 failed"


def a_node_drains(lab: Lab):
    """A node drains: its route goes first, then its connections end."""
    node, others = NODES[0], NODES[1:]
    with Traffic(lab) as traffic:
        traffic.goes_on()
        standing = _standing(lab)
        on_node = [one for one in standing if one.local in lab.clients_of(node)]
        start = time.monotonic()
        lab.drain(node)
        lab.wait_for_routes(others)
        gone = time.monotonic() - start
        # It still accepts: who was on the way when the route went is served.
        with contextlib.closing(Connection(context(lab), host=node.address)) as late:
            late.request("/late")
        # Beyond the notice, when it accepts nobody any more.
        lab.wait_until("it accepts no more", lambda: not _accepts(lab, node))
        traffic.goes_on()
        if not on_node:
            raise Failed("none of the standing connections was on the node")
        if broken := _broken(standing):
            raise Failed(f"{broken} of {len(standing)} standing connections broke")
        for connection in standing:
            connection.close()
        lab.wait_for_end(node)
        lab.start_forebay(node)
        lab.wait_for_routes(NODES)
        traffic.goes_on()
    yield f"route gone {gone * 1000:.0f} ms after SIGTERM, while it still accepted (notice: 1 s)"
    yield f"{len(on_node)} connections went on there after the route had gone, until they ended"
    yield _none_failed(traffic)


def _accepts(lab: Lab, node: Place) -> bool:
    time.sleep(0.2)  # sockets are closed once nobody has come for 50 ms
    try:
        Connection(context(lab), host=node.address).close()
    except OSError:
        return False
    return True


def a_node_dies(lab: Lab):
    """A node loses its power: its own connections are lost, no others."""
    node, others = NODES[1], [NODES[0], NODES[2]]
    standing = _standing(lab)
    lost = lab.clients_of(node)
    elsewhere = [one for one in standing if one.local not in lost]
    tls = context(lab)
    start = time.monotonic()
    lab.cut_off(node)
    last_failure, attempts, failures = start, 0, 0
    while time.monotonic() < start + 4:
        attempts += 1
        began = time.monotonic()
        try:
            with contextlib.closing(Connection(tls, timeout=0.3)) as connection:
                connection.request("/after")
        except OSError:
            failures += 1
            last_failure = began
        time.sleep(0.01)
    if lab.routed() != {other.address for other in others}:
        raise Failed(f"the route still leads to {lab.routed()}")
    if broken := _broken(elsewhere):
        raise Failed(f"{broken} of {len(elsewhere)} connections on the other nodes broke")
    for connection in standing:
        connection.close()
    yield (f"{len(standing) - len(elsewhere)} connections were on it; "
           f"of {len(elsewhere)} on the others none broke")
    yield (f"the last new connection that failed began {(last_failure - start) * 1000:.0f} ms "
           f"after ({failures} of {attempts} failed; BFD: 3 × 100 ms)")
    if last_failure - start > 2:
        raise Failed("new connections failed for more than 2 s")
    lab.repair(node)
    lab.wait_for_routes(NODES)


def every_node_is_reloaded_and_upgraded(lab: Lab):
    """Every node is reloaded, then replaced by a new process, one after the other."""
    with Traffic(lab) as traffic:
        traffic.goes_on()
        for node in NODES:
            lab.reload(node)
            traffic.goes_on()
        for node in NODES:
            lab.drain(node)
            lab.wait_for_end(node)
            lab.start_forebay(node)
            lab.wait_for_routes(NODES)
            traffic.goes_on()
    yield _none_failed(traffic)


def certificates_are_renewed(lab: Lab):
    """Certificates are renewed on one node after the other."""
    with Traffic(lab) as traffic:
        traffic.goes_on()
        yield f"before: {_compared(lab, same=True)}"
        lab.issue(NODES[0])
        lab.reload(NODES[0])
        traffic.goes_on()
        yield f"one node renewed: {_compared(lab, same=False)}"
        renewed = (lab.directory / NODES[0].name / "certificates" / "tier.pem").read_bytes()
        for node in NODES[1:]:
            file = lab.directory / node.name / "certificates" / "tier.pem"
            fresh = file.with_suffix(".whole")
            fresh.write_bytes(renewed)
            fresh.chmod(0o600)
            fresh.rename(file)
            lab.reload(node)
            traffic.goes_on()
        yield f"all renewed: {_compared(lab, same=True)}"
    yield _none_failed(traffic)


def _compared(lab: Lab, same: bool) -> str:
    """What `forebay certs check --nodes --same` says, which must be what is expected."""
    try:
        lab.run(*comparison(lab))
    except Failed as finding:
        if same or "exit code 1" not in str(finding):
            raise
        return "forebay certs check --nodes --same: nodes differ (exit code 1)"
    if not same:
        raise Failed("forebay certs check --nodes --same found no difference")
    return "forebay certs check --nodes --same: all the same, sessions resume (exit code 0)"


def _reached(lab: Lab, node: Place) -> bool:
    """Whether new clients of the service get to the node too."""
    standing = _standing(lab)
    there = lab.clients_of(node)
    reached = any(connection.local in there for connection in standing)
    for connection in standing:
        connection.close()
    return reached


def a_node_returns(lab: Lab):
    """A node comes back: how many of the connections on the others break."""
    node = NODES[2]

    def trial(resilient: bool) -> int:
        lab.maintain(node, True)
        lab.wait_for_routes(NODES[:2])
        if resilient:
            lab.wait_until("the group has two", lambda: lab.resilient_members() == 2)
        standing = _standing(lab)
        lab.maintain(node, False)
        lab.wait_for_routes(NODES)
        if resilient:
            lab.wait_until("the group has three", lambda: lab.resilient_members() == 3)
        broken = _broken(standing)
        for connection in standing:
            connection.close()
        if not _reached(lab, node):
            raise Failed("no new client reached the node that came back")
        return broken

    lab.sticky(False)
    plain = trial(resilient=False)
    yield f"plain ECMP: {plain} of {STANDING}"
    with lab.resilient():
        resilient = trial(resilient=True)
    yield f"resilient next-hop group: {resilient} of {STANDING}"
    lab.sticky(True)
    sticky = trial(resilient=False)
    yield f"plain ECMP with connection marks: {sticky} of {STANDING}"
    if plain == 0 or resilient or sticky:
        raise Failed("expected some with plain ECMP, none with the others")


ALL = [
    applications_see_the_client,
    sessions_resume_on_other_nodes,
    a_node_drains,
    a_node_dies,
    every_node_is_reloaded_and_upgraded,
    certificates_are_renewed,
    a_node_returns,
]

#: Where it matters how soon, and between which nodes, routes change.
OF_ROUTING = [a_node_drains, a_node_dies, a_node_returns]
