"""What people see in a terminal: tables, steps at work, output formats, failures.

Here: every use of rich, and what is special in our use of click. rich is imported only where the output is a terminal.
Not here: what is shown. Callers hand over rows and say what stands in their columns.
"""
