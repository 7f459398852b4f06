# PRIO
import sys

sys.path.insert(0, "/work/main/examples/real_pictures")
from pathlib import Path
from run import *

if __name__ == "__main__":
    r = Recipe()
    t = make_tables(Path("../shared/data"), Path("runs/real/tables"))
    pretrain(
        t["pairs"],
        Path("runs/real/base"),
        HERE / "base",
        validation=t["pairs-val"],
        steps=r.pretrain_steps,
        batch_size=r.pretrain_batch_size,
    )
