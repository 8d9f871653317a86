"""The store of a cluster that has a Kubernetes API server: the protocol of `stores`, over HTTP.

Here: who we are to the server, its requests, pages, watches and refusals. The server does what `lifecycles` does for
the embedded store. Not here: when to ask again (the mirror knows), typed clients of kinds that aren't ours.
"""
