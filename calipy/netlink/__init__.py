"""A codec for the netlink messages that are sent often, and the socket that carries them.

Here: attributes, messages, and for each family the builders and parsers that CalIPy needs; bytes in, values out.
Not here: what a chain or a route is for, who owns it, when to write.
"""
