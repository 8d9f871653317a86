"""All kernel writes but a pod's veth pair and what lies in its namespace.

Here: one driver an area (nftables, routes, links, conntrack, sysctls), each reads and applies and decides nothing;
the monitor that turns kernel notifications into facts.
Not here: what should be in the kernel (`calc`, `rules`), in which order and when (`ledger`, `dataplane`).
"""
