"""The only way from wire shapes (`resources`) to derived values (`model`): pure, one module a wire kind, and one each
for what several kinds have in common (`selectors`, `lists`).

Not here: joining two sources into one value (`felix.calc`), anything that writes resources.
"""
