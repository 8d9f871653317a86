"""Addresses: which there are, whose they are, how they are given out and taken back, as Calico keeps them.

Pure: `blocks`, `claims`, `handles`, `judge` decide on values. Shells: `allocator` with `block_writer`, `handle_writer`
and `claiming` (bounded compare-and-swap over a store), `snapshot` (reads all for the judge).
Not here: who needs an address, and what it is configured on.
"""
