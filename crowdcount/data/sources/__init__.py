"""Sources of data: recipes, unpacked archives, annotations, images."""
