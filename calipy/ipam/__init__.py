"""Addresses: which there are, whose they are, how they are given out and taken back, as Calico keeps them.

Pure: `blocks`, `claims`, `handles`, `judge` decide on values; `needs` is what the allocator is asked and told.
Shells: `allocator` is the door; `drawing` and `releasing` go one request's way, `claiming`, `block_writer` and
`handle_writer` are the only writers of their kinds (bounded compare-and-swap over a store), `own_blocks` remembers what
the mirror doesn't show yet; `snapshot` reads all for the judge.
Not here: who needs an address, and what it is configured on.
"""
