"""Where resources live: one protocol, two stores (embedded SQLite, the Kubernetes API), and a mirror of either.

Here: reading, writing and watching resources as they are on the wire; merge patches; errors of stores.
Not here: what a resource means, who may write which (its one owner knows), caches of derived values.
"""
