"""Train a small image classifier and write what learning one image does to its belief in another.

  python -m workflow.scripts.train_classifier --images digits --seed 0 --rate 0.01 --output results/dynamics/toys

`digits` are scikit-learn's (8 x 8, offline). FILE is Parquet with the columns --image and --label, as the datasets
library writes it; FOLDER has one folder of images a class.
"""

from gradatlas.core.command import parser_for, run


def main(argv=None):
    """Run the command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--images", required=True, metavar="SOURCE", help="digits, FILE or FOLDER")
    parser.add_argument("--image", default="image", help="the images' column in FILE")
    parser.add_argument("--label", default="label", help="the labels' column in FILE, whole numbers from 0")
    parser.add_argument("--seed", type=int, required=True, help="seed of weights, batches and the split")
    parser.add_argument("--rate", type=float, required=True, help="step size of training")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for toy_{predictions,kernels,steps,changes}.parquet"
    )
    run(parser, train, argv)


def train(given):
    """Write the tables that the arguments ask for."""
    from gradatlas.toys.write import write_images

    write_images(given.images, given.image, given.label, given.seed, given.rate, given.output)


if __name__ == "__main__":
    main()
