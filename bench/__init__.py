"""How fast CalIPy is, side by side with a peer in one run: `make bench`.

Each module measures one subject and gives rows; `__main__` runs them, prints a table and writes build/bench.json. The
figures are ratios on this machine, now; nothing here passes or fails.
Not here: tests. What is measured in namespaces is made and removed here.
"""
