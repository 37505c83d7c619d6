"""Print what `precision: auto` is not on this machine, fp32 or bf16; with --own, what it is."""

import sys

from stages.lib.encoder import precision

if __name__ == "__main__":
    own = precision.resolve("auto")
    print(own if "--own" in sys.argv else "bf16" if own == "fp32" else "fp32")
