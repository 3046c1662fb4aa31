"""forebay and its peers, measured side by side; what scripts/compare runs.

    command_line ──▶ run ──▶ measurements ──▶ load        forebay-load and its reports
         │            │           │
         │            │           └─────────▶ servers     who is measured, and how each is started
         │            │                          │
         │            ├──▶ backend, machine      └──▶ scene, processes
         ├──▶ packages
         │            ▼
         └──▶ documents ──▶ tables, plots ──▶ goals ──▶ result ──▶ figures

Left of `result` the machine is touched: programs are installed, started, loaded and ended.
`result` is the file that a run leaves, and all that the right side knows: every table and
plot is made from that file alone, so that each can be made again from what is committed.

Only Python's standard library is used.
"""
