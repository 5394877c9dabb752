"""The flags of a training run that takes a second."""

TINY_RUN = (
    *("--backbone", "timm:test_resnet", "--no-pretrained", "--epochs", "1", "--batch-size", "4"),
    *("--set", "train.crop=64", "--set", "train.workers=0", "--set", "model.neck_width=8"),
)
