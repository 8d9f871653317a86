"""The agent's engine: from the state of the world to the state of this node's kernel.

Here: calculation, compilation to rules, the ledger of kernel objects, the drivers that write them.
Not here: a pod's veth pair and namespace (`cni`), BGP sessions (`bgp`), which addresses exist (`ipam`).
"""
