"""Derived values: what the calculation, the drivers and BGP speak of, one value a concept.

Here: frozen values and their identities, no behaviour beyond their own fields.
Not here: wire shapes (`resources`), the way from those to these (`conversion`), decisions, I/O.
"""
