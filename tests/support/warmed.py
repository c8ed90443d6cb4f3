"""When the first model of a process is loaded, transformers computes a table of all models' conversions, with a
thousand regular expressions. Importing this module computes the table. A test process that forks commands imports this
module once, before it forks, so that the commands need not compute the table.
"""

from __future__ import annotations

from contextlib import suppress

with suppress(ImportError):  # the table is internal to transformers; without it, commands are only slower
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")
