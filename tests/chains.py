"""Strategies of hypothesis: entries of `transforms` in a deploy.yaml, with random arguments."""

from hypothesis import strategies as st

sides = st.integers(1, 70)
sizes_wh = st.lists(sides, min_size=2, max_size=2)
values = st.one_of(st.just(127.5), st.integers(0, 255), st.floats(0, 255, width=32))
step_scale = st.floats(0.2, 2)


def entry(kind, **arguments):
    return st.fixed_dictionaries({"type": st.just(kind)}, optional=arguments)


def needed(kind, optional=None, **arguments):
    return st.fixed_dictionaries({"type": st.just(kind), **arguments}, optional=optional or {})


def entries(channels):
    """Returns a strategy for each transform, for images of so many channels."""
    lists = st.lists(st.floats(0, 1), min_size=channels, max_size=channels)
    usual = ([0.485, 0.456, 0.406] * channels)[:channels]
    means = st.one_of(st.just([0.5]), st.just(usual), lists)
    divisors = st.lists(st.floats(0.01, 2), min_size=channels, max_size=channels)
    stds = st.one_of(st.just([0.5]), st.lists(st.floats(0.01, 2), min_size=1, max_size=1), divisors)
    return {
        "Normalize": entry("Normalize", mean=means, std=stds),
        "Resize": needed(
            "Resize",
            {
                "keep_ratio": st.booleans(),
                "size_divisor": st.sampled_from([None, 0, 1, 8, 32]),
                "interp": st.sampled_from(["NEAREST", "LINEAR", "CUBIC", "AREA", "LANCZOS4"]),
            },
            target_size=sizes_wh,
        ),
        "ResizeByLong": needed("ResizeByLong", long_size=sides),
        "ResizeByShort": needed("ResizeByShort", {"max_size": sides}, short_size=sides),
        "LimitLong": st.one_of(
            entry("LimitLong", max_long=sides),
            entry("LimitLong", min_long=sides),
            needed("LimitLong", max_long=st.integers(40, 80), min_long=st.integers(1, 40)),
        ),
        "ResizeRangeScaling": sides.map(
            lambda side: {"type": "ResizeRangeScaling", "min_value": side, "max_value": side}
        ),
        "ResizeStepScaling": st.one_of(
            step_scale.map(
                lambda scale: {
                    "type": "ResizeStepScaling",
                    "min_scale_factor": scale,
                    "max_scale_factor": scale,
                }
            ),
            st.just({"type": "ResizeStepScaling", "scale_step_size": 0.75}),
        ),
        "Padding": needed("Padding", {"im_padding_value": values}, target_size=sizes_wh),
        "PaddingByAspectRatio": entry(
            "PaddingByAspectRatio", aspect_ratio=st.floats(0.3, 3), im_padding_value=values
        ),
        "ScalePadding": needed("ScalePadding", {"im_padding_value": values}, target_size=sizes_wh),
    }
