"""Print which of fp32 and bf16 `auto` does not mean here; with --own, which one it means."""

import sys

from stages.lib.encoder import precision

if __name__ == "__main__":
    own = precision.resolve("auto")
    print(own if "--own" in sys.argv else "bf16" if own == "fp32" else "fp32")
