# The 16 images of mmdet's 1x from 4 GPUs with 4 each, as SEPC's authors had them: integrated batch norm wants several
# images. A config that inherits it takes it as its `train_dataloader`.
ibn_4xb4 = dict(batch_size=4)
