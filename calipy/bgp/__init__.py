"""BGP decisions, and the way to the ExaBGP sidecar that speaks it (RFC 4271, RFC 4724, RFC 4760).

Here: who peers with whom, what is announced to whom, the configuration file that says so, the decision process; the
pipe between ExaBGP and the agent, and the session that keeps ExaBGP as it is to be.
Not here: the wire format (ExaBGP's), routes in the kernel (`felix`: it gets what the decision process has chosen).
"""
