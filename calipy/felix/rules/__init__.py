"""Compilers from the node's state to neutral rules: pure, one owner at a time, blind to any back end's spelling.

`values` are the rules, chains and sets; `statics`, `endpoints`, `policies`, `profiles`, `sets` compile; `origins` says
what a rule stands for, and reads it back; `compile` says who owns what.
Not here: bytes (`dialects`), the order of writing (`ledger`).
"""
