"""Everything that the product writes goes through here: where an output really goes, and how it gets there.

`place` decides for every output what its path stands for. A file appears `whole` or not at all, a device, a FIFO and
standard output are written to as they are (`direct`), a folder is filled beside its place (`folders`).
"""

from avgn.runtime.outputs.direct import DirectFile
from avgn.runtime.outputs.folders import held_folder, new_folder, no_empty_folders
from avgn.runtime.outputs.lines import TextOutput
from avgn.runtime.outputs.opening import OutputFile, check_output, open_output, write_whole
from avgn.runtime.outputs.place import STDOUT, Place, check_distinct, find_place, takes_stdout
from avgn.runtime.outputs.reasons import write_error
from avgn.runtime.outputs.whole import WholeFile

__all__ = [
    "STDOUT",
    "DirectFile",
    "OutputFile",
    "Place",
    "TextOutput",
    "WholeFile",
    "check_distinct",
    "check_output",
    "find_place",
    "held_folder",
    "new_folder",
    "no_empty_folders",
    "open_output",
    "takes_stdout",
    "write_error",
    "write_whole",
]
