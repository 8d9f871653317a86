"""The Container Network Interface: the verbs that a container runtime asks of this node.

Pure: `errors`, `configuration`, `inputs`, `protocol`, `results`, `annotations`, `wiring`, `differences` say what is
asked, what is to be built, and what is answered. Shells: `server` (the agent's socket), `dispatch` (one request, one
answer), `additions`, `removals`, `checks` (the verbs, step by step, and back), `wires` (a pod's veth pair and what lies
in its namespace), `deletions` (links that go), `pods` (a container's Pod object), `attachments` (what this node has
given out or still has to take back), `install`, `readiness`.

Not here: addresses (`ipam`), policy and host routes (`felix`), the program that the runtime executes (`forwarder/`).
What this package needs from the latter it declares as narrow Protocols.
"""
