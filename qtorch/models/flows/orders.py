"""Which coordinates each layer of a flow transforms."""


def coupling_orders(features: int, transforms: int) -> list[tuple[list[int], int]]:
    """An order of the coordinates for each coupling layer, and how many of the first are kept.

    Layers 2 j and 2 j + 1 split the coordinates by bit j of their numbers, one the complement of the other, so that
    after 2 log2(D) layers any two coordinates have stood on different sides; then the bits come round again.

    References:
        Gao, Isaacson and Krause (2020), i-flow, Machine Learning: Science and Technology 1, section 3.3.

    Example:
        >>> coupling_orders(4, 3)
        [([1, 3, 0, 2], 2), ([0, 2, 1, 3], 2), ([2, 3, 0, 1], 2)]
    """
    bits = max((features - 1).bit_length(), 1)
    orders = []
    for layer in range(transforms):
        sides: tuple[list[int], list[int]] = ([], [])
        for i in range(features):
            sides[(i >> (layer // 2 % bits)) & 1].append(i)
        kept, rest = sides if layer % 2 else sides[::-1]
        if not rest:  # of one coordinate, which nothing else can tell about
            kept, rest = rest, kept
        orders.append((kept + rest, len(kept)))
    return orders
