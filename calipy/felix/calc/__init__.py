"""From the world to this node's desired state: pure, no I/O, no clock.

`whole.compute` is the slow, obvious definition; `graph` gives the same by steps and says what moved.
"""
