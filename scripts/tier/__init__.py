"""A tier in network namespaces of one machine, of the real parts.

    client ── router ──┬── node1 ┐              ┌ l7-1 ┐         ┌ app-1
              (BIRD,   ├── node2 ├─ PROXY v2 ──▶┤      ├─ HTTP ─▶┤
               ECMP)   └── node3 ┘              └ l7-2 ┘         └ app-2
                        (BIRD, forebay)         (HAProxy)        (nginx)

FRR may take BIRD's place. `layout` says what is where, `configurations` what each program
reads, `bird` and `frr` what is particular to who routes, `lab` starts and ends it all,
`clients` are in the client's namespace, `trials` try what a tier promises, `command_line` is
the way in. `announce-while-healthy` and `resilient-nexthops` are made
for real machines too.
"""
