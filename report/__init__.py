"""What people look at: run histories, pages, charts, cells.

Loops write through `run`: `records` into the history, and `live` draws the report meanwhile.
`history` reads a run folder back; `page` makes a report of it, with `charts` and cells.
"""
