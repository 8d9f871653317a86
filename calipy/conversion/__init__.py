"""The only way from wire shapes (`resources`) to derived values (`model`): pure, one module a wire kind.

Not here: joining two sources into one value (`felix.calc`), anything that writes resources.
"""
