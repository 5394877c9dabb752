"""What people bring: recipes, archives as they unpack, annotations, images."""
