"""Images with class labels: scikit-learn's digits, a Parquet file, a folder of images, or rows of a hub dataset."""

import glob
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradatlas.core.checked import check_parquet
from gradatlas.core.errors import InputError
from gradatlas.data.tabular import quiet_datasets

DIGITS = "digits"


@dataclass(frozen=True)
class Images:
    """`pixels` (n, side, side) between 0 and 1, `labels` (n,) counted from 0, and the classes' names."""

    pixels: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    def split(self, train: int, seed: int) -> tuple["Images", "Images"]:
        """Half of the images, at most `train`, drawn by `seed`, and as many others."""
        order = np.random.default_rng(seed).permutation(len(self.labels))
        count = min(train, len(order) // 2)
        return tuple(
            Images(self.pixels[part], self.labels[part], self.names)
            for part in (order[:count], order[count : 2 * count])
        )


def read_images(source: str, image: str = "image", label: str = "label") -> Images:
    """The images of `source`: ``digits`` (1,797 of 8 x 8, offline), a Parquet file, or a folder with class folders.

    `image` and `label`: the columns of a Parquet file written by the `datasets` library, by default those of MNIST.
    Raises `InputError` for a missing file or column, images of different sizes or not square, labels that are not whole
    numbers from 0, a missing class, and fewer than three classes.
    """
    if source == DIGITS:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return Images(digits.images / 16, digits.target, tuple(map(str, digits.target_names)))
    path = Path(source)
    if not path.exists():
        raise InputError(f"{source}: no such file or folder; fix config key toys.images.source")
    return _checked(_table(path, image, label), source, image, label)


def _table(path: Path, image: str, label: str):
    # Escaped, as the library reads paths as patterns.
    plain = glob.escape(str(path))
    with quiet_datasets() as datasets:
        try:
            if path.is_dir():
                files = {"data_files": {"train": f"{plain}/**"}, "drop_labels": False}
                return datasets.load_dataset("imagefolder", split="train", keep_in_memory=True, **files)
            check_parquet(path, "fetch_images", own=False)
            table = datasets.Dataset.from_parquet(plain, keep_in_memory=True)
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            raise InputError(
                f"{path}: cannot be read as images ({error}); give a Parquet file or a folder with one folder per class"
            ) from None
        for column in (image, label):
            if column not in table.column_names:
                raise InputError(
                    f"{path}: no column '{column}', only {', '.join(table.column_names)}; fix config key toys.images"
                )
        return table.cast_column(image, datasets.Image())


def _checked(table, source: str, image: str, label: str) -> Images:
    import PIL

    try:
        arrays = [np.asarray(row.convert("L"), dtype=np.float64) / 255 for row in table[image]]
    except (PIL.UnidentifiedImageError, OSError, AttributeError) as error:
        raise InputError(f"{source}: a value of column '{image}' is not an image ({error}); fix the file") from None
    sizes = {array.shape for array in arrays}
    if len(sizes) != 1 or len(set(*sizes)) != 1:
        raise InputError(f"{source}: images of sizes {sorted(sizes)}; give square images of one size")
    labels = np.asarray(table[label])
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise InputError(
            f"{source}: column '{label}' holds labels such as {min(labels.tolist())!r}; give whole numbers from 0"
        )
    feature = table.features[label]
    names = tuple(getattr(feature, "names", None) or map(str, range(labels.max() + 1)))
    absent = set(range(len(names))) - set(labels.tolist())
    if absent:
        raise InputError(f"{source}: no image of class '{names[min(absent)]}'; add some, or remove the class")
    if len(names) < 3:
        raise InputError(f"{source}: {len(names)} classes; give three or more, to rank influence over other classes")
    return Images(np.stack(arrays), labels.astype(np.int64), names)
