"""stand-in until the real one lands"""


def gather_with_gradient(x):
    return x


def gather(x):
    return x
