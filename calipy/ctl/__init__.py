"""pycalicoctl: a cluster's objects read, written and checked by hand, through the datastore that everything else uses.

Here: its commands, the reading of documents, the columns of each kind.
Not here: what is right in an object (`resources`), what the address book should look like (`ipam`).
"""
