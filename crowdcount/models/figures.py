"""What each backbone weighs: numbers that cost seconds to compute, and that tests compute again."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """A backbone in numbers, for blocks of 8 pixels and five bins."""

    encoder: float
    """Millions of parameters of the encoder."""

    parameters: float
    """Millions, of the model that a checkpoint holds."""

    trained: float
    """Millions that are trained where nothing else is said."""

    stride: int
    """Of the encoder, in pixels."""

    gmac_448: int
    """Billions of multiply-adds for an image of 448 x 448 pixels."""

    gmac_1024: int
    """The same for 1024 x 768 pixels. Windows are counted one by one."""

    weights: str
    """Where the usual weights come from."""

    licence: str
    """Terms of those weights, as far as they are stated; docs/backbones.md says more."""


_OPENAI = ("OpenAI", "MIT, as OpenAI's code")
_TORCHVISION = ("torchvision, IMAGENET1K_V1", "none stated")

# fmt: off
FIGURES: dict[str, Figures] = {
    "clip-rn50": Figures(23.5, 71.8, 71.8, 16, 170, 666, *_OPENAI),
    "clip-rn101": Figures(42.5, 103.9, 103.9, 16, 226, 885, *_OPENAI),
    "clip-rn50x4": Figures(65.6, 89.4, 89.4, 16, 137, 538, *_OPENAI),
    "clip-rn50x16": Figures(136.2, 170.4, 170.4, 16, 237, 929, *_OPENAI),
    "clip-rn50x64": Figures(365.0, 425.9, 425.9, 16, 526, 2062, *_OPENAI),
    "clip-vit-b-16": Figures(85.8, 97.1, 11.3, 16, 117, 583, *_OPENAI),
    "clip-vit-b-32": Figures(87.5, 98.8, 11.3, 32, 63, 317, *_OPENAI),
    "clip-vit-l-14": Figures(303.2, 323.6, 20.5, 14, 428, 2139, *_OPENAI),
    "clip-vit-l-14-336": Figures(303.5, 324.0, 20.5, 14, 949, 2846, *_OPENAI),
    "clip-convnext-base-w": Figures(
        87.6, 99.8, 99.8, 32, 97, 378, "LAION, laion2b_s13b_b82k_augreg", "MIT"
    ),
    "mobileclip-s1": Figures(21.0, 33.1, 33.1, 32, 49, 194, "Apple, datacompdr", "Apple's own"),
    "siglip-b-16": Figures(85.8, 97.3, 11.5, 16, 117, 585, "Google, webli", "Apache 2.0"),
    "vgg11": Figures(9.2, 10.7, 10.7, 16, 35, 135, *_TORCHVISION),
    "vgg11_bn": Figures(9.2, 10.7, 10.7, 16, 35, 135, *_TORCHVISION),
    "vgg13": Figures(9.4, 10.9, 10.9, 16, 49, 193, *_TORCHVISION),
    "vgg13_bn": Figures(9.4, 10.9, 10.9, 16, 49, 193, *_TORCHVISION),
    "vgg16": Figures(14.7, 16.2, 16.2, 16, 66, 259, *_TORCHVISION),
    "vgg16_bn": Figures(14.7, 16.2, 16.2, 16, 66, 259, *_TORCHVISION),
    "vgg19": Figures(20.0, 21.5, 21.5, 16, 83, 324, *_TORCHVISION),
    "vgg19_bn": Figures(20.0, 21.5, 21.5, 16, 83, 324, *_TORCHVISION),
    "csrnet": Figures(7.6, 16.3, 16.3, 8, 83, 325, *_TORCHVISION),
    "csrnet_bn": Figures(7.6, 16.3, 16.3, 8, 83, 325, *_TORCHVISION),
    "cannet": Figures(7.6, 18.1, 18.1, 8, 88, 344, *_TORCHVISION),
    "cannet_bn": Figures(7.6, 18.1, 18.1, 8, 88, 344, *_TORCHVISION),
    "resnet18": Figures(11.2, 18.3, 18.3, 16, 34, 135, *_TORCHVISION),
    "resnet34": Figures(21.3, 28.4, 28.4, 16, 45, 175, *_TORCHVISION),
    "resnet50": Figures(23.5, 30.1, 30.1, 16, 45, 178, *_TORCHVISION),
    "resnet101": Figures(42.5, 52.0, 52.0, 16, 69, 272, *_TORCHVISION),
    "resnet152": Figures(58.1, 70.5, 70.5, 16, 93, 365, *_TORCHVISION),
}
# fmt: on
"""Of every key of ``BACKBONES``."""
