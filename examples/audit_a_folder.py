"""Audit a folder of pictures: find the poisoned ones, leave them out, train again.

The folder is made here, of the bundled digits; put the path of your own in its place.
"""

# %% A folder with one subfolder per class. 3 % of the pictures carry a small checkerboard and the label 0.
from pathlib import Path
from tempfile import mkdtemp

from PIL import Image

import doorward as dw

place = Path(mkdtemp(prefix="doorward-"))
digits = dw.load_images("mnist-5k").portion(0.6, seed=1)
poisoned = dw.attack(digits, "patch", target=0, rate=0.03, seed=1).images
for number, (pixels, label) in enumerate(zip(poisoned.pixels, poisoned.labels, strict=True)):
    folder = place / "photos" / poisoned.classes[label]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[:, :, 0]).save(folder / f"{number:04}.png")

# %% Train on the folder, and ask what the model learned from it.
images = dw.load_images(place / "photos")
model = dw.train(images, "small-cnn", seed=1)
found = dw.cleanse(images, model)
print(found)
print(found.table())

# %% Train again without the suspects.
cleaned = found.keep("impurity")
again = dw.train(cleaned, "small-cnn", seed=1)
print(f"{len(images) - len(cleaned)} images left out")

# %% Does the trigger still work? Only who made the attack can measure that.
test = dw.load_images("mnist-5k", split="test")
stamped = dw.attack(test, "patch", target=0, count=500, seed=1)
rows = stamped.truth.poisoned
for name, classifier in (("before", model), ("after", again)):
    hits = (classifier.predict(stamped.images.pixels[rows]) == 0).sum()
    right = (classifier.predict(test.pixels) == test.labels).sum()
    print(f"{name}: {hits} of 500 stamped digits go to class 0; {right} of {len(test)} clean ones are right")

# %% One page about it.
print(found.report(place / "audit.html"))
