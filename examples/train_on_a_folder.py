"""Training on a folder of pictures from Python, and going on with the run.

    python examples/train_on_a_folder.py --data photos/ --steps 2000 --out runs/mine

Any pictures that Pillow reads, in any subfolders; photos/train and photos/heldout are used where they are, otherwise
some pictures are held out. Without --data: the photographs that come with the package.
"""

import argparse
import json
from pathlib import Path

from inpaint_fast.training import UNetWGAN, read_recipe, train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default="samples")
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--out", type=Path, default=Path("runs/mine"))
args = parser.parse_args()

recipe = UNetWGAN(data=args.data, steps=args.steps, batch_size=16, evaluate_every=max(args.steps // 8, 1), ema=0.999)
train(recipe, args.out)

# Whatever ended it (the last step, Ctrl-C, a lost machine), the run goes on from its newest checkpoint, and on a CPU as
# if it had never stopped. More steps than it had:
recipe = read_recipe(args.out)
recipe.steps += max(args.steps // 4, 1)
train(recipe, args.out, resume=True)

last = json.loads((args.out / "metrics.jsonl").read_text().splitlines()[-1])
print(f"{args.out}: step {last['step']}, PSNR {last['psnr']:.2f} dB inside held-out holes; harmonic fill "
      f"{last['harmonic_psnr']:.2f} dB")  # fmt: skip
