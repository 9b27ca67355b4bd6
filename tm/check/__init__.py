"""A second account of the nine machines, written by hand from the format and sharing nothing with the first.

``grammar`` parses entries, ``execute`` runs their commands, ``closed`` knows every entry in closed form, ``successor``
is the fast path, ``rows`` checks built rows. Nothing here imports the machines, their templates or the renderer.
"""
