"""A whole cluster on one machine without Kubernetes: namespaces as computers, real agents, real BGP, real packets.

Here: machines and what runs on them, links, a container runtime's side of CNI, topologies, the demonstration.
Not here: anything that the product needs to run; the lab starts the product as a user would and looks at it from
outside.
"""
