"""Wire shapes: one module a kind, as the API server stores them.

Here: the struct of each kind with Calico's (or Kubernetes') field names and defaults, `problems()` that says
what is wrong with a value, the selector language, the list of kinds.
Not here: anything derived (that is `model`), any I/O, any decision of what to do with a value.
"""
