"""What is refused at which size: a file or an image of somebody else asks for no more memory than this."""

MAX_METADATA_BYTES = 16 << 20  # of what a file says of itself
MAX_CLASSES = 100_000  # of a task; as many colours
MAX_NAME = 1000  # letters of the name of a class or a keypoint
MAX_FILE_NAME = 200  # bytes of the name of a drawn image: file systems allow 255
MAX_TASK_NAME = 100  # bytes, as it is a part of the names of files
MAX_TASKS = 64
MAX_STEPS = 16  # from an image to the input
MAX_LEVELS = 16  # scales at which a network reads an image
MAX_SCALE = 64.0  # largest of them; the smallest is its inverse
MAX_SIDE = 32766  # pixels of a side of a level or an input: OpenCV warps to no larger one
MAX_LEVEL_PIXELS = 1 << 26  # of a level that a step makes, or of a fixed input
MAX_INPUT_PIXELS = 1 << 28  # of all images of a batch
MAX_IMAGE_BYTES = 1 << 30  # of the file of an image
MAX_IMAGE_PIXELS = 1 << 28  # of an image; OpenCV itself decodes none of more than four times as many
MAX_BATCH = 1024  # images
MAX_THREADS = 1024
MAX_KERNEL = 63  # pixels of the square in which a keypoint has one peak
MAX_PEOPLE = 300  # of the peaks of a keypoint that may be people
MAX_KEYPOINTS = 300  # of a person
MAX_PEAKS = 10_000  # of all keypoints of an image
MAX_OBJECTS = 10_000  # that a task finds in an image
MAX_MASK_PIXELS = 1 << 32  # of all masks of an image
MAX_LOGITS = 1 << 26  # that are kept at once; a row of an image has classes times its width
