"""One switch on against off, finely interleaved; what scripts/try-switches runs.

    command_line ──▶ run ──▶ cases      what is compared: settings, environment, binary
         │            └────▶ comparison (scripts/compare's): certificates, backend, processes
         └──▶ page ──▶ statistics       the table in the document, from the result file alone

The variants of a case all run at once, but only one of them is ever awake: the others are
stopped (SIGSTOP). Each is loaded for a fraction of a second in turn, round after round, and
what is compared are the figures of one round: whatever the machine does besides, it does
to neighbours in time.
"""
