# Sends a table of numbers, a row a step, to another tool's logger (its package must be installed):
#   ./g2rl report runs/mine --csv | python3 data/log.py tensorboard|wandb|trackio
import csv
import importlib
import sys

tool = sys.argv[1]
rows = [{name: float(x) for name, x in row.items() if x} for row in csv.DictReader(sys.stdin)]
if tool == "tensorboard":  # tensorboardX; torch.utils.tensorboard has the same class
    with importlib.import_module("tensorboardX").SummaryWriter("tb") as writer:
        for row in rows:
            step = int(row.pop("step"))
            for name, x in row.items():
                writer.add_scalar(name, x, step)
else:
    logger = importlib.import_module(tool)
    logger.init(project="g2rl")
    for row in rows:
        step = int(row.pop("step"))
        logger.log(row, step=step)
    logger.finish()
