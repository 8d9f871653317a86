"""What a node says of itself: the answers, and the socket on which they are asked for.

Here: the shapes of answers, the words that people read, the agent's query socket and its client; what becomes of a
packet (`verdicts`), by the specifications (`reference`) and by the rules (`walk`, `views`); questions about connections
and their answers from the datastore's objects (`questions`, `answers`, `ways`).
Not here: where the answers come from (the agent joins them), tables and output formats (`console`).
"""
