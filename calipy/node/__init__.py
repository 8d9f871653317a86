"""What a node does for itself: who and where it is, its MTU, its tunnel addresses, a cluster's first objects, health,
what is wrong with its host (others' packet filters that drop).

Not here: anything about pods, policies or routes (`felix`), allocation itself (`ipam`, asked for through a protocol).
"""
