"""Completing pictures from Python: by a fill that learns nothing, and by a generator that was trained.

python examples/complete_from_python.py --weights runs/mine --out completed.png
"""

import argparse
from pathlib import Path

import torch

import inpaint_fast as ipf
from inpaint_fast.data import box, read_image, samples, write_png

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--picture", type=Path, help="one of the package's held-out photographs, where none is given")
parser.add_argument("--weights", type=Path, help="a run's folder or a safetensors file; none: the harmonic fill alone")
parser.add_argument("--out", type=Path, default=Path("completed.png"))
args = parser.parse_args()

picture = samples("heldout")[0] if args.picture is None else read_image(args.picture)  # uint8 (3, H, W)
height, width = picture.shape[1:]
mask = box(height, width, width // 3, height // 3, width // 4, height // 4)  # bool (1, H, W), true in the hole

completed = ipf.complete(picture, mask, fill="harmonic")  # Laplace's equation from the hole's border
if args.weights is not None:
    completed = ipf.complete(picture, mask, weights=args.weights, blend=True)

outside = ~mask.expand_as(picture)
assert torch.equal(completed[outside], picture[outside])  # every other pixel is the picture's own, byte for byte
error = (completed.float() - picture.float())[~outside].square().mean().sqrt().item()
write_png(args.out, completed)
print(f"{args.out}: {width}x{height}, error in the hole {error:.1f} of 255")
