"""Readers of the formats of annotation tools and public datasets: one module for each family of formats.

Each has a function ``FORMAT_sources(files)``. For everything that it recognises among
:class:`icconv_mm.app.annotations.images_on_disk.Files`, it yields the format's name, the file or folder, and a function
that reads it into a :class:`icconv_mm.app.annotations.dataset.Dataset`. ``Files`` lists images and
``ANNOTATION_SUFFIXES`` alone; a format with another suffix adds its own.

The function that reads fills the dataset so:

- ``dataset.image(path, split)`` is the entry of an image. Its ``annotations`` are None until a file has named the
  image, and ``[]`` if it says that the image has no objects; such an image is learned as background.
- A format with one file for each image calls ``dataset.is_first(image, file)`` before it sets them: False if other
  annotations of the image were read before.
- An annotation that cannot be read is skipped under ``with dataset.reading(location, image.path):``, which counts it;
  ``--strict`` and the limit of skipped annotations see what ``reading`` and ``leave_out`` count. ``warn`` is for what
  is read all the same.
- An image that annotations name and that is not there goes into ``dataset.missing``.
- Boxes are (x, y, width, height) in pixels of the image after its EXIF rotation. ``schema.check_dataset`` checks names,
  numbers and sizes of every reader afterwards.
"""
