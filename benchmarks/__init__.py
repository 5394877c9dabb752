"""Scripts that measure speed and robustness; run them from the root by ``python -m``."""
