"""The data element of an image with the labels and predictions of several tasks."""

from mmengine.structures import BaseDataElement

# Meta information of a sample: whether its labels are those of the file while its image was resized before them.
LABELS_OF_FILE = 'labels_of_file'


class MultiTaskSample(BaseDataElement):
    """One data sample per task, each of the task's own library, as a field with the task's name.

    A task that the image has no labels for has no field. The meta information is what all tasks share: ``img_path``,
    ``img_id``, ``ori_shape`` and ``img_shape``.

    Example:
        >>> from mmdet.structures import DetDataSample
        >>> sample = MultiTaskSample(boxes=DetDataSample(), metainfo=dict(img_path='1.jpg'))
        >>> 'boxes' in sample, 'keypoints' in sample
        (True, False)
    """
