"""Blocks of a network whose code adds and rectifies, each in a way of its own."""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A block whose code subclasses write, inside a network."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


class Method(Block):
    def forward(self, x):
        return F.relu(x.add(self.bn1(self.conv1(x))))


class InPlace(Block):
    def forward(self, x):
        out = self.bn1(self.conv1(x))
        out += x
        return self.relu(out)


class TwoConvolutions(Block):
    def forward(self, x):
        return self.relu(self.bn1(self.conv1(x)) + self.bn2(self.conv2(x)))


class ReadAgain(Block):
    """Somebody else reads the sum, or the convolution: neither can go."""

    def forward(self, x):
        y = self.bn1(self.conv1(x))
        total = y + x
        return self.relu(total + 0) + total.sigmoid() + F.relu(y)


class Scaled(Block):
    def forward(self, x):
        return self.relu(torch.add(self.bn1(self.conv1(x)), x, alpha=2))


class Number(Block):
    def forward(self, x):
        return self.relu(self.bn1(self.conv1(x)) + 1)


class InputChanges(Block):
    """What the convolution reads is written to before its result is rectified."""

    def forward(self, x):
        x = x * 1
        y = self.bn1(self.conv1(x))
        x.add_(1)
        return self.relu(y + x)


class Doubled(Block):
    def forward(self, x):
        y = self.bn1(self.conv1(x))
        return self.relu(y + y)


class Leaky(Block):
    def forward(self, x):
        return F.leaky_relu(self.bn1(self.conv1(x)) + x)


# block -> what the form calls: convolutions with ReLU alone, and with an addition
BLOCKS = {
    Block: ['relu', 'add'],
    Method: ['add'],
    InPlace: ['add'],
    TwoConvolutions: ['add'],
    ReadAgain: [],
    Scaled: [],
    Number: [],
    InputChanges: [],
    Doubled: [],
    Leaky: [],
}
