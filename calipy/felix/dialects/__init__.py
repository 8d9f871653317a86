"""Spellings of neutral rules: `nftables` for the kernel, both ways; `text` for people. Pure."""
